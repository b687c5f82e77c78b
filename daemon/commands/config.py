"""``layerwatch config check|print|schema``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from layerwatch.config.defaults import default_yaml
from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings
from layerwatch.config.redaction import dump_redacted
from layerwatch.config.schema import json_schema
from layerwatch.daemon.commands.run import CONFIG_OPTION, found_config

app = typer.Typer(
    help="Check, print or describe the configuration.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def check(config: Annotated[Path | None, CONFIG_OPTION] = None) -> None:
    """Report every problem of the configuration, with file, line and key. Exit code 2 when there is one.

    Secrets are read, and receivers built, as the daemon would.
    """
    from layerwatch.daemon.live import load_live

    path = found_config(config)
    try:
        settings = load_live(path).settings
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{path or 'the defaults'}: no problem found")
    for registry in settings.registries:
        if registry.kind == "directory" and not registry.path.is_dir():
            typer.echo(f"registry {registry.name}: {registry.path} is not there now", err=True)
    if not settings.registries:
        typer.echo("no registry is configured: nothing would be watched", err=True)


@app.command("print")
def print_(
    config: Annotated[Path | None, CONFIG_OPTION] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Print the commented default file instead.")
    ] = False,
) -> None:
    """Print the configuration in force, environment included and secrets hidden."""
    if default:
        typer.echo(default_yaml(), nl=False)
        return
    try:
        typer.echo(dump_redacted(load_settings(found_config(config), os.environ)), nl=False)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration file, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2))

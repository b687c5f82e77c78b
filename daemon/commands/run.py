"""``layerwatch run``: the daemon."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Annotated

import typer

from layerwatch.config.errors import ConfigError
from layerwatch.daemon.commands.logs import configure_logging

CONFIG_OPTION = typer.Option("--config", "-c", envvar="LAYERWATCH_CONFIG", help="Configuration file.")


def run(
    config: Annotated[Path | None, CONFIG_OPTION] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every look and delivery.")] = False,
) -> None:
    """Watch the configured registries until SIGTERM; SIGHUP reloads the configuration.

    Without --config, layerwatch.yaml in the current folder is used when it is there.
    """
    # Imported here so that the other commands start without the daemon's libraries.
    from layerwatch.daemon.app import AlreadyRunningError, App
    from layerwatch.daemon.store.errors import StoreError

    configure_logging(verbose)
    try:
        App(found_config(config)).run()
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except (StoreError, AlreadyRunningError, OSError) as error:
        typer.echo(f"layerwatch: {error}", err=True)
        raise typer.Exit(1) from None
    _end_hanging_threads()


def _end_hanging_threads() -> None:
    """End the process although a thread is still hashing a huge file or waiting for a slow receiver.

    The interpreter would wait for it. Nothing is lost by not waiting: the store is closed, and what was not
    recorded is done again after the next start.
    """
    if threading.active_count() > 1:
        logging.shutdown()
        os._exit(0)


def found_config(config: Path | None) -> Path | None:
    """The file named, or layerwatch.yaml of the current folder, or None for the defaults."""
    default = Path("layerwatch.yaml")
    return config if config is not None else (default if default.exists() else None)

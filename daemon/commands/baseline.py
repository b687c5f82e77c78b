"""``layerwatch baseline list|show|accept|pin|unpin``: which version others are judged against."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerwatch.config.secrets import SecretError, redact_url
from layerwatch.daemon.commands.local import settings_of
from layerwatch.daemon.commands.run import CONFIG_OPTION, found_config
from layerwatch.daemon.gate.text import printable

if TYPE_CHECKING:
    from layerwatch.daemon.store.database import Database
    from layerwatch.daemon.store.records import BaselineRecord

# The store's libraries are imported by the functions that use it: every other command would wait for them too.

app = typer.Typer(
    help="Show or choose the version that others are judged against.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelArgument = Annotated[str, typer.Argument(metavar="REGISTRY/MODEL", help="For example prod/fraud.")]
VersionArgument = Annotated[str, typer.Argument(help="Name of a version in the registry.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for those who read the history.")]


@app.command("list")
def list_(config: Annotated[Path | None, CONFIG_OPTION] = None) -> None:
    """The baseline that people chose for each model."""
    from layerwatch.daemon.store import baselines, versions

    with _store(config) as database, database.read() as connection:
        known = versions.models(connection)
        for registry, model in known:
            chosen = baselines.effective(connection, registry, model)
            typer.echo(
                f"{registry}/{printable(model)}: {_line(chosen) if chosen else 'none chosen: parent or history'}"
            )
        if not known:
            typer.echo("the store holds no model yet")


@app.command()
def show(model: ModelArgument, config: Annotated[Path | None, CONFIG_OPTION] = None) -> None:
    """Everything that was done to a model's baseline, latest first."""
    from layerwatch.daemon.store import baselines

    registry, name = _split(model)
    with _store(config) as database, database.read() as connection:
        history = baselines.history(connection, registry, name)
    for record in history:
        typer.echo(_line(record))
    if not history:
        typer.echo(
            "nothing was accepted or pinned: versions are judged against their parent or the model's history"
        )


@app.command()
def accept(
    model: ModelArgument,
    version: VersionArgument,
    reason: ReasonOption,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Call a version normal: it ends its alert about weights and is a baseline for those to come."""
    from layerwatch.daemon.store import baselines

    registry, name = _split(model)
    with _store(config) as database, database.write() as connection:
        record = baselines.accept(connection, registry, name, version, _user(), reason, datetime.now(UTC))
    typer.echo(_line(record))


@app.command()
def pin(
    model: ModelArgument,
    version: VersionArgument,
    reason: ReasonOption,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Judge everything against this version until it is unpinned."""
    from layerwatch.daemon.store import baselines

    registry, name = _split(model)
    with _store(config) as database, database.write() as connection:
        record = baselines.pin(connection, registry, name, version, _user(), reason, datetime.now(UTC))
    typer.echo(_line(record))


@app.command()
def unpin(
    model: ModelArgument, reason: ReasonOption, config: Annotated[Path | None, CONFIG_OPTION] = None
) -> None:
    """Take the pin off."""
    from layerwatch.daemon.store import baselines

    registry, name = _split(model)
    with _store(config) as database, database.write() as connection:
        record = baselines.unpin(connection, registry, name, _user(), reason, datetime.now(UTC))
    typer.echo(_line(record))


@contextmanager
def _store(config: Path | None) -> Iterator[Database]:
    """The configured store, which may be in use by a running daemon.

    A wrong name, or a URL that cannot be read, ends the command with code 2, trouble with the store with code 1. No store is made.
    """
    from layerwatch.daemon.store.database import Database
    from layerwatch.daemon.store.errors import StoreError, StoreReason
    from layerwatch.daemon.storelocation import store_exists, store_url

    try:
        url = store_url(settings_of(config), found_config(config))
    except SecretError as error:
        typer.echo(f"store.url: {error.detail}", err=True)
        raise typer.Exit(2) from None
    if not store_exists(url):
        typer.echo(
            f"there is no store at {redact_url(url)}: run the daemon first, or name its configuration",
            err=True,
        )
        raise typer.Exit(2)
    try:
        database = Database.open(url)
        try:
            yield database
        finally:
            database.close()
    except StoreError as error:
        usage = error.reason in (StoreReason.NOT_FOUND, StoreReason.NOTHING_PINNED)
        typer.echo(error.detail if usage else f"layerwatch: {error}", err=True)
        raise typer.Exit(2 if usage else 1) from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # Containers often run under a number that has no name.
        return f"uid {os.getuid()}"


def _split(argument: str) -> tuple[str, str]:
    registry, separator, model = argument.partition("/")
    if not (separator and registry and model):
        typer.echo(f"{argument}: must be REGISTRY/MODEL, for example prod/fraud", err=True)
        raise typer.Exit(2)
    return registry, model


def _line(record: BaselineRecord) -> str:
    at = record.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{printable(record.version)} {record.kind} by {record.by} on {at}: {printable(record.reason)}"

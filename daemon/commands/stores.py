"""What the commands that read or write the daemon's store share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from layerwatch.config.secrets import SecretError, redact_url
from layerwatch.config.wording import nearest
from layerwatch.daemon.commands.run import found_config
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from layerwatch.config.settings import Settings
    from layerwatch.daemon.store.database import Database

# The store's libraries are imported by the functions that use it: every other command would wait for them too.


@contextmanager
def open_store(settings: Settings, config: Path | None, *, changed: bool = True) -> Iterator[Database]:
    """The configured store, which may be in use by a running daemon.

    A wrong name, or a URL that cannot be read, ends the command with code 2, trouble with the store with code 1. No
    store is made.

    Args:
        changed: False when nothing in it may be changed, its schema neither.
    """
    from layerwatch.daemon.store.database import Database
    from layerwatch.daemon.store.errors import StoreError, StoreReason
    from layerwatch.daemon.storelocation import store_exists, store_url

    try:
        url = store_url(settings, found_config(config))
    except SecretError as error:
        usage_error(f"store.url: {error.detail}")
    if not store_exists(url):
        usage_error(
            f"there is no store at {redact_url(url)}: run the daemon first, or name its configuration"
        )

    def refuse(address: str) -> NoReturn:
        detail = (
            "the store was written by an older layerwatch: start the daemon once, which brings it up to date"
        )
        raise StoreError(StoreReason.CANNOT_OPEN, detail)

    try:
        database = Database.open(url, None if changed else refuse)
        try:
            yield database
        finally:
            database.close()
    except StoreError as error:
        usage = error.reason in (StoreReason.NOT_FOUND, StoreReason.NOTHING_PINNED)
        typer.echo(error.detail if usage else f"layerwatch: {error}", err=True)
        raise typer.Exit(2 if usage else 1) from None


def split_model(argument: str) -> tuple[str, str]:
    """Registry and model of ``REGISTRY/MODEL``; anything else is a usage error."""
    registry, separator, model = argument.partition("/")
    if not (separator and registry and model):
        usage_error(f"{printable(argument)}: must be REGISTRY/MODEL, for example prod/fraud")
    return registry, model


def require_model(connection: Connection, registry: str, model: str) -> None:
    """Do nothing for a model that the store remembers; for any other a usage error, with the one that was meant."""
    from layerwatch.daemon.store import versions

    known = versions.all_models(connection)
    if (registry, model) in known:
        return
    near = nearest(f"{registry}/{model}", [f"{one}/{other}" for one, other in known])
    hint = f"; did you mean {printable(near)}?" if near else "; layerwatch baseline list shows all"
    usage_error(f"the store holds no model {printable(f'{registry}/{model}')}{hint}")


def usage_error(message: str) -> NoReturn:
    """Say what is wrong and end with code 2."""
    typer.echo(message, err=True)
    raise typer.Exit(2)

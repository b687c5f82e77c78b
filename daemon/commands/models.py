"""MODEL arguments of ``scan`` and ``gate``: a path, or the address of a model in a remote registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from layerwatch.config.settings import Settings
from layerwatch.daemon.commands.local import CANNOT_EXAMINE, model_path
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.daemon.modeladdress import Address, OpenedModel
    from layerwatch.daemon.registries.base import RegistryUnavailable
    from layerwatch.metrics.report import Report


@dataclass(frozen=True, slots=True)
class GivenModel:
    """A model at hand.

    Attributes:
        path: its files, or the one file.
        remote: what its registry calls it; None for a local path.
    """

    path: Path
    remote: OpenedModel | None = None


@contextmanager
def given_model(argument: str, settings: Settings) -> Iterator[GivenModel]:
    """The model that an argument means, fetched when it is remote, valid inside the context.

    Exits with code 2 for what cannot be a model or needs a person, 3 for what cannot be reached or examined now.
    """
    from layerwatch.daemon.modeladdress import AddressError, parse_address

    try:
        address = parse_address(argument, os.environ)
    except AddressError as error:
        typer.echo(printable(str(error)), err=True)
        raise typer.Exit(2) from None
    if address is None:
        yield GivenModel(model_path(argument))
        return
    with _fetched(address, settings) as found:
        yield GivenModel(found.path, found)


@contextmanager
def _fetched(address: Address, settings: Settings) -> Iterator[OpenedModel]:
    from layerwatch.daemon.modeladdress import opened
    from layerwatch.daemon.registries.base import RegistryUnavailable
    from layerwatch.daemon.registries.downloads import Downloads
    from layerwatch.metrics.errors import UnreadableError

    downloads = Downloads(settings.downloads.path or _cache_folder(), settings.downloads.size_limit)
    with ExitStack() as stack:
        try:
            found = stack.enter_context(opened(address, downloads))
        except RegistryUnavailable as error:
            typer.echo(printable(f"{address.text}: {error}"), err=True)
            typer.echo(f"On the command line these settings come from {address.variables}.", err=True)
            raise typer.Exit(_code_of(error)) from None
        except UnreadableError as error:
            typer.echo(printable(f"{address.text}: {error}"), err=True)
            raise typer.Exit(CANNOT_EXAMINE) from None
        typer.echo(printable(f"{address.text} is {found.name} {found.version}"), err=True)
        yield found


def named(report: Report, model: GivenModel, baseline: GivenModel | None) -> Report:
    """The report, with the names that remote registries give to what was examined."""
    update: dict[str, object] = {}
    if model.remote is not None:
        update["model"] = report.model.model_copy(update=_names(model.remote))
    if baseline is not None and baseline.remote is not None and report.baseline is not None:
        update["baseline"] = report.baseline.model_copy(update=_names(baseline.remote))
    return report.model_copy(update=update)


def _names(found: OpenedModel) -> dict[str, str]:
    return {"source": found.source, "name": found.name, "version": found.version}


def _code_of(error: RegistryUnavailable) -> int:
    from layerwatch.daemon.registries.base import RegistryReason

    by_person = error.reason.misconfigured or error.reason in (
        RegistryReason.NOT_FOUND,
        RegistryReason.VERSION_GONE,
    )
    return 2 if by_person else CANNOT_EXAMINE


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "layerwatch" / "downloads"

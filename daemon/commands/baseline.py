"""``layerwatch baseline list|show|versions|accept|pin|unpin``: which version others are judged against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerwatch.daemon.commands.acting import actor, user
from layerwatch.daemon.commands.local import settings_of
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.daemon.commands.stores import open_store, require_model, split_model
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.daemon.store.database import Database
    from layerwatch.daemon.store.records import BaselineRecord, VersionRecord

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
    """The baseline that was chosen for each model: what is pinned, and what is accepted behind it."""
    from layerwatch.daemon.store import baselines, versions

    with _store(config) as database, database.read() as connection:
        known = versions.models(connection)
        for registry, model in known:
            lines = [_line(one) for one in baselines.chosen(connection, registry, model)]
            shown = "; ".join(lines) or "none chosen: parent or history"
            typer.echo(f"{registry}/{printable(model)}: {shown}")
        if not known:
            typer.echo("the store holds no model yet")


@app.command()
def show(model: ModelArgument, config: Annotated[Path | None, CONFIG_OPTION] = None) -> None:
    """Everything that was done to a model's baseline, latest first."""
    from layerwatch.daemon.store import baselines

    registry, name = split_model(model)
    with _store(config) as database, database.read() as connection:
        history = baselines.history(connection, registry, name)
        if not history:
            require_model(connection, registry, name)
    for record in history:
        typer.echo(_line(record))
    if not history:
        typer.echo(
            "nothing was accepted or pinned: versions are judged against their parent or the model's history"
        )


@app.command("versions")
def versions_(model: ModelArgument, config: Annotated[Path | None, CONFIG_OPTION] = None) -> None:
    """Every version of a model, newest first: its verdict, its declared parent, what it was judged against."""
    from layerwatch.daemon.store import baselines, versions

    registry, name = split_model(model)
    with _store(config) as database, database.read() as connection:
        require_model(connection, registry, name)
        accepted = _by_people(baselines.history(connection, registry, name))
        pinned = baselines.pinned(connection, registry, name)
        rows = []
        for record in reversed(versions.of_model(connection, registry, name)):
            full = versions.get(connection, record.id)
            bytes_ = (record.key.version, record.fingerprint)
            chosen = "accepted" if bytes_ in accepted else None
            if chosen is None and pinned is not None and bytes_ == (pinned.version, pinned.fingerprint):
                chosen = "pinned"
            rows.append(_version_cells(record, full.report if full else None, chosen))
    heads = ("version", "verdict", "judged", "relation", "judged against", "")
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    for row in (heads, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


@app.command()
def accept(
    model: ModelArgument,
    version: VersionArgument,
    reason: ReasonOption,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Call a version normal: it ends its alert about weights and is a baseline for those to come."""
    from layerwatch.daemon.auditing import note_baseline
    from layerwatch.daemon.store import baselines

    registry, name = split_model(model)
    with _store(config, changed=True) as database, database.write() as connection:
        require_model(connection, registry, name)
        record = baselines.accept(connection, registry, name, version, user(), reason, datetime.now(UTC))
        note_baseline(connection, actor(), record, record.at)
    typer.echo(_line(record))


@app.command()
def pin(
    model: ModelArgument,
    version: VersionArgument,
    reason: ReasonOption,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Judge everything against this version until it is unpinned."""
    from layerwatch.daemon.auditing import note_baseline
    from layerwatch.daemon.store import baselines

    registry, name = split_model(model)
    with _store(config, changed=True) as database, database.write() as connection:
        require_model(connection, registry, name)
        record = baselines.pin(connection, registry, name, version, user(), reason, datetime.now(UTC))
        note_baseline(connection, actor(), record, record.at)
    typer.echo(_line(record))


@app.command()
def unpin(
    model: ModelArgument, reason: ReasonOption, config: Annotated[Path | None, CONFIG_OPTION] = None
) -> None:
    """Take the pin off."""
    from layerwatch.daemon.auditing import note_baseline
    from layerwatch.daemon.store import baselines

    registry, name = split_model(model)
    with _store(config, changed=True) as database, database.write() as connection:
        if baselines.pinned(connection, registry, name) is None:
            require_model(connection, registry, name)
        record = baselines.unpin(connection, registry, name, user(), reason, datetime.now(UTC))
        note_baseline(connection, actor(), record, record.at)
    typer.echo(_line(record))


def _store(config: Path | None, *, changed: bool = False) -> AbstractContextManager[Database]:
    return open_store(settings_of(config), config, changed=changed)


def _line(record: BaselineRecord) -> str:
    at = record.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{printable(record.version)} {record.kind} by {record.by} on {at}: {printable(record.reason)}"


def _by_people(history: Sequence[BaselineRecord]) -> set[tuple[str, str]]:
    """What people accepted: (version, fingerprint). Accepting another one later takes nothing back."""
    from layerwatch.daemon.store.records import BaselineKind

    return {(one.version, one.fingerprint) for one in history if one.kind is BaselineKind.ACCEPTED}


def _version_cells(record: VersionRecord, report: str | None, chosen: str | None) -> tuple[str, ...]:
    """Cells of one row.

    Args:
        chosen: what a person did with the version, in one word; None for nothing.
    """
    lineage = record.lineage
    relation = "-"
    if lineage.parent is not None:
        relation = f"{lineage.relation or 'derived'} from {lineage.parent}"
    against = "-"
    if report is not None:
        baseline = json.loads(report).get("baseline")
        against = f"{baseline['version']} ({baseline['chosen_by']})" if baseline else "nothing"
    elif record.verdict is not None:
        against = "no longer kept"
    remark = "gone" if record.gone_at is not None else ""
    if not record.current:
        remark = "replaced by other bytes"
    verdict = str(record.verdict) if record.verdict is not None else str(record.state)
    cells = (
        record.key.version,
        f"{verdict} ({chosen})" if chosen is not None else verdict,
        record.judged_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if record.judged_at else "-",
        relation,
        against,
        remark,
    )
    return tuple(printable(cell) for cell in cells)

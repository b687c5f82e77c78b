"""``layerwatch alert list|show|acknowledge|unacknowledge``: what fires, and who is on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerwatch.daemon.commands.acting import actor, checked_entries, user
from layerwatch.daemon.commands.local import settings_of
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.daemon.commands.silence import AuthorOption, FormatOption, ListFormat
from layerwatch.daemon.commands.stores import open_store, require_model, split_model, usage_error
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from layerwatch.alerts.model import AlertState

# The store's libraries are imported by the functions that use it: every other command would wait for them too.

app = typer.Typer(help="Show alerts, and say who is on them.", no_args_is_help=True, rich_markup_mode=None)

_MOST_LAYERS = 3
_ID_DIGITS = 12
"""Of the 32 that an alert's id has: enough to tell alerts apart, and few enough to copy."""

AlertArgument = Annotated[
    str,
    typer.Argument(
        metavar="ALERT", help="An alert's id, 8 digits of it, or REGISTRY/MODEL for all that fire."
    ),
]
RefOption = Annotated[
    str | None, typer.Option("--ref", help="Only the alerts of this ref of REGISTRY/MODEL.")
]


@app.command("list")
def list_(
    everything: Annotated[
        bool, typer.Option("--all", help="Those that wait for confirmation or ended, too.")
    ] = False,
    format_: FormatOption = ListFormat.TEXT,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """The alerts that fire, worst first, with who is on them and which silence holds them back."""
    from layerwatch.alerts.model import AlertPhase
    from layerwatch.daemon.silencing import silenced
    from layerwatch.daemon.store import alerts

    now = datetime.now(UTC)
    settings = settings_of(config)
    with open_store(settings, config, changed=False) as database, database.read() as connection:
        found = alerts.list_states(connection, None if everything else AlertPhase.FIRING)
        firing = [state for state in found if state.phase is AlertPhase.FIRING]
        muted = silenced(connection, firing, settings.alerts.owners, now)
    phases = (AlertPhase.FIRING, AlertPhase.PENDING, AlertPhase.RESOLVED)
    found.sort(key=lambda state: (phases.index(state.phase), -state.severity.rank, state.started_at))
    if format_ is ListFormat.JSON:
        from layerwatch.daemon.web.views import AlertView

        views = [AlertView.of(state, muted.get(state.identity)) for state in found]
        typer.echo(json.dumps([view.model_dump(mode="json") for view in views], indent=2))
        return
    rows = [_cells(state, muted.get(state.identity)) for state in found]
    if not rows:
        typer.echo("there was no alert yet" if everything else "no alert is firing")
        return
    heads = ("alert", "severity", "model", "ref", "version", "group", "since", "layers", "")
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    for row in (heads, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def show(
    alert: AlertArgument, ref: RefOption = None, config: Annotated[Path | None, CONFIG_OPTION] = None
) -> None:
    """What people are told of an alert, as JSON, and who is on it."""
    from layerwatch.daemon.store import alerts

    with open_store(settings_of(config), config, changed=False) as database, database.read() as connection:
        for state in _named(connection, alert, ref):
            typer.echo(_line(state))
            told = alerts.told_of(connection, state.identity)
            if told is None:
                typer.echo("  nobody was told of it yet")
            else:
                typer.echo(json.dumps(json.loads(told), indent=2))


@app.command()
def acknowledge(
    alert: AlertArgument,
    reason: Annotated[str, typer.Option("--reason", help="What is being done about it.")],
    ref: RefOption = None,
    author: AuthorOption = None,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Say that somebody is on it: the alert is not repeated until it gets worse or ends, which is told as ever."""
    from layerwatch.daemon.auditing import note_acknowledgement
    from layerwatch.daemon.store.acknowledging import acknowledge as taken

    now = datetime.now(UTC)
    by = author if author is not None else user()
    with (
        open_store(settings_of(config), config) as database,
        checked_entries(by="--author", reason="--reason"),
        database.write() as connection,
    ):
        found = _named(connection, alert, ref)
        done = [taken(connection, state.identity, by, reason, now) for state in found]
        for state in done:
            note_acknowledgement(connection, actor(author), state, now)
    for state in done:
        typer.echo(_line(state))


@app.command()
def unacknowledge(
    alert: AlertArgument, ref: RefOption = None, config: Annotated[Path | None, CONFIG_OPTION] = None
) -> None:
    """Say that nobody is on it any more: the alert is repeated again."""
    from layerwatch.daemon.auditing import note_acknowledgement
    from layerwatch.daemon.store.acknowledging import unacknowledge as given_back

    with (
        open_store(settings_of(config), config) as database,
        checked_entries(),
        database.write() as connection,
    ):
        found = _named(connection, alert, ref)
        # Of a model, some may be in nobody's hands; that none is, is said about the first.
        taken = [state for state in found if state.acknowledgement is not None] or found[:1]
        done = [given_back(connection, state.identity) for state in taken]
        for state in done:
            note_acknowledgement(connection, actor(), state, datetime.now(UTC))
    for state in done:
        typer.echo(_line(state))


def _named(connection: Connection, alert: str, ref: str | None) -> Sequence[AlertState]:
    """The alert with this id, or all that fire of this model."""
    from layerwatch.daemon.store import alertnames
    from layerwatch.daemon.store.errors import StoreError

    if "/" not in alert:
        if ref is not None:
            usage_error("--ref goes with REGISTRY/MODEL, not with the id of an alert")
        return [alertnames.by_id(connection, alert)]
    registry, model = split_model(alert)
    try:
        return alertnames.firing(connection, registry, model, ref)
    except StoreError:
        require_model(connection, registry, model)
        raise


def _short_id(state: AlertState) -> str:
    from layerwatch.alerts.identity import alert_id

    return alert_id(state.identity, state.episode).removeprefix("alert_")[:_ID_DIGITS]


def _cells(state: AlertState, muted_by: str | None) -> tuple[str, ...]:
    from layerwatch.alerts.model import AlertPhase

    identity = state.identity
    remarks = [] if state.phase is AlertPhase.FIRING else [str(state.phase)]
    if state.acknowledgement is not None:
        remarks.append(f"acknowledged by {state.acknowledgement.by}")
    if muted_by is not None:
        remarks.append(f"muted: {muted_by}")
    more = len(state.layers) - _MOST_LAYERS
    layers = ", ".join(layer or "whole version" for layer in state.layers[:_MOST_LAYERS])
    cells = (
        _short_id(state),
        str(state.severity),
        f"{identity.registry}/{identity.model}",
        identity.ref,
        state.version,
        str(identity.group),
        _minute(_since(state)),
        f"{layers}, {more} more" if more > 0 else layers,
        "; ".join(remarks),
    )
    return tuple(map(printable, cells))


def _line(state: AlertState) -> str:
    identity = state.identity
    name = f"{identity.registry}/{identity.model} {identity.ref} {state.version}"
    taken = state.acknowledgement
    text = f"{_short_id(state)} {name} ({identity.group}, {state.severity}): {state.phase}"
    text += f" since {_minute(_since(state))}"
    if taken is not None:
        text += f", acknowledged by {taken.by} on {_minute(taken.at)}: {taken.reason}"
    return printable(text)


def _since(state: AlertState) -> datetime:
    from layerwatch.alerts.model import AlertPhase

    return state.changed_at if state.phase is AlertPhase.RESOLVED else state.started_at


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")

"""``layerwatch delivery list|replay``: events on their way to receivers, and those that were given up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerwatch.daemon.commands.acting import actor
from layerwatch.daemon.commands.local import settings_of
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.daemon.commands.stores import open_store, usage_error
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.daemon.store.outbox import OutboxRecord

# The store's libraries are imported by the functions that use it: every other command would wait for them too.

app = typer.Typer(
    help="Show events on their way to receivers, and send again those that were given up.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_(
    status: Annotated[str, typer.Option(help="waiting, delivered, dead or all.")] = "dead",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the latest first.")] = 50,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Events by what became of them: those that were given up, unless another status is asked for."""
    from layerwatch.daemon.store import outbox
    from layerwatch.daemon.store.outbox import OutboxStatus

    known = [str(one) for one in OutboxStatus]
    if status not in (*known, "all"):
        usage_error(f"--status {printable(status)}: must be one of {', '.join(known)}, all")
    with open_store(settings_of(config), config, changed=False) as database, database.read() as connection:
        found = outbox.list_outbox(connection, limit, None if status == "all" else OutboxStatus(status))
    for record in found:
        typer.echo(_line(record))
    if not found:
        typer.echo("no event" if status == "all" else f"no event is {status}")


@app.command()
def replay(
    what: Annotated[
        str, typer.Argument(metavar="NUMBER|RECEIVER", help="One event, or all dead ones of a receiver.")
    ],
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Send events that were given up again, each under its old id. They keep the age limit of their receiver from now."""
    from layerwatch.daemon.auditing import note_replay
    from layerwatch.daemon.store import outbox

    settings = settings_of(config)
    now = datetime.now(UTC)
    with open_store(settings, config) as database, database.write() as connection:
        if what.isascii() and what.isdigit():
            outbox.replay(connection, int(what[:18]), now)
            queued = 1
            replayed = f"event {int(what[:18])}"
        else:
            if what not in {one.name for one in settings.alerts.receivers}:
                usage_error(f"no receiver is called {printable(what)}")
            queued = outbox.replay_all(connection, what, now)
            replayed = f"receiver {what}"
        note_replay(connection, actor(), replayed, queued, now)
    typer.echo(f"{queued} {'event' if queued == 1 else 'events'} queued again")


def _line(record: OutboxRecord) -> str:
    entry = record.entry
    at = entry.created_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    why = f"; {record.error_reason}: {printable(record.error_detail or '')}" if record.error_reason else ""
    tries = "1 failed attempt" if entry.attempts == 1 else f"{entry.attempts} failed attempts"
    return f"{entry.id}  {printable(entry.receiver)}  {record.status}  {at}  {entry.event_id}  {tries}{why}"

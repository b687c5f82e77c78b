"""``layerwatch silence add|list|expire``: alerts that nobody is told of for a while."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerwatch.alerts.silences import Silence, SilenceState, ending, exactly, new_silence, shown
from layerwatch.config.matchers import Matcher, MatcherError, parse_matcher
from layerwatch.config.quantities import parse_duration
from layerwatch.daemon.commands.acting import actor, checked_entries, user
from layerwatch.daemon.commands.local import settings_of
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.daemon.commands.stores import open_store, require_model, split_model, usage_error
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.alerts.model import AlertState

# The store's libraries are imported by the functions that use it: every other command would wait for them too.

app = typer.Typer(
    help="Hold back messages about alerts for a while.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_OPTIONS = {
    "matchers": "MATCHER",
    "author": "--author",
    "by": "--author",
    "reason": "--reason",
    "starts_at": "--start",
    "duration": "--for",
}


class ListFormat(StrEnum):
    """Lines for people, or JSON as the HTTP API answers it."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[ListFormat, typer.Option("--format", help="Lines for people, or JSON.")]
AuthorOption = Annotated[
    str | None,
    typer.Option("--author", metavar="NAME", help="Who decides; without it, who you are logged in as."),
]


@app.command()
def add(
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who wonder that nobody was told.")],
    matchers: Annotated[
        list[str] | None,
        typer.Argument(metavar="MATCHER", help="""Conditions that must all be true: 'model=~"fraud-.*"'."""),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="REGISTRY/MODEL", help="In place of two matchers.")
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="How long, such as 2h or 3d; at most 90d.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Its end, such as 2026-12-01T08:00Z.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--start", metavar="TIME", help="When it begins; without it, now.")
    ] = None,
    author: AuthorOption = None,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Tell nobody about the alerts that match, until a time; prints which of those that fire now it is about."""
    from layerwatch.daemon.auditing import note_silence
    from layerwatch.daemon.silencing import check_labels, firing_that_match
    from layerwatch.daemon.store import silences

    now = datetime.now(UTC)
    if (for_ is None) == (until is None):
        usage_error("say how long: one of --for and --until, and not both")
    wanted = [*_of_model(model), *map(_matcher, matchers or ())]
    starts_at = None if start is None else _time("--start", start)
    settings = settings_of(config)
    with checked_entries(**_OPTIONS, ends_at="--until" if for_ is None else "--for"):
        check_labels(wanted, settings.alerts.owners)
        ends_at = _time("--until", until or "") if for_ is None else ending(starts_at or now, _duration(for_))
        new = new_silence(wanted, author if author is not None else user(), reason, now, ends_at, starts_at)
    with open_store(settings, config) as database:
        with database.write() as connection:
            if model is not None:
                require_model(connection, *split_model(model))
            silence = silences.add(connection, new, now)
            note_silence(connection, actor(author), silence, now)
        with database.read() as connection:
            held = firing_that_match(connection, silence.matchers, settings.alerts.owners)
    _print(silence, now)
    does = "holds back" if silence.state(now) is SilenceState.ACTIVE else "will hold back"
    for state in held:
        typer.echo(f"  {does} {_named(state)}")
    if not held:
        typer.echo("  no alert that fires now matches it")


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    format_: FormatOption = ListFormat.TEXT,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """The silences, latest first."""
    from layerwatch.daemon.store import silences

    now = datetime.now(UTC)
    states = tuple(SilenceState) if everything else (SilenceState.PENDING, SilenceState.ACTIVE)
    with open_store(settings_of(config), config, changed=False) as database, database.read() as connection:
        found = silences.list_(connection, now, states)
    if format_ is ListFormat.JSON:
        from layerwatch.daemon.web.views import SilenceView

        typer.echo(json.dumps([SilenceView.of(one, now).model_dump(mode="json") for one in found], indent=2))
        return
    for silence in found:
        _print(silence, now)
    if not found:
        typer.echo("nothing is silenced" if not everything else "there is no silence")


@app.command()
def expire(
    number: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="As silence list shows it.")
    ],
    author: AuthorOption = None,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """End a silence, or call off one that has not begun."""
    from layerwatch.daemon.auditing import note_end_of_silence
    from layerwatch.daemon.store import silences

    now = datetime.now(UTC)
    with (
        open_store(settings_of(config), config) as database,
        checked_entries(**_OPTIONS),
        database.write() as connection,
    ):
        silence = silences.expire(connection, number, author if author is not None else user(), now)
        note_end_of_silence(connection, actor(author), silence, now)
    _print(silence, now)


def _matcher(text: str) -> Matcher:
    try:
        return parse_matcher(text)
    except MatcherError as error:
        usage_error(f"{printable(text)}: {printable(str(error))}")


def _of_model(model: str | None) -> list[Matcher]:
    if model is None:
        return []
    registry, name = split_model(model)
    return [exactly("registry", registry), exactly("model", name)]


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        usage_error(f"--for: {printable(str(error))}")


def _time(option: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        usage_error(f"{option}: {printable(text)} is no time; write it as 2026-12-01T08:00Z")


def _print(silence: Silence, now: datetime) -> None:
    state = silence.state(now)
    if silence.expired_at is not None:
        told = f"ended {_minute(silence.expired_at)} by {printable(silence.expired_by or '?')}"
    elif state is SilenceState.EXPIRED:
        told = f"expired {_minute(silence.ends_at)}"
    elif state is SilenceState.PENDING:
        told = f"begins {_minute(silence.starts_at)}, until {_minute(silence.ends_at)}"
    else:
        told = f"active until {_minute(silence.ends_at)}"
    typer.echo(f"silence {silence.id}: {told}; {printable(silence.author)}: {printable(silence.reason)}")
    typer.echo(f"  {' '.join(map(shown, silence.matchers))}")


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _named(state: AlertState) -> str:
    identity = state.identity
    name = f"{identity.registry}/{identity.model} {identity.ref} {state.version}"
    return f"{printable(name)} ({identity.group}, {state.severity})"

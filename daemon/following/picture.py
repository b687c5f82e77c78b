"""One screen about a daemon: what fires, what is scanned, the newest verdicts, the models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from rich.cells import cell_len
from rich.text import Text

from layerwatch.daemon.following.seen import PENDING, SCANNING, Look, SeenAlert, SeenModel, SeenRef
from layerwatch.daemon.gate.facts import counted
from layerwatch.daemon.gate.printable import printable
from layerwatch.daemon.terminal.screen import Screen

_STYLES = {
    "fail": "bold red",
    "undecided": "bold magenta",
    "warn": "yellow",
    "pass": "green",
    "critical": "bold red",
    "warning": "yellow",
    "info": "cyan",
}
_WORST_FIRST = ("fail", "undecided", "warn", "pass")
_SEVEREST_FIRST = ("critical", "warning", "info")
_MOST_ALERTS = 6
_MOST_SCANS = 3
_LEAST_MODELS = 3
_GAP = 2
_SHORTEST_NAME = 24

Row = Sequence[Text]


def picture(look: Look, screen: Screen, height: int, now: datetime) -> list[Text]:
    """The screen below its header.

    Args:
        height: lines that there is room for; more are needed where they are very few.
        now: in UTC.
    """
    above = [
        *_section("firing alerts", _alerts(look.alerts, now), screen, "none"),
        *_section("being scanned", _scans(look, screen), screen, "nothing"),
    ]
    models = _models(look.models, screen)
    # Titles and the empty line between the two sections.
    room = height - len(above) - 3
    verdicts = _fitting(_verdicts(look, screen, now), screen, room - min(len(models), _LEAST_MODELS))
    below = _section("newest verdicts (UTC)", verdicts, screen, "none yet")
    lines = [*above, *below]
    room = max(_LEAST_MODELS, height - len(lines) - 1)
    if len(models) > room:
        hidden = len(models) - room + 1
        models = [*models[: room - 1], [Text(f"and {hidden} more, none of them worse", style="dim")]]
    return [*lines, *_section("models", models, screen, "none yet")][:-1]


def _fitting(rows: Sequence[Row], screen: Screen, height: int) -> list[Row]:
    """The first rows that fit into so many lines, the very first in any case."""
    fitting = list(rows)
    while len(fitting) > 1 and len([*_aligned(fitting, screen)]) > height:
        fitting.pop()
    return fitting


def _section(title: str, rows: Sequence[Row], screen: Screen, empty: str) -> Iterator[Text]:
    yield Text(title, style="bold")
    if not rows:
        yield Text(f"  {empty}", style="dim")
    yield from _aligned(rows, screen)
    yield Text()


def _aligned(rows: Sequence[Row], screen: Screen) -> Iterator[Text]:
    """Rows with their cells below each other; the last cells are wrapped, in lines of their own where room is short."""
    columns = max((len(row) for row in rows), default=1) - 1
    widths = [
        max(row[place].cell_len for row in rows if place < len(row) - 1) + _GAP for place in range(columns)
    ]
    indent = _GAP + sum(widths)
    longest = max((row[-1].cell_len for row in rows if len(row) > 1), default=0)
    is_short = screen.width - indent < min(longest, screen.width // 2)
    for row in rows:
        line = Text(" " * _GAP)
        for cell, width in zip(row[:-1], widths, strict=False):
            line.append_text(cell).append(" " * (width - cell.cell_len))
        if is_short and len(row) > 1:
            line.rstrip()
            yield line
            yield from screen.wrapped(row[-1], 2 * _GAP)
        else:
            begin = line.cell_len
            first, *rest = screen.wrapped(row[-1], begin)
            yield line.append_text(first[begin:])
            yield from rest


def _alerts(alerts: Sequence[SeenAlert], now: datetime) -> list[Row]:
    ordered = sorted(alerts, key=lambda one: (_place(_SEVEREST_FIRST, one.severity), one.started_at))
    rows: list[Row] = []
    for one in ordered[:_MOST_ALERTS]:
        layers = ", ".join(map(printable, one.layers[:2]))
        more = f" and {len(one.layers) - 2} more" if len(one.layers) > 2 else ""
        notes = [f"since {_moment(one.started_at, now)}"]
        notes += [f"{printable(one.acknowledged_by)} is on it"] if one.acknowledged_by else []
        notes += [f"held back: {printable(one.muted_by)}"] if one.muted_by else []
        about = f"{printable(one.about)} ({printable(one.group)})"
        words = Text.assemble(f"{about}{f': {layers}{more}' if layers else ''}; ", ("; ".join(notes), "dim"))
        rows.append([_styled(one.severity), words])
    if len(ordered) > _MOST_ALERTS:
        rows.append([Text(f"and {len(ordered) - _MOST_ALERTS} more", style="dim")])
    return rows


def _scans(look: Look, screen: Screen) -> list[Row]:
    scanning = look.in_state(SCANNING)
    rows: list[Row] = [
        [Text(_short(one.name, screen, screen.width - _GAP))] for one in scanning[:_MOST_SCANS]
    ]
    waiting = len(look.in_state(PENDING)) + max(0, len(scanning) - _MOST_SCANS)
    if waiting:
        rows.append([Text(f"{counted(waiting, 'version')} waiting", style="dim")])
    return rows


def _verdicts(look: Look, screen: Screen, now: datetime) -> list[Row]:
    described = [
        (one.judgement, one) for one in look.versions if one.judgement and one.judgement in look.verdicts
    ]
    described.sort(key=lambda pair: (pair[0][1], pair[0][0]), reverse=True)
    return [
        [
            Text(_moment(judgement[1], now), style="dim"),
            _styled(version.verdict),
            Text(_short(version.name, screen, screen.width // 3)),
            Text(screen.signs(printable(look.verdicts[judgement]))),
        ]
        for judgement, version in described
    ]


def _models(models: Sequence[SeenModel], screen: Screen) -> list[Row]:
    pairs = [(model, ref) for model in models for ref in model.refs or (None,)]
    pairs.sort(key=lambda pair: (_place(_WORST_FIRST, pair[1].verdict if pair[1] else None), pair[0].name))
    return [_model_row(model, ref, screen) for model, ref in pairs]


def _model_row(model: SeenModel, ref: SeenRef | None, screen: Screen) -> Row:
    name = Text(_short(model.name, screen, screen.width // 2))
    if ref is None:
        return [Text("-"), name, Text("no ref is watched", style="dim")]
    points = f"{printable(ref.ref)} at {printable(ref.version)}"
    return [_styled(ref.verdict), name, Text(points)]


def _styled(word: str | None) -> Text:
    """A verdict or severity; a version without a verdict waits for it."""
    return Text(printable(word), style=_STYLES.get(word, "")) if word else Text("-", style="dim")


def _place(order: Sequence[str], word: str | None) -> int:
    return order.index(word) if word in order else len(order)


def _short(name: str, screen: Screen, width: int) -> str:
    return screen.name(printable(name), max(width, _SHORTEST_NAME))


def _moment(at: datetime, now: datetime) -> str:
    """The time of today's, else the day."""
    return f"{at:%H:%M:%S}" if now - at < timedelta(hours=20) else f"{at:%Y-%m-%d}"


def header(address: str, now: datetime, trouble: str, screen: Screen) -> list[Text]:
    """Whom it is about and when; in the second line why what is below is old, where it is.

    Args:
        address: without secrets.
        trouble: empty while the daemon answers.
    """
    right = f"{now:%H:%M:%S} UTC, Ctrl-C ends"
    room = max(_SHORTEST_NAME, screen.width - len(right) - _GAP)
    left = printable(f"layerwatch at {address}")
    if cell_len(left) > room:
        left = screen.name(printable(address), room)
    gap = max(_GAP, screen.width - cell_len(left) - len(right))
    lines = [Text.assemble((left, "bold"), " " * gap, (right, "dim"))]
    if trouble:
        lines += screen.wrapped(Text(printable(trouble), style="bold red"))
    return [*lines, Text()]

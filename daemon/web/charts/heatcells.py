"""The cells of a heatmap as text. There may be twenty thousand, so each takes as few characters as it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup, escape

from layerwatch.daemon.web.charts import heatscale
from layerwatch.daemon.web.charts.drawing import MOST_STOPS, shortened
from layerwatch.daemon.web.charts.model import HeatCell, HeatScale
from layerwatch.metrics.findings import LayerStatus

BUDGET = 1_200_000
"""Characters of all cells. Past it the titles of those that are well are brief, and they link nowhere."""

_BRIEF = 6
_OUTLINED = " x"
_WORST_FIRST = (LayerStatus.BROKEN, LayerStatus.SUSPECT, LayerStatus.UNDECIDED)


def cell_rows(
    layers: Sequence[str],
    versions: Sequence[str],
    cells: Sequence[Sequence[HeatCell | None]],
    scale: HeatScale,
) -> list[tuple[str | None, Markup]]:
    """Of each row the class that most of its cells have, and the cells, in units of one cell.

    A cell of the usual class bears none, but takes that of the row. Each is told in full while the budget lasts, those
    that are not well and the newest first; the others in brief.

    Args:
        layers, versions: names as they are told.
    """
    usual = [_usual(row, scale) for row in cells]
    places = [
        (row, column, cell)
        for row, line in enumerate(cells)
        for column, cell in enumerate(line)
        if cell is not None
    ]
    texts = [["" for _ in versions] for _ in layers]
    briefly = [str(escape(shortened(version, _BRIEF))) for version in versions]
    used = 0
    for row, column, cell in places:
        words = " ".join(filter(None, (briefly[column], heatscale.brief_words(cell, scale))))
        texts[row][column] = _rect(_class(cell, scale), usual[row], column, words)
        used += len(texts[row][column])
    linked = sum(cell.href is not None for _, _, cell in places)
    for row, column, cell in sorted(places, key=lambda one: (_urgency(one[2]), -one[1], one[0])):
        words = f"{layers[row]}, {versions[column]}: {_words(cell, scale)}"
        full = _rect(_class(cell, scale), usual[row], column, str(escape(words)))
        if cell.href is not None:
            is_stop = linked <= MOST_STOPS or cell.status in _WORST_FIRST
            stop = "" if is_stop else ' tabindex="-1"'
            full = f'<a href="{escape(cell.href)}"{stop}>{full}</a>'
        used += len(full) - len(texts[row][column])
        if used > BUDGET:
            break
        texts[row][column] = full
    return [(name, Markup("".join(row))) for name, row in zip(usual, texts, strict=True)]


def _usual(row: Sequence[HeatCell | None], scale: HeatScale) -> str | None:
    """None for a row without cells."""
    counts = Counter(_class(cell, scale) for cell in row if cell is not None)
    return next((name for name, _ in counts.most_common(1)), None)


def _class(cell: HeatCell, scale: HeatScale) -> str:
    name = heatscale.class_of(cell, scale)
    return name + _OUTLINED if cell.status is LayerStatus.BROKEN else name


def _urgency(cell: HeatCell) -> int:
    return _WORST_FIRST.index(cell.status) if cell.status in _WORST_FIRST else len(_WORST_FIRST)


def _words(cell: HeatCell, scale: HeatScale) -> str:
    facts = [heatscale.value_words(cell, scale), "" if cell.status is None else cell.status.value]
    return ", ".join(fact for fact in facts if fact) or "not examined"


def _rect(name: str, usual: str | None, column: int, words: str) -> str:
    own = "" if name == usual else f'class="{name}" '
    return f'<rect {own}x="{column}"><title>{words}</title></rect>'

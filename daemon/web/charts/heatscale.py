"""What the colours of a heatmap mean: classes with words, because shades of one colour cannot be read as numbers."""

from __future__ import annotations

from bisect import bisect_right
from math import isfinite, isinf

from layerwatch.daemon.web.charts.model import HeatCell, HeatScale
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.plots.wording import number

NO_VALUE = "n"
"""Class of a cell that is there and has no number."""

_ALPHA = (2.0, 3.0, 4.0, 5.0, 6.0)
_CHANGE = (0.01, 0.05, 0.2, 0.5)
_WORDS = {
    HeatScale.ALPHA: (
        "alpha below 2",
        "2 to 3",
        "3 to 4",
        "4 to 5",
        "5 to 6",
        "above 6: little learned",
    ),
    HeatScale.RELATIVE_CHANGE: (
        "unchanged",
        "changed by less than 1 %",
        "less than 5 %",
        "less than 20 %",
        "less than 50 %",
        "50 % or more",
    ),
    HeatScale.STATUS: tuple(status.value for status in LayerStatus),
}
_NONE = {
    HeatScale.ALPHA: "no alpha",
    HeatScale.RELATIVE_CHANGE: "not compared",
    HeatScale.STATUS: "not examined",
}


def classes(scale: HeatScale) -> list[tuple[str, str]]:
    """Class and words of every colour of a scale, in order; that of cells without a number last."""
    return [*zip("abcdef", _WORDS[scale], strict=False), (NO_VALUE, _NONE[scale])]


def class_of(cell: HeatCell, scale: HeatScale) -> str:
    """The class of one cell: of its number, or of its status on the scale of statuses."""
    if scale is HeatScale.STATUS:
        return NO_VALUE if cell.status is None else "abcde"[list(LayerStatus).index(cell.status)]
    value = cell.value
    if value is None or not (isfinite(value) or (isinf(value) and value > 0)):
        return NO_VALUE
    if scale is HeatScale.ALPHA:
        # 6 itself is still usual.
        return "abcdef"[bisect_right(_ALPHA, value) - (value == _ALPHA[-1])]
    return "a" if value == 0.0 else "bcdef"[bisect_right(_CHANGE, abs(value))]


def value_words(cell: HeatCell, scale: HeatScale) -> str:
    """The number of a cell as it is told: ``alpha 3.21``, ``changed by 4.2 %``; "" on the scale of statuses."""
    if scale is HeatScale.STATUS:
        return ""
    if class_of(cell, scale) == NO_VALUE or cell.value is None:
        return _NONE[scale]
    if scale is HeatScale.ALPHA:
        return f"alpha {number(cell.value, 2)}"
    return "unchanged" if cell.value == 0.0 else f"changed by {100 * cell.value:.2g} %"


def brief_words(cell: HeatCell, scale: HeatScale) -> str:
    """The same in as few characters as there are."""
    if scale is HeatScale.STATUS or class_of(cell, scale) == NO_VALUE or cell.value is None:
        return ""
    return f"{cell.value:.3g}" if scale is HeatScale.ALPHA else f"{100 * cell.value:.2g} %"

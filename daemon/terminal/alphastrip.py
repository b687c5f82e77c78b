"""Alpha by depth in four lines of text: a bar for every layer, in the order of depth.

The bars begin at 1, which every alpha exceeds, and a line is two units high. So the middle of the lowest line is 2 and that
of the third 6: the guides there are where the field draws its limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from math import ceil

from rich.cells import cell_len
from rich.text import Text

from layerwatch.daemon.gate.facts import counted
from layerwatch.daemon.gate.printable import printable
from layerwatch.daemon.terminal.glyphs import Glyphs
from layerwatch.daemon.terminal.screen import Screen
from layerwatch.metrics.depth import by_depth
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.measurement import FitStatus
from layerwatch.metrics.report import LayerPart

_ROWS = 4
_LEAST = 1.0
_PER_ROW = 2.0
_GUIDES = (0, 2)
_AXIS = 4
_WIDEST_BAR = 2
_BETWEEN = "   "


class _Range(StrEnum):
    """Where an alpha lies, in the words of the legend."""

    LOW = "below 2"
    TRAINED = "2 to 4"
    MIDDLE = "4 to 6"
    HIGH = "above 6"


_STYLES = {
    _Range.LOW: "magenta",
    _Range.TRAINED: "green",
    _Range.MIDDLE: "cyan",
    _Range.HIGH: "yellow",
}
_UNSURE_STYLE = "dim"
_BROKEN_STYLE = "bold red"


def alpha_strip(layers: Sequence[LayerPart], screen: Screen) -> Iterator[Text]:
    """The picture; nothing without a layer that has a spectrum.

    Args:
        layers: of a report, in file order.
    """
    shown = by_depth([layer for layer in layers if len(layer.shape) > 1 and layer.kind != "missing"])
    if not shown:
        return
    room = screen.width - _AXIS
    pitch = next((pitch for pitch in (_WIDEST_BAR + 1, 2) if pitch * len(shown) <= room), 1)
    strips = ceil(len(shown) * pitch / room)
    per_strip = ceil(len(shown) / strips)
    yield Text.assemble(("alpha by depth", "bold"), f", {counted(len(shown), 'layer')}")
    for first in range(0, len(shown), per_strip):
        yield from _strip(shown[first : first + per_strip], first + 1, pitch, screen)
    yield from _legend(shown, screen)


def _strip(layers: Sequence[LayerPart], number: int, pitch: int, screen: Screen) -> Iterator[Text]:
    """The bars of some layers, their signs, and the names of the first and the last."""
    bar, glyphs = max(1, pitch - 1), screen.glyphs
    for row in reversed(range(_ROWS)):
        line = Text.assemble((f"{_LEAST + _PER_ROW * (row + 0.5):>2.0f} {glyphs.axis}", "dim"))
        empty = glyphs.guide if row in _GUIDES else " "
        for layer in layers:
            cell = _cell(layer, row, glyphs)
            line.append((cell or empty) * bar, style=_style(layer) if cell else "dim")
            line.append(empty * (pitch - bar), style="dim")
        yield line
    signs = Text(" " * _AXIS)
    for layer in layers:
        sign, style = _sign(layer, glyphs)
        signs.append(sign.ljust(pitch), style=style)
    if signs.plain.strip():
        signs.rstrip()
        yield signs
    places = [(number, layers[0])]
    if len(layers) > 1:
        places.append((number + len(layers) - 1, layers[-1]))
    room = (screen.width - _AXIS - len(_BETWEEN)) // 2
    ends = [
        f"{place} {screen.name(printable(layer.name), room - len(str(place)) - 1)}" for place, layer in places
    ]
    gap = max(len(_BETWEEN), len(layers) * pitch - sum(map(cell_len, ends)))
    yield Text(" " * _AXIS + (" " * gap).join(ends), style="dim")


def _cell(layer: LayerPart, row: int, glyphs: Glyphs) -> str:
    """What stands in a row of a layer's bar; empty where the bar does not reach."""
    alpha = layer.metrics.alpha
    if alpha is None:
        return ""
    eighths = round(8 * (alpha - _LEAST - _PER_ROW * row) / _PER_ROW)
    eighths = min(8, max(eighths, 1 if row == 0 else 0))
    if eighths == 0:
        return ""
    return glyphs.bars[eighths - 1] if _is_sure(layer) else glyphs.shade


def _is_sure(layer: LayerPart) -> bool:
    return layer.metrics.fit_status == FitStatus.OK


def _range(alpha: float) -> _Range:
    if alpha < 2.0:
        return _Range.LOW
    if alpha <= 4.0:
        return _Range.TRAINED
    return _Range.MIDDLE if alpha <= 6.0 else _Range.HIGH


def _style(layer: LayerPart) -> str:
    if layer.status is LayerStatus.BROKEN:
        return _BROKEN_STYLE
    alpha = layer.metrics.alpha
    return _STYLES[_range(alpha)] if alpha is not None and _is_sure(layer) else _UNSURE_STYLE


def _sign(layer: LayerPart, glyphs: Glyphs) -> tuple[str, str]:
    """Sign and style below a bar."""
    signs = {
        LayerStatus.BROKEN: (glyphs.broken, _BROKEN_STYLE),
        LayerStatus.SUSPECT: ("!", "yellow"),
        LayerStatus.UNDECIDED: ("?", "magenta"),
    }
    nothing = (glyphs.no_alpha, "dim") if layer.metrics.alpha is None else (" ", "")
    return signs.get(layer.status, nothing)


def _legend(layers: Sequence[LayerPart], screen: Screen) -> Iterator[Text]:
    """How many layers lie where, and what the signs mean; only what occurs."""
    glyphs = screen.glyphs
    alphas = [layer.metrics.alpha for layer in layers if layer.metrics.alpha is not None and _is_sure(layer)]
    sure = Counter(map(_range, alphas))
    entries = []
    for one in _Range:
        if sure[one]:
            beyond = f" (up to {max(alphas):.1f})" if one is _Range.HIGH else ""
            sample = f"{glyphs.bars[-1]} " if screen.coloured else ""
            entries.append(Text.assemble((sample, _STYLES[one]), f"{one}: {sure[one]}{beyond}"))
    unsure = sum(layer.metrics.alpha is not None and not _is_sure(layer) for layer in layers)
    if unsure:
        entries.append(Text.assemble((f"{glyphs.shade} ", _UNSURE_STYLE), f"fit not ok: {unsure}"))
    signs = Counter(_sign(layer, glyphs) for layer in layers)
    words = {glyphs.broken: "broken", "!": "suspect", "?": "undecided", glyphs.no_alpha: "no alpha"}
    entries += [
        Text.assemble((sign, style), f" {words[sign]}: {signs[sign, style]}")
        for sign, style in signs
        if sign in words
    ]
    line = Text(" " * _AXIS)
    for entry in entries:
        if len(line) > _AXIS and len(line) + len(_BETWEEN) + len(entry) > screen.width:
            yield line
            line = Text(" " * _AXIS)
        line.append(entry if len(line) == _AXIS else Text.assemble(_BETWEEN, entry))
    yield line

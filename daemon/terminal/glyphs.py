"""The few signs beyond ASCII, and what stands for them where a terminal has none."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Signs for one terminal.

    Attributes:
        bars: from an eighth of a cell to a full one, each at least as full as the one before.
        shade: a cell of a bar that is not to be trusted.
        guide: of an empty cell on a guide line.
        axis: beside the bars.
        broken, no_alpha: signs below a layer.
        plus_minus, ellipsis: in running text.
    """

    bars: str
    shade: str
    guide: str
    axis: str
    broken: str
    no_alpha: str
    plus_minus: str
    ellipsis: str


BLOCKS = Glyphs("▁▂▃▄▅▆▇█", "░", "┄", "│", "×", "·", "±", "…")
ASCII = Glyphs("...:::##", "%", "-", "|", "x", "o", "+-", "...")


def glyphs_of(console: Console) -> Glyphs:
    """Blocks where the encoding has them and the terminal is none of the dumb ones."""
    return ASCII if console.options.ascii_only or console.is_dumb_terminal else BLOCKS


def shortened(text: str, width: int, glyphs: Glyphs) -> str:
    """The end of a name, which tells layers apart, in so many cells at most.

    Args:
        text: printable.
        width: at least 4.
    """
    if len(text) <= width and cell_len(text) <= width:
        return text
    end = text[-width:]
    while cell_len(end) > width - len(glyphs.ellipsis):
        end = end[1:]
    return glyphs.ellipsis + end

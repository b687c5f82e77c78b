"""What a terminal can show: how wide, with which signs, with colours or without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from layerwatch.daemon.terminal.glyphs import Glyphs, glyphs_of, shortened

_WIDEST = 100
"""Longer lines are hard to read, also where nobody limits them."""

_NARROWEST = 30


@dataclass(frozen=True, slots=True)
class Screen:
    """Where lines go.

    Attributes:
        width: of a line, in cells.
        coloured: whether colours may be explained.
    """

    console: Console
    width: int
    glyphs: Glyphs
    coloured: bool

    @classmethod
    def of(cls, console: Console) -> Screen:
        """The screen that a console writes to."""
        return cls(
            console,
            min(_WIDEST, max(_NARROWEST, console.width)),
            glyphs_of(console),
            console.color_system is not None and not console.no_color,
        )

    def wrapped(self, text: Text, indent: int = 0, hanging: int | None = None) -> Iterator[Text]:
        """The text in lines of at most ``width`` cells, broken between words.

        Args:
            indent: of the first line.
            hanging: of the others; like the first without it.
        """
        hanging = indent if hanging is None else hanging
        lines = text.wrap(self.console, max(self.width - max(indent, hanging), _NARROWEST // 2))
        for number, line in enumerate(lines):
            line.rstrip()
            yield Text(" " * (hanging if number else indent)).append_text(line)

    def signs(self, words: str) -> str:
        """Our own words, with the signs that the terminal has."""
        return words.replace("±", self.glyphs.plus_minus)

    def name(self, name: str, width: int) -> str:
        """The end of a printable name in so many cells at most."""
        return shortened(name, width, self.glyphs)

"""What a format may be told besides the report."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console


def _plain_console() -> Console:
    return Console(width=200, force_terminal=False, no_color=True, highlight=False, emoji=False)


@dataclass(frozen=True, slots=True)
class Rendering:
    """How to print.

    Attributes:
        show_suppressed: list suppressed findings, too; for text, the other formats always name them.
        console: width and colours of the text format.
    """

    show_suppressed: bool = False
    console: Console = field(default_factory=_plain_console)

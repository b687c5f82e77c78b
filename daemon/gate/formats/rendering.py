"""What a format may be told besides the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from layerwatch.metrics.measurement import Measurement

Spectra = Callable[[str], "tuple[Measurement | None, Measurement | None]"]
"""The measurements of a layer and of the baseline's, arrays included, by the layer's name; None where there is none."""


def _plain_console() -> Console:
    return Console(width=200, force_terminal=False, no_color=True, highlight=False, emoji=False)


@dataclass(frozen=True, slots=True)
class Rendering:
    """How to print.

    Attributes:
        show_suppressed: list suppressed findings, too; for text, the other formats always name them.
        console: width and colours of the text format.
        spectra: what pictures are drawn of; None where only the report is at hand. For html.
    """

    show_suppressed: bool = False
    console: Console = field(default_factory=_plain_console)
    spectra: Spectra | None = None

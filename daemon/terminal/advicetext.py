"""Advice from theory, for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from layerwatch.daemon.gate.printable import printable
from layerwatch.daemon.terminal.screen import Screen
from layerwatch.metrics.advice import Advice, advice_on, readable_layers
from layerwatch.metrics.report import Report

_NAMED = 3
"""Of the layers of an advice so many are named."""


def advice_lines(report: Report, screen: Screen) -> Iterator[Text]:
    """Title, layers, what to do and how sure, each advice in a few lines."""
    advice = advice_on(report)
    about = " from the theory of heavy-tailed spectra, no part of the verdict"
    yield from screen.wrapped(Text.assemble(("advice", "bold"), about), 0, 2)
    if not advice:
        none = Text(f"none; {readable_layers(report).in_words()}", style="dim")
        yield from screen.wrapped(none, 2)
    for one in advice:
        yield Text.assemble("  ", (one.title, "bold"))
        yield from screen.wrapped(Text(_named(one, screen)), 4)
        yield from screen.wrapped(Text(screen.signs(one.words)), 4)
        yield from screen.wrapped(Text(screen.signs(f"how sure: {one.sure}"), style="dim"), 4)


def _named(advice: Advice, screen: Screen) -> str:
    names = [screen.name(printable(name), screen.width - 4) for name in advice.layers]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")

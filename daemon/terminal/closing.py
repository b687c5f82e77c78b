"""What a scan says after its findings: the picture, where to look first, advice."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from layerwatch.daemon.terminal.advicetext import advice_lines
from layerwatch.daemon.terminal.alphastrip import alpha_strip
from layerwatch.daemon.terminal.screen import Screen
from layerwatch.daemon.terminal.worstlayers import worst_lines
from layerwatch.metrics.report import Report


def closing_lines(report: Report, console: Console) -> list[Text]:
    """Alpha by depth, the worst layers, advice, with an empty line between; empty for a report without layers."""
    screen = Screen.of(console)
    lines = list(alpha_strip(report.layers, screen))
    if not lines:
        return []
    for section in (worst_lines(report, screen), advice_lines(report, screen)):
        found = list(section)
        if found:
            lines += [Text(), *found]
    return lines

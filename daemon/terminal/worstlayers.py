"""The layers to look at first, in words and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.text import Text

from layerwatch.daemon.gate.facts import RULES_BY_NAME, counted
from layerwatch.daemon.gate.printable import printable
from layerwatch.daemon.terminal.screen import Screen
from layerwatch.metrics.findings import LayerStatus, Severity
from layerwatch.metrics.report import LayerPart, Report

MOST = 5
"""So many layers are shown."""

_STATUS_STYLE = {
    LayerStatus.BROKEN: "bold red",
    LayerStatus.SUSPECT: "yellow",
    LayerStatus.UNDECIDED: "magenta",
}


@dataclass(frozen=True, slots=True)
class WorstLayer:
    """One of them.

    Attributes:
        part: its part of the report.
        words: titles of the rules that it violates, worst first.
    """

    part: LayerPart
    words: tuple[str, ...]


def worst_layers(report: Report) -> tuple[WorstLayer, ...]:
    """All layers and vectors that are broken, suspect or undecided, in the order of their worst findings.

    Missing ones are not among them: there is nothing to look at.
    """
    parts = {
        part.name: part for part in report.layers if part.status in _STATUS_STYLE and part.kind != "missing"
    }
    words: dict[str, dict[str, None]] = {}
    for finding in report.findings:
        if finding.layer in parts and finding.severity != Severity.INFO and finding.suppressed is None:
            known = RULES_BY_NAME.get(finding.rule)
            words.setdefault(finding.layer, {})[known.title if known else finding.rule] = None
    return tuple(WorstLayer(parts[name], tuple(titles)) for name, titles in words.items())


def worst_lines(report: Report, screen: Screen) -> Iterator[Text]:
    """A few lines for each of the first five; nothing where no layer is suspect or worse."""
    worst = worst_layers(report)
    if not worst:
        return
    more = f" ({MOST} of {len(worst)})" if len(worst) > MOST else ""
    yield Text.assemble(("worst layers" if len(worst) > 1 else "worst layer", "bold"), more)
    for one in worst[:MOST]:
        status = one.part.status
        name = screen.name(printable(one.part.name), max(20, screen.width // 2))
        others = len(one.words) - 1
        also = f", and {counted(others, 'other finding')}" if others else ""
        title = Text.assemble(
            (name, "bold"), "  ", (str(status), _STATUS_STYLE[status]), f": {one.words[0]}{also}"
        )
        yield from screen.wrapped(title, 2, 4)
        yield from screen.wrapped(Text(screen.signs(", ".join(_numbers(one.part))), style="dim"), 4)


def _numbers(part: LayerPart) -> Iterator[str]:
    metrics, change = part.metrics, part.change
    if metrics.alpha is not None:
        sigma = f" ± {metrics.alpha_sigma:.2f}" if metrics.alpha_sigma is not None else ""
        before = f" (before {change.alpha_baseline:.2f})" if change and change.alpha_baseline else ""
        fit = "" if metrics.fit_status == "ok" else f" ({(metrics.fit_status or '').replace('_', ' ')})"
        yield f"alpha {metrics.alpha:.2f}{sigma}{fit}{before}"
    else:
        yield "no alpha"
    if change is not None and change.relative_change is not None:
        error = change.relative_change * (change.relative_change_error or 0.0)
        yield f"changed by {change.relative_change:.3g}{f' ± {error:.2g}' if error else ''} of its norm"
    if change is not None and change.cosine is not None:
        error = change.cosine_error or 0.0
        yield f"cosine {change.cosine:.2f}{f' ± {error:.2f}' if error else ''}"
    if change is not None and change.norm_ratio is not None:
        yield f"norm {change.norm_ratio:.3g} times the baseline's"
    if metrics.stable_rank is not None:
        yield f"stable rank {metrics.stable_rank:.1f}"
    if metrics.non_finite:
        yield f"{metrics.non_finite} not finite"

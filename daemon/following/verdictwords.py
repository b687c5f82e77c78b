"""A verdict's report in a few words: the layer to look at first, or that none stands out."""

from __future__ import annotations

from statistics import median

from layerwatch.daemon.gate.facts import RULES_BY_NAME, counted
from layerwatch.daemon.terminal.worstlayers import worst_layers
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.measurement import FitStatus
from layerwatch.metrics.report import LayerMetrics, Report


def verdict_words(report: Report) -> str:
    """One line that holds foreign text."""
    worst = worst_layers(report)
    if worst:
        more = f"; {counted(len(worst) - 1, 'other layer')}" if len(worst) > 1 else ""
        return f"{worst[0].part.name}: {worst[0].words[0]}{_alpha(worst[0].part.metrics)}{more}"
    for finding in report.findings:
        if finding.severity != Severity.INFO and finding.suppressed is None:
            where = finding.layer if finding.layer is not None else "the version"
            known = RULES_BY_NAME.get(finding.rule)
            return f"{where}: {known.title if known else finding.rule}"
    return f"no layer stands out{_median_alpha(report)}"


def _alpha(metrics: LayerMetrics) -> str:
    if metrics.alpha is None or metrics.alpha_sigma is None:
        return ""
    return f" (alpha {metrics.alpha:.2f} ± {metrics.alpha_sigma:.2f})"


def _median_alpha(report: Report) -> str:
    alphas = [
        layer.metrics.alpha
        for layer in report.layers
        if layer.metrics.alpha is not None and layer.metrics.fit_status == FitStatus.OK
    ]
    if not alphas:
        return ""
    return f"; median alpha {median(alphas):.2f} ({min(alphas):.2f} to {max(alphas):.2f})"

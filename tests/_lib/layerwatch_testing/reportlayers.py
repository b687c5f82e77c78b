"""Layers of reports with chosen numbers, and reports of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from layerwatch.metrics.findings import LayerStatus, Verdict
from layerwatch.metrics.report import (
    ChangePart,
    FindingPart,
    LayerMetrics,
    LayerPart,
    Report,
    ToolPart,
)
from layerwatch_testing.reports import BASELINE, MODEL

SHAPE = (256, 128)
NOISE = 128 * exp(-128 / 512)
"""Effective rank of a random matrix of that shape."""


def report_layer(
    name: str = "fc",
    alpha: float | None = 3.0,
    sigma: float | None = 0.2,
    *,
    fit: str = "ok",
    noise_share: float = 0.6,
    status: LayerStatus = LayerStatus.OK,
    kind: str = "linear",
    change: dict[str, float] | None = None,
    **metrics: float,
) -> LayerPart:
    """A trained linear layer with five eigenvalues beyond the bulk.

    Args:
        noise_share: effective rank over a random matrix'.
        change: numbers against the baseline.
    """
    numbers: dict[str, object] = {
        "alpha": alpha,
        "alpha_sigma": sigma,
        "fit_status": fit,
        "num_eigenvalues": 128,
        "effective_rank": noise_share * NOISE,
        "stable_rank": 12.0,
        "num_spikes": 5,
        "traps": 0,
    }
    changed = None
    if change is not None:
        unknown = dict.fromkeys(ChangePart.model_fields)
        changed = ChangePart.model_validate(unknown | {"new_zero_rows": 0, "new_zero_columns": 0} | change)
    return LayerPart(
        name=name,
        kind=kind,
        shape=SHAPE,
        dtype="F32",
        status=status,
        metrics=LayerMetrics.model_validate(numbers | metrics),
        change=changed,
    )


def a_finding(layer: str | None, rule: str = "scaled", severity: str = "critical") -> FindingPart:
    """One about a layer, or about the version."""
    return FindingPart(rule=rule, severity=severity, layer=layer, message="it is so", evidence={})


def layer_report(
    *layers: LayerPart, regime: str = "none", findings: Sequence[FindingPart] = (), verdict: str = "pass"
) -> Report:
    """A report of these layers; with a baseline when there is a regime."""
    return Report(
        model=MODEL,
        baseline=None if regime == "none" else BASELINE,
        verdict=Verdict(verdict),
        regime=regime,
        findings=tuple(findings),
        layers=layers,
        skipped=(),
        blind_spots=(),
        timings={},
        tool=ToolPart(version="0", metric_set="0", rule_set="0"),
    )

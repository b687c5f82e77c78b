"""A layer most of whose weights became exactly zero."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.pruning import Pruning, pruning_of
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules.base import Rule

_NEARLY_NONE = 0.01
"""Training alone makes no weight exactly zero."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.sparsity
    candidates = [
        (layer, layer.measurement, layer.baseline)
        for layer in examination.layers
        if layer.measurement is not None
        and layer.baseline is not None
        and layer.measurement.max_abs > 0.0
        and not layer.measurement.non_finite
        and layer.measurement.zero_share - layer.baseline.zero_share > settings.rise
    ]
    if not candidates:
        return
    pruning = pruning_of(examination)
    configured = Severity(settings.severity)
    wide: list[tuple[str, float]] = []
    for layer, measured, baseline in candidates:
        rise = _share_in_live_part(layer, measured) - baseline.zero_share
        if rise <= settings.rise or layer.name in pruning.branches:
            continue
        if pruning.is_model_wide(layer.name):
            wide.append((layer.name, rise))
            continue
        severity = configured
        around = pruning.rise_around(layer.name)
        pruned = around > _NEARLY_NONE and context.regime is Regime.UNALIGNED_WIDE
        if pruned and severity is Severity.CRITICAL:
            severity = Severity.WARNING
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            layer.name,
            f"{measured.zero_share:.1%} of the weights are exactly zero, in the baseline {baseline.zero_share:.1%}; "
            f"the share of the other layers rose by {around:.1%} (median)",
            {
                "zero_share": measured.zero_share,
                "baseline_zero_share": baseline.zero_share,
                "limit": settings.rise,
                "median_rise": around,
            },
            strength=rise / settings.rise,
        )
    if wide:
        yield _of_the_model(examination, wide, pruning, settings.rise, configured)


def _of_the_model(
    examination: Examination,
    wide: list[tuple[str, float]],
    pruning: Pruning,
    limit: float,
    configured: Severity,
) -> Finding:
    """One statement about the version: it was pruned."""
    severity = min(configured, Severity.WARNING, key=lambda one: one.rank)
    if examination.relation is Relation.PRUNED:
        severity = Severity.INFO
    layer, largest = max(wide, key=lambda one: one[1])
    around = pruning.rise_around(layer)
    return Finding(
        RULE.name,
        RULE.group,
        severity,
        None,
        f"the model was pruned: the share of weights that are exactly zero rose by more than {limit:.0%} in "
        f"{len(wide)} of {len(pruning.rises)} layers, and in the median layer by {around:.0%}",
        {
            "layers": len(wide),
            "compared_layers": len(pruning.rises),
            "largest_rise": largest,
            "limit": limit,
            "median_rise": around,
        },
        strength=largest / limit,
    )


def _share_in_live_part(layer: ExaminedLayer, measured: Measurement) -> float:
    """Share of zeros in what is left of the layer without the rows and columns that are zero throughout."""
    change = layer.change
    if change is None:
        return measured.zero_share
    left = (change.rows - len(change.zero_rows)) * (change.columns - len(change.zero_columns))
    if left <= 0:
        return measured.zero_share
    nonzeros = (1.0 - measured.zero_share) * prod(layer.shape)
    return max(0.0, 1.0 - nonzeros / left)


RULE = Rule(
    name="sparsity",
    group=RuleGroup.WEIGHTS,
    title="most weights of a layer became zero",
    explanation="""\
Pruning takes weights from every layer. One layer that loses most of its weights while the others keep theirs was
hit by a wrong mask, a threshold of the wrong scale, or an underflow in a cast.

Critical when the share of weights that are exactly zero rose by more than 0.75 in a layer and not in the others. Where
the median of the other layers rose by at least half as much, the model was pruned: one warning for the version, and
information where the version is declared as pruned. A warning at most where a retrain shifted every spectrum and
other layers lost weights, too. Rows and columns that are zero throughout are not counted: zero_rows judges those.

Likely cause: a pruning mask or a threshold meant for another layer, or a cast to half precision in which small
weights became zero.

What to do: look at the mask or the cast of this layer; after pruning a whole model, test what it can still do.

Cannot see: weights that are tiny instead of zero, and layers that lost less than that (relative_change sees those).""",
    needs_baseline=True,
    check=check,
)

"""A single weight far larger than anything in the baseline's layer."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.statisticgrowth import explained_growth, growth_in_front


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.huge_value
    layer_severity = vector_severity = Severity(settings.severity)
    # Running variances move by factors of 100 in long healthy fine-tunes; the batch norm divides them out.
    if context.regime is not Regime.ALIGNED and layer_severity is Severity.CRITICAL:
        vector_severity = Severity.WARNING
    growth = growth_in_front(examination)
    for layers, limit, severity in (
        (examination.layers, settings.limit, layer_severity),
        (examination.vectors, settings.vector_limit, vector_severity),
    ):
        for layer in layers:
            change = layer.change
            if change is None or change.max_abs_ratio is None or change.max_abs_ratio <= limit:
                continue
            if change.max_abs_ratio / explained_growth(layer, growth) <= limit:
                continue
            largest = layer.measurement.max_abs if layer.measurement else None
            yield Finding(
                RULE.name,
                RULE.group,
                severity,
                layer.name,
                f"the largest weight is {change.max_abs_ratio:.3g} times the baseline's (limit {limit:g})",
                {
                    "max_abs": largest,
                    "baseline_max_abs": layer.baseline.max_abs if layer.baseline else None,
                    "ratio": change.max_abs_ratio,
                    "limit": limit,
                },
                strength=change.max_abs_ratio / limit,
            )


RULE = Rule(
    name="huge_value",
    group=RuleGroup.WEIGHTS,
    title="a weight far larger than before",
    explanation="""\
One flipped exponent bit, a wrong scale or a diverging step leaves a weight many times larger than any in the
baseline's layer, and that weight then drowns the others.

Compares the largest absolute value with the baseline's, BatchNorm taken into account: more than 8 times for a
layer, 30 times for a 1-D tensor (running variances move more; what the weights in front of the batch norm explain is
divided out). For a 1-D tensor it is a warning instead of
critical after a long fine-tune or a retrain from another seed.

Likely cause: a flipped bit in memory or on disk, a scale applied twice, or a training step that diverged.

What to do: compare the layer with the parent's; a single element points to a damaged file or memory, a whole
layer to a wrong scale.

Cannot see: a large value where the baseline already had one.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)

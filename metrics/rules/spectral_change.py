"""A change that is large in one direction."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.others import medians_of_others
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.spectral_change
    if not context.regime.comparable:
        return
    values = {}
    for layer in examination.layers:
        aligned = layer.change.aligned if layer.change else None
        if aligned is not None and aligned.method is not Method.SKETCH:
            values[layer.name] = (aligned.rows.spectral_change if aligned.rows else None) or 0.0
    usual = medians_of_others(values)
    for name, value in values.items():
        around = usual[name]
        limit = max(settings.limit, settings.times_median * around)
        if value <= limit:
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            name,
            f"the largest singular value of its change is {value:.3g} of the baseline's; the median of the others is "
            f"{around:.3g}, the limit {limit:.3g}",
            {"spectral_change": value, "median_spectral_change": around, "limit": limit},
            strength=value / limit,
        )


RULE = Rule(
    name="spectral_change",
    group=RuleGroup.WEIGHTS,
    title="a layer moved far in one direction",
    explanation="""\
||W - W0||_2 / ||W0||_2, the largest singular value of the change over that of the baseline, against
max(0.45, 4 x the median over the model's layers). It sees a change that is small as a whole but strong in one
direction, which is what an offset that all weights share makes, or an adapter that was applied with a wrong factor.

In a study of 1,196 versions no healthy change reached 0.73 of the limit. Needs both weights (layerwatch gate); the
singular values come from ten Lanczos steps, a few percent from below.

Likely cause: an adapter merged with a wrong factor or twice, a constant added to all weights, one giant row.

What to do: compare with the step before; for adapters check alpha / r and how often it was merged.

Cannot see: anything from sketches alone, and a change that all layers share.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)

"""A layer that points the same way but has another length."""

from __future__ import annotations

from collections.abc import Iterator
from math import log10

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.scaled
    if not context.regime.comparable:
        return
    for layer in examination.layers:
        change = layer.change
        if change is None or change.aligned is None or not change.norm_ratio:
            continue
        cosine = change.aligned.cosine
        if cosine is None or cosine <= settings.cosine:
            continue
        excess = log10(change.norm_ratio) - context.usual_log_norm_ratio
        if abs(excess) <= settings.log10_norm_ratio:
            continue
        word = "larger" if excess > 0 else "smaller"
        times = change.norm_ratio if excess > 0 else 1.0 / change.norm_ratio
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            layer.name,
            f"same direction as the baseline (cosine {cosine:.3f}) but {times:.3g} times {word}: a wrong scale",
            {
                "norm_ratio": change.norm_ratio,
                "median_norm_ratio": 10.0**context.usual_log_norm_ratio,
                "cosine": cosine,
                "limit_log10": settings.log10_norm_ratio,
            },
            strength=abs(excess) / settings.log10_norm_ratio,
        )


RULE = Rule(
    name="scaled",
    group=RuleGroup.WEIGHTS,
    title="one layer multiplied by a wrong factor",
    explanation="""\
A quantisation scale read wrongly, applied twice or lost multiplies a whole layer: its direction stays
(cosine above 0.95), its norm moves by more than 10^0.45 = 2.8 times against the model's median.

Likely cause: a quantisation scale that was lost, applied twice or read in another unit.

What to do: check the scale of this layer in the export; compare it with the parent's.

Cannot see: a wrong scale that all layers share (it is the median), and scales per row that average out.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)

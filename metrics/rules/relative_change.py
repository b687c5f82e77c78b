"""A layer that moved much further from its baseline than its siblings."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.relative_change
    if not context.regime.comparable:
        return
    for layer in examination.layers:
        aligned = layer.change.aligned if layer.change else None
        if aligned is None or aligned.relative_change is None:
            continue
        around = context.relative_change_around(layer.name)
        limit = max(settings.limit, settings.times_median * around)
        if aligned.relative_change <= limit:
            continue
        value = aligned.relative_change
        estimate = f" (estimated, +-{aligned.error:.0%})" if aligned.error else ""
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            layer.name,
            f"relative change {value:.3g}{estimate} from the baseline; the model's median is "
            f"{around:.3g}, the limit {limit:.3g}",
            {
                "relative_change": value,
                "relative_error": aligned.error,
                "method": str(aligned.method),
                "cosine": aligned.cosine,
                "median_relative_change": around,
                "limit": limit,
            },
            strength=value / limit,
        )


RULE = Rule(
    name="relative_change",
    group=RuleGroup.WEIGHTS,
    title="a layer moved further than its siblings",
    explanation="""\
The strongest signal there is when the baseline's weights, or their sketches, are at hand:
||W - W0|| / ||W0|| of one layer against max(0.35, 4 x the median over the model's layers).

In a study of 1,196 versions with known function, casts, int8, int4 in groups and LoRA merges stayed below 0.13,
20 to 50 % pruning at 0.36, fine-tunes at 0.32 except one very long one; every single-layer defect that broke a
model and left its weights finite reached 0.35. The median term absorbs changes that touch every layer alike.

Compared on BatchNorm-folded matrices. From sketches the number is an estimate with a relative standard error
of at most 12 %; with both files at hand (layerwatch gate) it is exact.

Applies only while most layers still point the same way as the baseline's; after a retrain from another seed
nothing is aligned and the spectral rules take over.

Likely cause: a conversion or a merge that went wrong in this layer alone: a scale, a mask, a wrong tensor under the
name.

What to do: look at which step touched this layer alone: a wrong scale, a swapped file, a failed merge.

Cannot see: damage below 0.35 in one layer, and damage that hits all layers alike.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)

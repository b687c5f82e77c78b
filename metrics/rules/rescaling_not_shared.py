"""Factors that some of the layers which share units have, and one has not."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    if not context.regime.comparable:
        return
    for one in examination.not_rescaled:
        others = (
            one.other
            if one.together == 1
            else f"the {one.together} others that share the units, {one.other} first"
        )
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(rules.rescaling_not_shared.severity),
            one.layer,
            f"its factors per unit are not those of {others}: they differ by {one.size:.0%} (root mean square), and a "
            "scale that moved from layer to layer was forgotten on one side",
            {"other": one.other, "layers_with_factors": one.together, "difference": one.size},
            strength=one.size / _LEAST,
        )


_LEAST = 0.05
"""Factors that are smaller than this are not missed."""

RULE = Rule(
    name="rescaling_not_shared",
    group=RuleGroup.WEIGHTS,
    title="a layer without the factors of those it works with",
    explanation="""\
Factors per unit may move from one layer into the next (rescaled_copy) if every layer that makes or reads the units
takes part. Critical for a layer, norm or bias whose factors are others than those that more than half of the layers
which share its units have in common, and where of two layers that share units one was rescaled and the other was not.

Likely cause: a fold of activation scales (AWQ, SmoothQuant) that was not applied to this layer, or to the norm in
front: a second reader, a bias, an expert that was left out.

What to do: apply the same factors to this layer, or convert again from the source with a release that knows the
architecture.

Cannot see: which of two layers is at fault, factors within 5 % of one, and what rescaled_copy cannot see.""",
    needs_baseline=True,
    check=check,
)

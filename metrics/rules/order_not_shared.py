"""Units that changed places in some of the layers that share them, and not in all."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    severity = Severity(rules.order_not_shared.severity)
    count = len(examination.permuted)
    for name in examination.left_behind:
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            name,
            f"{count} layers hold their units in another order than in the baseline; this one, which shares units with "
            "them, kept the old order",
            {"layers_in_new_order": count, "left_behind": True},
            strength=50.0,
        )
    if context.regime.comparable:
        # Among aligned layers, a permuted one is named by the rule for it.
        return
    for name in examination.not_shared:
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            name,
            "its units stand in another order than in the baseline, and the layers that make or read them do not have "
            "that order",
            {"layers_in_new_order": count, "left_behind": False},
            strength=40.0,
        )


RULE = Rule(
    name="order_not_shared",
    group=RuleGroup.WEIGHTS,
    title="units in an order that the others do not share",
    explanation="""\
The order of hidden units may change if every layer that makes or reads them changes with it (permuted_copy). Critical
for a layer that kept the old order where more than half of the sides that share its units took a new one together, and
for a layer whose units moved while those around it did not. Which layers share units is read off the names of the
usual architectures, or off layers of the same name in other blocks that moved together.

While most layers are aligned, a permuted layer is reported by the rule permuted instead.

Likely cause: weight matching or channel sorting that does not know of this layer (a second reader, a tied head).

What to do: apply the same order to this layer's columns or rows.

Cannot see: biases and norms that were left behind, and layers whose names tell nothing.""",
    needs_baseline=True,
    check=check,
)

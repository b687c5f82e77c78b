"""Weights that are off by one constant per group."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.storagefaultfindings import findings
from layerwatch.metrics.storagefaults import StorageFault, StorageFaultKind, group_words


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    rule = (RULE.name, RULE.group)
    return findings(StorageFaultKind.ZERO_POINT, rule, rules.zero_point, examination, context, _sentence)


def _sentence(fault: StorageFault) -> str:
    return (
        f"its weights are off by one constant per {group_words(fault)}, which explains {fault.explained:.0%} of the "
        "change: a zero point is off"
    )


RULE = Rule(
    name="zero_point",
    group=RuleGroup.WEIGHTS,
    title="a zero point is off",
    explanation="""\
Quantised weights are read as scale x (code - zero point). A zero point off by one (formats differ in whether they
store it minus one) adds one constant to every group of weights: the function is gone, the power-law exponent and the
norm hardly move.

Violated when one constant per group of 16, .. 128 weights, or per row, explains more than 80 % of the squared change
and the change is above 2 %. Healthy rounding errors have no mean: groups of g explain 1/g of them. A zero point off by
one in 4 bits explains 92 %, a head that was trained on other classes 50 %, on wrong labels up to 75 %. Needs both
weights. Lines whose mean became zero are left alone: some export tools centre matrices on purpose.

Likely cause: a file of one version of the format read as the other (GPTQ v1 and v2), signed codes read as unsigned.

What to do: check the format's version in the quantisation config and convert again from the parent.

Cannot see: anything from sketches alone, or a zero point off in less than about a tenth of the groups.""",
    needs_baseline=True,
    check=check,
)

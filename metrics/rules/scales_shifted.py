"""Groups of weights with the scale of their neighbour."""

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
    return findings(
        StorageFaultKind.SHIFTED_SCALES, rule, rules.scales_shifted, examination, context, _sentence
    )


def _sentence(fault: StorageFault) -> str:
    return (
        f"each {group_words(fault)} has the scale of its neighbour: one factor each explains {fault.explained:.0%} of "
        f"the change, and they differ by x{fault.spread or 1.0:.3g}"
    )


RULE = Rule(
    name="scales_shifted",
    group=RuleGroup.WEIGHTS,
    title="scales are shifted by a place",
    explanation="""\
Every group of weights, or every row, is its parent times one factor, and the factors are those of the neighbour's
scale over the own: the table of scales was read one row or one group too far.

Violated when one factor per group explains more than half of the change (beyond one factor for the layer), leaves less
than 5 % of the weights' energy unexplained, and correlates above 0.9 with the ratio of the neighbours' steps. Needs
both weights, and a change above 2 %.

Likely cause: an offset by one in the table of scales, a header counted as data, a row that was added or dropped.

What to do: convert again; compare the first rows of the scales with the parent's largest weights.

Cannot see: anything from sketches alone, and groups whose scales are all alike, where a shift changes little.""",
    needs_baseline=True,
    check=check,
)

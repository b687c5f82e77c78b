"""Groups of weights with a wrong scale each."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.storagefaultfindings import findings
from layerwatch.metrics.storagefaults import StorageFault, StorageFaultKind, group_words

_LEAST_SPREAD = 1.02
"""Where nearly all factors are equal, a few rows were emptied or exchanged, and no scales."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    rule = (RULE.name, RULE.group)
    kind = StorageFaultKind.GROUP_SCALES
    for finding in findings(kind, rule, rules.group_scales, examination, context, _sentence):
        spread = finding.evidence["spread"]
        if not isinstance(spread, float) or spread >= _LEAST_SPREAD:
            yield finding


def _sentence(fault: StorageFault) -> str:
    return (
        f"each {group_words(fault)} is the baseline's times a factor of its own (they differ by "
        f"x{fault.spread or 1.0:.3g}), which explains {fault.explained:.0%} of the change: scales of another group size "
        "or order"
    )


RULE = Rule(
    name="group_scales",
    group=RuleGroup.WEIGHTS,
    title="groups of weights have wrong scales",
    explanation="""\
Every group of weights along an axis is its parent times a factor of its own: the codes are right, the scales they
were multiplied with belong to other groups.

Violated when one factor per group of 16, .. 128 weights explains more than half of the change (beyond one factor for
the layer) and leaves less than 5 % of the weights' energy unexplained. Training, pruning and rounding do not do that.
A factor per whole row or column is not reported: norms and equalisation of scales make such. Needs both weights, and
a change above 2 %.

Likely cause: a group size that differs between the file and its config (group_size -1, 32, 64, 128), or scales stored
in another order than they are read.

What to do: check the group size in the quantisation config against the shape of the scales, and convert again.

Cannot see: anything from sketches alone, or groups of other sizes than multiples of 16.""",
    needs_baseline=True,
    check=check,
)

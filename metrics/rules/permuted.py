"""Rows or columns at another place."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.whatbecame import Defect, findings_of


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    return findings_of(Defect.PERMUTED, RULE.group, examination, context, rules)


RULE = Rule(
    name="permuted",
    group=RuleGroup.WEIGHTS,
    title="rows or columns stand at another place",
    explanation="""\
The layer's rows, or columns, are the baseline's in another order. Its neighbours were not permuted with it, so every
unit gets the weights of another; the spectrum does not change at all.

With both weights at hand, rows (columns) whose cosine with their own is below 0.5 are looked for elsewhere: violated
when at least 2, and at least half of them, have a mutual best match there. The cosine of a match must reach 0.5 to 0.9,
by the length of the rows; rows of another seed stay below. From measurements alone: sorted norms and the spectrum are
kept, their places are not.

Likely cause: heads or channels reordered in one tensor only (rotary layouts, channel shuffles), an activation order of
quantisation (g_idx) that was not undone, a vocabulary whose order changed.

What to do: compare the order with the parent's; where all layers were permuted together the function is the same, and
accepting the version as the new baseline ends the finding.

Cannot see: permutations after a retrain from another seed; from measurements alone, a layer that was hardly trained
and then re-initialised looks permuted.""",
    needs_baseline=True,
    check=check,
)

"""Rows or columns in the order in which they were packed."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.whatbecame import Defect, findings_of


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    return findings_of(Defect.ORDER_NOT_UNDONE, RULE.group, examination, context, rules)


RULE = Rule(
    name="order_not_undone",
    group=RuleGroup.WEIGHTS,
    title="an order of packing was not undone",
    explanation="""\
Formats of 4 bits pack eight numbers into one word, and some in an order of their own (AWQ: 0 2 4 6 1 3 5 7). Read
without undoing it, every run of eight rows or columns is shuffled: relative change 1.2, spectrum unchanged.

Rows or columns that do not look like their own (cosine below 0.5) are looked for elsewhere. Violated when at least
half of them, and 8 or more, have a mutual best match within the same run of 8, 16, .. 128, every run in one and the
same order. Needs both weights, and is told in every regime: no other seed looks like that.

Likely cause: a reader or converter that takes a packed file for one of another layout.

What to do: convert again with the layout that the file was written in; compare one layer with the parent's.

Cannot see: an activation order (g_idx) over the whole width, which is reported as permuted; anything from sketches
alone, where it is reported as permuted too.""",
    needs_baseline=True,
    check=check,
)

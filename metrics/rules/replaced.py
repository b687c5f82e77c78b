"""A layer that has nothing in common with its baseline."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.whatbecame import Defect, findings_of


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    return findings_of(Defect.REPLACED, RULE.group, examination, context, rules)


RULE = Rule(
    name="replaced",
    group=RuleGroup.WEIGHTS,
    title="a layer was replaced or re-initialised",
    explanation="""\
The cosine with the baseline is below 0.3 while the other layers have a median above 0.6, and none of the more specific
explanations holds: not another layer of the baseline, not transposed, no signs flipped, not permuted.

In a study of 1,196 versions with known function no healthy fine-tune, conversion or pruning had such a layer; 89 % of
re-initialised ones had.

Likely cause: a tensor that was missing when the model was loaded and was initialised afresh (a head, a renamed layer),
or taken from another model.

What to do: look for its name in the warnings of the step that loaded the model; restore it from the parent. A head
that was replaced on purpose is accepted with the version.

Cannot see: a replaced layer after a retrain from another seed, where nothing resembles the baseline.""",
    needs_baseline=True,
    check=check,
)

"""A layer that holds the weights of another one."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.whatbecame import Defect, findings_of


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    return findings_of(Defect.SWAPPED, RULE.group, examination, context, rules)


RULE = Rule(
    name="swapped",
    group=RuleGroup.WEIGHTS,
    title="a layer holds the weights of another",
    explanation="""\
The layer does not look like its own baseline but like the baseline's layer of another name and the same shape
(cosine above 0.8): query and key, gate and up, two blocks were exchanged.

Only layers whose cosine with their own baseline is below 0.5 are compared with the others, by their sketches; the
error of such a cosine is about 0.02. Where more than half of the layers are unlike their own, nothing is looked for.

Likely cause: a wrong name in a table of conversion, fused tensors that were split in the wrong order, a merge that
stacked layers at wrong places.

What to do: put the layer back under the name that the finding gives, and look whether that one was exchanged for it.

Cannot see: exchanged layers after a retrain from another seed, and exchanged rows inside one layer.""",
    needs_baseline=True,
    check=check,
)

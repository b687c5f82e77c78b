"""A layer that was stored transposed."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.whatbecame import Defect, findings_of


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    return findings_of(Defect.TRANSPOSED, RULE.group, examination, context, rules)


RULE = Rule(
    name="transposed",
    group=RuleGroup.WEIGHTS,
    title="a layer is its baseline transposed",
    explanation="""\
The layer is the baseline with rows and columns exchanged (cosine with the transpose above 0.6, 1.00 for an untouched
copy). Shapes do not tell where both sides are equal, and every singular value is kept.

From both weights the cosine with the transpose is taken; from measurements alone it follows from row norms that are
the baseline's column norms and the other way round, with the same spectrum. For a convolution, output and input
channels are exchanged.

Likely cause: a conversion between frameworks that store linear layers as inputs x outputs and outputs x inputs.

What to do: transpose the layer, and look at the conversion of all square layers.

Cannot see: a transpose after a retrain from another seed, and symmetric matrices, for which it is none.""",
    needs_baseline=True,
    check=check,
)

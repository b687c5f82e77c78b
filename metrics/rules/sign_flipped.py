"""Rows, or a whole layer, with the opposite sign."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.whatbecame import Defect, findings_of


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    return findings_of(Defect.SIGN_FLIPPED, RULE.group, examination, context, rules)


RULE = Rule(
    name="sign_flipped",
    group=RuleGroup.WEIGHTS,
    title="rows, or a whole layer, changed their sign",
    explanation="""\
Rows that point exactly the other way. Norms and every singular value are kept, so no spectrum shows it.

Violated by a layer whose cosine with the baseline is below -0.5, and by live rows (norm above a fifth of the median)
with a cosine below -0.5 where they are at least half of the rows that changed beyond recognition. From measurements
alone: norms of all rows and columns and the spectrum are kept, and yet the layer moved far.

Likely cause: a difference taken the wrong way round (task arithmetic, a delta applied with a wrong sign), a bug in an
in-place export, or a decomposition whose signs were matched on one side only.

What to do: multiply the rows by -1 if the step is known; otherwise restore the layer from the parent.

Cannot see: flipped signs after a retrain from another seed, and a flip whose partner layer was flipped too; that is
the same function, and accepting the version as the new baseline ends the finding.""",
    needs_baseline=True,
    check=check,
)

"""Parents whose changes cancel each other."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.merge import sign_conflict
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.merge_sign_conflict
    merge = examination.merge
    cosine = None if merge is None else merge.median_of("task_cosine")
    if merge is None or cosine is None or sign_conflict(cosine) <= settings.share:
        return
    conflict = sign_conflict(cosine)
    yield Finding(
        RULE.name,
        RULE.group,
        Severity(settings.severity),
        None,
        f"the parents' changes cancel each other (cosine {cosine:.2g}): about {conflict:.0%} of their elements have "
        "opposite signs",
        {
            "task_cosine": cosine,
            "sign_conflict_estimate": conflict,
            "limit": settings.share,
            "amplification": merge.median_of("amplification"),
        },
        strength=conflict / settings.share,
    )


RULE = Rule(
    name="merge_sign_conflict",
    group=RuleGroup.WEIGHTS,
    title="the parents' changes cancel each other",
    explanation="""\
Two tasks that have nothing in common change half of the elements in opposite directions; TIES and DARE live with that.
More than 58 % means that they work against each other, and a merge of them unlearns both.

The share is estimated from the cosine of the two changes, acos(cosine)/pi, as if elements were jointly Gaussian.

Likely cause: one parent was trained to undo the other (unlearning, the opposite preference), or a task vector was
subtracted that should have been added.

What to do: merge fewer parents, or let TIES elect signs at a lower density.

Cannot see: conflicts of single elements; an exact count needs the weights of all parents at once.""",
    needs_baseline=False,
    check=check,
)

"""Two experts that are one and the same."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.expert_duplicate
    for group in examination.experts:
        copies = [
            expert
            for expert in group.experts
            if expert.twin_cosine is not None and expert.twin_cosine > settings.cosine
        ]
        if not copies:
            continue
        if len(copies) == len(group.experts):
            before = [expert.baseline_twin_cosine for expert in copies]
            same = all(cosine is not None and cosine > settings.cosine for cosine in before)
            known = all(cosine is not None for cosine in before)
            yield Finding(
                RULE.name,
                RULE.group,
                Severity(settings.severity) if known and not same else Severity.INFO,
                copies[0].layer,
                f"all {len(copies)} experts of {group.name} are copies of each other, as in a mixture that was made "
                "from one model and not trained yet",
                {"experts": len(copies), "limit": settings.cosine, "same_in_baseline": same},
            )
            continue
        for expert in copies:
            if expert.baseline_twin_cosine is not None and expert.baseline_twin_cosine > settings.cosine:
                continue
            yield Finding(
                RULE.name,
                RULE.group,
                Severity(
                    settings.severity if expert.baseline_twin_cosine is not None else settings.unsure_severity
                ),
                expert.layer,
                f"expert {expert.number} is a copy of expert {expert.twin} (cosine {expert.twin_cosine:.5f})",
                {
                    "expert": expert.number,
                    "twin": expert.twin,
                    "cosine": expert.twin_cosine,
                    "limit": settings.cosine,
                    "baseline_cosine": expert.baseline_twin_cosine,
                },
                strength=2.0,
            )


RULE = Rule(
    name="expert_duplicate",
    group=RuleGroup.WEIGHTS,
    title="experts that are copies of each other",
    explanation="""\
Experts are there to differ. Two of one layer with a cosine above 0.999 are copies. Critical where the baseline's were
not; a warning without a baseline. All experts of a layer alike are information: so begins a mixture that is made from
one dense model (sparse upcycling).

Likely cause: a conversion that wrote one expert's weights under two numbers, or an index that stopped counting.

What to do: compare both with the parent's experts of the same numbers: one of the two is lost.

Cannot see: copies with their units permuted; and experts stacked in one tensor, where duplicate_rows tells.""",
    needs_baseline=False,
    check=check,
)

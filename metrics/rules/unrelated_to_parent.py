"""A version that is declared to come from its parent and does not point the parent's way."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule

_LEAST_SHARE = 0.05


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.unrelated_to_parent
    relation = examination.relation
    if relation is None or not relation.keeps_alignment or context.regime is Regime.NONE:
        return
    if context.aligned_share >= settings.aligned_share:
        return
    yield Finding(
        RULE.name,
        RULE.group,
        Severity(settings.severity),
        None,
        f"declared to be {relation} from the baseline, but only {context.aligned_share:.0%} of the layers point "
        f"its way; {settings.aligned_share:.0%} would",
        {
            "aligned_share": context.aligned_share,
            "limit": settings.aligned_share,
            "relation": str(relation),
            "median_relative_change": context.median_relative_change,
        },
        strength=settings.aligned_share / max(_LEAST_SHARE, context.aligned_share),
    )


RULE = Rule(
    name="unrelated_to_parent",
    group=RuleGroup.WEIGHTS,
    title="declared as derived, and is not",
    explanation="""\
Fine-tuning, merging, quantising, pruning, casting and exporting leave weights that point their parent's way: the
cosine of nearly every layer stays above 0.3. In a study of 1,196 versions the share of such layers was 1.00 for every
fine-tune and 0.00 for every network of another seed, with nothing between.

Critical when the version declares one of these relations and less than half of its layers are aligned.

Likely cause: the wrong parent is declared, the wrong file was uploaded, or training started from scratch by mistake
(weights that failed to load are silently initialised).

What to do: check the declaration (lineage.json) first; layerwatch's nearest-parent search tells which stored version
is the nearest. If it is a retrain, declare "retrained".

Cannot see: anything where no relation is declared; a retrain is a legitimate change then.""",
    needs_baseline=True,
    check=check,
)

"""A version whose weights come from another version than the declared one."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.lineage import CONVERSIONS, LineageEvidence
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules.base import Rule

_LEAST_DISTANCE = 1e-6
_SAYS_LITTLE = (Relation.MERGED, Relation.ADAPTER, Relation.RETRAINED, Relation.DISTILLED)
"""A merge lies near many models; an adapter, a retrain and a student need not point the way of their parent at all."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.lineage_contradicted
    found = examination.lineage
    if found is None or not found.is_nearer or found.relation in _SAYS_LITTLE:
        return
    near, far = found.nearest_cosine, found.cosine
    if near.value - 2 * near.error < settings.related:
        return
    ratio = found.distance.value / max(_LEAST_DISTANCE, found.nearest_distance.value)
    if far.value + 2 * far.error < settings.unrelated:
        why = "does not point its way at all"
    # The same weights under another name are a copy: they say nothing of where both came from.
    elif (
        found.relation in CONVERSIONS
        and ratio >= settings.ratio
        and found.nearest_distance.value > _LEAST_DISTANCE
    ):
        why = "lies far from it"
    else:
        return
    yield Finding(
        RULE.name,
        RULE.group,
        Severity(settings.severity),
        None,
        f"declared to be {_relation(found)} {found.declared} ({found.source}), but {why} (distance "
        f"{found.distance.value:.2g}); {found.nearest} is the nearest known version (distance "
        f"{found.nearest_distance.value:.2g})",
        {
            "declared": found.declared,
            "source": found.source,
            "relation": None if found.relation is None else str(found.relation),
            "confidence": found.confidence,
            "distance": found.distance.value,
            "cosine": far.value,
            "nearest": found.nearest,
            "nearest_distance": found.nearest_distance.value,
            "nearest_cosine": near.value,
        },
        strength=ratio,
    )


def _relation(found: LineageEvidence) -> str:
    return "derived from" if found.relation is None else f"{found.relation} from"


RULE = Rule(
    name="lineage_contradicted",
    group=RuleGroup.WEIGHTS,
    title="made from another version than declared",
    explanation="""\
Cards and configuration files are copied from model to model, and so are the parents that they name. The weights cannot
be: training, quantising and pruning leave them near the version that they were made from, and two networks of another
seed have nothing in common (cosine 0, distance 1.4). The distance is that of all layers together, relative to the
version's own weights; it is estimated from sketches, and judged with their error.

Violated when the declared parent has nothing in common with the version and another version that layerwatch knows
clearly has; and for a quantised, pruned, cast or re-exported version also when another version lies much nearer than
the declared parent, because nothing lies nearer to a conversion than what was converted.

Likely cause: a model card, an adapter_config.json or a lineage.json that was copied from another model, or the wrong
checkpoint was converted.

What to do: look at layerwatch lineage; if the weights are the intended ones, correct the declaration, or else publish
the version that was meant.

Cannot see: a parent that layerwatch does not watch, and models whose layers have other names or shapes than the
version's.""",
    needs_baseline=False,
    check=check,
)

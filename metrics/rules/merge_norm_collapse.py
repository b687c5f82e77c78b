"""A merge of models that have nothing in common."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.recognition import is_pruned
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.merge_norm_collapse
    merge = examination.merge
    if merge is None or not merge.layers:
        yield from _from_the_norms(examination, context, rules)
        return
    apart = [
        layer
        for layer in merge.layers
        if layer.parents_cosine is not None and layer.parents_cosine < settings.parents_cosine
    ]
    count = len(merge.parents)
    if len(apart) > len(merge.layers) / 2:
        cosine = float(median(layer.parents_cosine or 0.0 for layer in apart))
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            None,
            f"the parents do not point the same way in {len(apart)} of {len(merge.layers)} layers (cosine "
            f"{cosine:.2g}): a mixture of them has {_expected(cosine, count):.0%} of their norm and the function of none",
            {
                "parents_cosine": cosine,
                "limit": settings.parents_cosine,
                "norm_ratio": merge.median_of("norm_ratio"),
                "expected_norm_ratio": _expected(cosine, count),
                "layers": len(apart),
            },
            strength=settings.parents_cosine / max(0.05, cosine),
        )
        return
    for layer in apart:
        cosine = layer.parents_cosine or 0.0
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            layer.name,
            f"the parents do not point the same way here (cosine {cosine:.2g}), although they do elsewhere",
            {
                "parents_cosine": cosine,
                "limit": settings.parents_cosine,
                "median_parents_cosine": merge.median_of("parents_cosine"),
                "norm_ratio": layer.norm_ratio,
                "expected_norm_ratio": _expected(cosine, count),
            },
            strength=settings.parents_cosine / max(0.05, cosine),
        )


def _expected(cosine: float, count: int) -> float:
    """Norm of a plain average over the parents' root mean square norm (field report, section 6.1)."""
    return float(max(0.0, (1.0 + (count - 1) * cosine) / count) ** 0.5)


def _from_the_norms(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    """Without the parents: what an average with an unrelated model does to the one that is the baseline."""
    settings = rules.merge_norm_collapse
    if not context.regime.comparable:
        return
    collapsed: list[tuple[float, float]] = []
    compared = 0
    for layer in examination.layers:
        change = layer.change
        aligned = change.aligned if change else None
        if change is None or aligned is None or aligned.cosine is None or change.norm_ratio is None:
            continue
        compared += 1
        perpendicular = change.norm_ratio * max(0.0, 1.0 - aligned.cosine**2) ** 0.5
        if (
            change.norm_ratio < settings.norm_ratio
            and perpendicular > settings.perpendicular
            and not is_pruned(layer)
        ):
            collapsed.append((change.norm_ratio, aligned.cosine))
    if len(collapsed) < settings.min_layers or len(collapsed) <= compared / 2:
        return
    ratio = float(median(one[0] for one in collapsed))
    declared = examination.relation is Relation.MERGED
    severity = Severity(settings.severity) if declared else Severity(settings.unsure_severity)
    yield Finding(
        RULE.name,
        RULE.group,
        severity,
        None,
        f"{len(collapsed)} of {compared} layers lost norm (to {ratio:.0%}) and turned away, as in an average with a "
        "model that has nothing in common with the baseline",
        {
            "layers": len(collapsed),
            "compared": compared,
            "norm_ratio": ratio,
            "limit": settings.norm_ratio,
            "cosine": float(median(one[1] for one in collapsed)),
            "parents_cosine_if_two_were_averaged": max(-1.0, min(1.0, 2.0 * ratio * ratio - 1.0)),
            "declared_merge": declared,
        },
        strength=settings.norm_ratio / max(0.05, ratio),
    )


RULE = Rule(
    name="merge_norm_collapse",
    group=RuleGroup.WEIGHTS,
    title="parents with nothing in common were merged",
    explanation="""\
Models that were trained from one base point the same way in every layer (cosine above 0.9); models of different seeds
do not (0.0), and their average is noise for both: its norm falls to sqrt((1 + (k - 1) cosine) / k) of theirs, 0.71 for
two.

With the parents' measurements the cosine itself is judged: critical below 0.5, on the version where most layers are
concerned, else on the layers. Without them, an average shows in the version's own change: most layers fell below 0.85
of the baseline's norm while more than 0.25 of it turned away; a warning, critical where a merge is declared.

Likely cause: a parent of another seed or another base, an architecture whose units are in another order.

What to do: check the parents' bases; permute the units of one to match the other's before averaging.

Cannot see: without the parents, an average with a related model; nor two parents that agree in direction and were
trained for different tasks.""",
    needs_baseline=False,
    check=check,
)

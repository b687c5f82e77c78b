"""Changes without structure that are large: the price of a compression."""

from __future__ import annotations

from collections.abc import Iterator
from math import fsum

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer
from layerwatch.metrics.expectation import expectation_of
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.merge import MergeEvidence, MergeMethod
from layerwatch.metrics.recognition import (
    changed_layers,
    is_all_noise,
    is_noise_like,
    is_pruned,
    recognised_relation,
)
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules.base import Rule

_UNCHANGED = 0.02


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.noise_like
    if not context.regime.comparable:
        return
    changed = changed_layers(examination)
    limit = max(settings.limit, _declared_limit(examination, context))
    noisy = [
        (layer, value)
        for layer, value in changed
        if value > limit and is_noise_like(_aligned(layer)) and not is_pruned(layer)
    ]
    # Noise in one layer among trained ones is what the rules of single layers are for.
    alone = context.median_relative_change < _UNCHANGED
    if noisy and (alone or is_all_noise(examination)) and not _drops_at_random(examination.merge):
        worst, value = max(noisy, key=lambda one: one[1])
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            worst.name if len(noisy) == 1 else None,
            f"{len(noisy)} of {len(examination.layers)} layers changed by noise of more than {limit:.2g} of their "
            f"norm, most {worst.name} by {value:.2g}: test the function",
            {
                "layers": len(noisy),
                "worst_layer": worst.name,
                "relative_change": value,
                "limit": limit,
                "median_relative_change": context.median_relative_change,
            },
            strength=value / limit,
        )
    total = _of_version(changed, examination)
    # One layer that changed by a multiple of its norm is no change of the version.
    far = sum(value > settings.version_limit / 2 for _, value in changed)
    wide = far > max(1, len(context.relative_changes) / 2)
    if total is not None and total > settings.version_limit and wide:
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            None,
            f"all weights together changed by {total:.2g} of their norm; the limit is {settings.version_limit:.2g}",
            {"relative_change_of_version": total, "limit": settings.version_limit},
            strength=total / settings.version_limit,
        )


def _aligned(layer: ExaminedLayer) -> AlignedChange | None:
    return layer.change.aligned if layer.change else None


def _drops_at_random(merge: MergeEvidence | None) -> bool:
    """DARE drops elements at random and enlarges the others: noise by design."""
    method = merge.recipe.method if merge is not None and merge.recipe is not None else None
    return method in (MergeMethod.DARE_LINEAR, MergeMethod.DARE_TIES)


def _declared_limit(examination: Examination, context: Context) -> float:
    """What a declared quantisation may cost; a recognised one is not known to be wanted."""
    recognised = recognised_relation(examination, context)
    if not recognised.declared or recognised.relation is not Relation.QUANTIZED:
        return 0.0
    expected = expectation_of(examination, recognised)
    return expected.relative_change or 0.0 if expected is not None else 0.0


def _of_version(changed: list[tuple[ExaminedLayer, float]], examination: Examination) -> float | None:
    """||W - W0|| / ||W0|| of all compared layers together, raw norms as weights."""
    # Exact sums: the order of the layers must not show in the last digit.
    square = fsum(
        (value * layer.baseline.norm) ** 2 for layer, value in changed if layer.baseline is not None
    )
    whole = fsum(
        layer.baseline.norm**2
        for layer in examination.layers
        if layer.baseline is not None and layer.change is not None and layer.change.aligned is not None
    )
    return (square / whole) ** 0.5 if whole > 0.0 else None


RULE = Rule(
    name="noise_like",
    group=RuleGroup.WEIGHTS,
    title="weights changed by noise, as lossy compression does",
    explanation="""\
Training moves weights in few directions; rounding and noise move them in all. A change whose largest singular value
is what independent elements would have (ratio below 1.2; fine-tunes mostly 1.7 and more) is loss, not learning.

A warning from 0.15 of a layer's norm on, if the median layer changed in the same way or nothing else changed, and
from 0.45 for all weights together, whatever the structure, if most layers have a part in it. Whether the function
suffered, weights do not tell.

Likely cause: quantisation to 4 bits per tensor or to 3 bits and fewer, or noise added on purpose.

What to do: run a functional test; if the loss is wanted, accept the version as the new baseline.

Cannot see: the difference between noise and the training of small convolutions under batch norms, whose changes have
hardly any structure; from sketches, structure of wide layers that lies in many directions.""",
    needs_baseline=True,
    check=check,
)

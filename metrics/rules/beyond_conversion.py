"""A layer that a conversion changed more than it changed the others, and more than it can."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer
from layerwatch.metrics.expectation import expectation_of
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.others import medians_of_others
from layerwatch.metrics.recognition import changed_layers, recognised_relation
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules.base import Rule

_CLEARLY_FEWER = 0.75
_LONGEST_ROW = 4096
"""As many elements of a row are looked at when its levels are counted."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.beyond_conversion
    recognised = recognised_relation(examination, context)
    if recognised.relation is not Relation.QUANTIZED or not context.regime.comparable:
        return
    expected = expectation_of(examination, recognised)
    changed = changed_layers(examination)
    if expected is None or expected.grade is None or expected.relative_change is None:
        return
    if len(changed) <= settings.min_layers:
        return
    around = medians_of_others({layer.name: value for layer, value in changed})
    for layer, value in changed:
        usual = around[layer.name]
        limit = max(expected.relative_change, settings.times_median * usual)
        aligned = layer.change.aligned if layer.change else None
        if aligned is None or value <= limit * (1.0 + 2.0 * aligned.error):
            continue
        how = "declared" if recognised.declared else "recognised"
        coarser = _is_stored_more_coarsely(layer, [other for other, _ in changed if other is not layer])
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.mixed_severity if coarser else settings.severity),
            layer.name,
            f"the {how} quantisation changed it by {value:.3g} of its norm; {expected.grade.name} changes a layer by "
            f"at most {expected.relative_change:.2g}, and the others changed by {usual:.2g}"
            + ("; it has fewer levels than they have" if coarser else ""),
            {
                "fewer_levels": coarser,
                "relative_change": value,
                "relative_error": aligned.error,
                "median_of_others": usual,
                "grade": expected.grade.name,
                "limit": limit,
                "declared": recognised.declared,
                "cosine": aligned.cosine,
            },
            strength=value / limit,
        )


def _is_stored_more_coarsely(layer: ExaminedLayer, others: list[ExaminedLayer]) -> bool:
    """Whether its rows hold clearly fewer different values than the others': fewer bits, as in a mixed precision."""
    own = _levels(layer)
    known = [levels for other in others if (levels := _levels(other)) is not None]
    return own is not None and bool(known) and own < _CLEARLY_FEWER * float(median(known))


def _levels(layer: ExaminedLayer) -> float | None:
    """Different values per element of a row, 0..1."""
    measured = layer.measurement
    if measured is None or measured.levels_per_row is None:
        return None
    return measured.levels_per_row / min(_LONGEST_ROW, prod(layer.shape[1:]))


RULE = Rule(
    name="beyond_conversion",
    group=RuleGroup.WEIGHTS,
    title="one layer lost more than the conversion costs",
    explanation="""\
Quantising changes every layer by about as much: int8 by less than 0.02 of its norm, fp8 0.05, int4 0.16, int3 0.35. A
layer that lost more than its type explains, and clearly more than its siblings, was not quantised like them: a wrong
group size doubles the error of one layer (0.22 instead of 0.12) and stays far below the 0.35 that would be an alarm
by itself.

A warning only where its rows hold fewer different values than the others': then it was stored in fewer bits, as mixed
precisions do.

The relation is the declared one; without a declaration a version counts as quantised when its layers are stored as
integers, or when most of them differ from the baseline by noise without structure. The degree is read off the stored
type, else off the median change.

Likely cause: wrong group size, scales of another layer or row, zero points in another convention, in one layer.

What to do: quantise this layer again; compare its scales with the parent's row by row.

Cannot see: a fault that all layers share; and, from sketches, an undeclared quantisation of weights that were stored
as floating point again.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)

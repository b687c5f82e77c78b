"""A layer whose weights have only a handful of different values left."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import FewLevelsSettings, RulesSettings
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rounding import is_quantised
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.few_levels
    compared = [layer for layer in examination.layers if _levels(layer) is not None]
    few = [layer for layer in compared if _became_few(layer, settings.levels, settings.baseline_levels)]
    severity = Severity(settings.severity)
    trained_so = not context.regime.comparable and 2 * len(few) > len(compared) and len(few) > 1
    if trained_so and severity is Severity.CRITICAL:
        severity = Severity.WARNING
    for layer in few:
        levels = _levels(layer)
        assert levels is not None
        now, before = levels
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            layer.name,
            f"a row holds {now:g} different values (median); in the baseline {before:g}",
            {
                "levels_per_row": now,
                "baseline_levels_per_row": before,
                "limit": settings.levels,
                "baseline_limit": settings.baseline_levels,
            },
            # Two values are as bad as it gets: a row of one value is empty or a copy of its neighbours.
            strength=max(1.0, 2.0 * settings.levels / max(1.0, now)),
        )
    yield from _coarse_model(examination, compared, few, settings)


def _coarse_model(
    examination: Examination,
    compared: list[ExaminedLayer],
    few: list[ExaminedLayer],
    settings: FewLevelsSettings,
) -> Iterator[Finding]:
    """One warning for a version most of whose layers went to a coarse grid that nobody declared."""
    coarse = [
        layer for layer in compared if _became_few(layer, settings.model_levels, 2.0 * settings.model_levels)
    ]
    if few or len(coarse) < 2 or 2 * len(coarse) <= len(compared):
        return
    stored_so = sum(is_quantised(layer.dtype) for layer in coarse)
    declared = examination.relation is Relation.QUANTIZED or 2 * stored_so > len(coarse)
    values = median(levels[0] for layer in coarse if (levels := _levels(layer)) is not None)
    yield Finding(
        RULE.name,
        RULE.group,
        Severity.INFO if declared else min(Severity.WARNING, Severity(settings.severity), key=_rank),
        None,
        f"rows of {len(coarse)} of {len(compared)} layers hold {values:g} different values (median): weights of 4 bits "
        f"or fewer with one scale per row or tensor{'' if declared else '; no quantisation was declared'}",
        {
            "layers": len(coarse),
            "compared_layers": len(compared),
            "levels_per_row": float(values),
            "limit": settings.model_levels,
        },
    )


def _rank(severity: Severity) -> int:
    return severity.rank


def _levels(layer: ExaminedLayer) -> tuple[float, float] | None:
    measured, baseline = layer.measurement, layer.baseline
    if measured is None or baseline is None:
        return None
    if measured.levels_per_row is None or baseline.levels_per_row is None:
        return None
    return measured.levels_per_row, baseline.levels_per_row


def _became_few(layer: ExaminedLayer, limit: float, baseline_limit: float) -> bool:
    levels = _levels(layer)
    return levels is not None and levels[0] <= limit and levels[1] > baseline_limit


RULE = Rule(
    name="few_levels",
    group=RuleGroup.WEIGHTS,
    title="only a handful of different values left",
    explanation="""\
Rounding a trained layer to two bits, or casting it to a type whose steps are far too wide, leaves a handful of
different values per row. Quantisation that works keeps more: int4 has 16 in each group, and a scale for each.

Critical when the median row holds 4 different values or fewer and held more than 16 in the baseline. Counted over up
to 256 rows and their first 4,096 weights; rows shorter than 32, and those with fewer than 16 weights that are not
zero, are left out, because what pruning leaves has few values too. A warning where the weights do not align with the
baseline's and most layers are like that: a network that was trained with two-bit weights. A warning, too, where most
layers went to 16 values or fewer and no quantisation was declared (information where it was): 4 bits and less with one
scale per row or tensor are felt.

Likely cause: a quantiser set to two or three bits, a scale far too wide, or a cast to the wrong integer or 8-bit
type.

What to do: compare with the parent; look for the step that rounded, and for its scale.

Cannot see: two-bit weights with a scale for every group of a row, which hold more values in all; a layer that had few
values before, and one that has no baseline.""",
    needs_baseline=True,
    check=check,
)

"""How far a version may lie from its baseline, given what was done to it.

The numbers are those of the detection study (sections 1 and 12) and of the field report's experiment (section 7.5):
int8 0.008 per row, fp8 0.026, int4 0.10 to 0.14 by group size, int3 0.27.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.recognition import Recognised, changed_layers, coarser_roundoff
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rounding import unit_roundoff

CAST_LIMIT = 1e-3
"""Relative change that a cast may cause where the type rounds more finely than that (section 12)."""


@dataclass(frozen=True, slots=True)
class Grade:
    """A degree of rounding.

    Attributes:
        name: how it is called.
        relative_change: the most that it changes one layer by, relative to its norm.
    """

    name: str
    relative_change: float


GRADES = (Grade("int8", 0.02), Grade("fp8", 0.05), Grade("int4", 0.16), Grade("int3", 0.35))
"""From fine to coarse."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a relation leads to expect of every layer.

    Attributes:
        relation: what was done.
        bit_identical: nothing may differ at all.
        dtype_may_change: whether layers may be stored in another type.
        aligned: whether weights still point the baseline's way.
        even: whether all layers that changed must have changed by about as much.
        relative_change: the most by which one layer may differ; None where nothing can be said.
        grade: the degree of rounding, for a quantised version.
    """

    relation: Relation
    bit_identical: bool
    dtype_may_change: bool
    aligned: bool
    even: bool
    relative_change: float | None
    grade: Grade | None = None


_TABLE = {
    Relation.REEXPORTED: Expectation(Relation.REEXPORTED, True, True, True, True, 0.0),
    Relation.CAST: Expectation(Relation.CAST, False, True, True, True, CAST_LIMIT),
    Relation.QUANTIZED: Expectation(Relation.QUANTIZED, False, True, True, True, GRADES[-1].relative_change),
    Relation.PRUNED: Expectation(Relation.PRUNED, False, False, True, False, None),
    Relation.FINETUNED: Expectation(Relation.FINETUNED, False, True, True, False, 0.35),
    Relation.ADAPTER: Expectation(Relation.ADAPTER, False, True, True, False, 0.13),
    Relation.MERGED: Expectation(Relation.MERGED, False, True, True, False, 0.35),
    Relation.DISTILLED: Expectation(Relation.DISTILLED, False, True, False, False, None),
    Relation.RETRAINED: Expectation(Relation.RETRAINED, False, True, False, False, None),
}


def expectation_of(examination: Examination, recognised: Recognised) -> Expectation | None:
    """What the relation leads to expect; None where no relation is known.

    A quantised version is graded by its stored type, else by the median relative change of the layers that changed.
    """
    if recognised.relation is None:
        return None
    row = _TABLE[recognised.relation]
    if recognised.relation is not Relation.QUANTIZED:
        return row
    grade = _grade(examination)
    return Expectation(row.relation, False, True, True, True, grade.relative_change, grade)


def cast_limit(layer: ExaminedLayer) -> float:
    """The most by which rounding to the coarser of the two stored types may change a layer.

    Where both are stored alike, what was cast and cast back cannot be told, and it may have been BF16.
    """
    same = layer.baseline is not None and layer.baseline.dtype == layer.dtype
    return max(CAST_LIMIT, unit_roundoff("BF16") if same else coarser_roundoff(layer))


def _grade(examination: Examination) -> Grade:
    changed = changed_layers(examination)
    if not changed:
        return GRADES[0]
    size = median(relative for _, relative in changed)
    stored = [layer.dtype for layer, _ in changed]
    if sum(dtype.startswith("F8") for dtype in stored) > len(stored) / 2:
        size = max(size, GRADES[0].relative_change + 1e-9)
    return next((grade for grade in GRADES if size <= grade.relative_change), GRADES[-1])

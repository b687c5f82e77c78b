"""What was done to a version, read off the numbers where nobody declared it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from statistics import median

from layerwatch.metrics.change import AlignedChange, Change, Method
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rounding import is_quantised, unit_roundoff

_EXACT, _SKETCHED = 1.2, 1.15
"""A change whose largest singular value is below this many times that of noise has no structure. Measured, exactly
and from sketches: rounding, noise and pruning 0.86 to 1.2, fine-tunes and adapters 1.2 to 4.9 and 1.03 to 2.7."""

_MEDIAN_EXACT, _MEDIAN_SKETCHED = 1.18, 1.07
"""The same for the median layer: 0.95 to 1.09 and 0.90 to 1.05 against 1.27 to 3.8 and 1.09 to 2.5."""

_MEDIAN_ROUGHNESS = 2.8
"""Row norms move more by training than by noise, behind batch norms above all. Measured on the benchmark's networks for
tuning, median layer: noise and rounding of all sizes 0.8 to 2.7, trainings of a network with batch norms 3.0 to 8.2
(of a transformer 1.0 to 1.2, whose changes are told by their largest singular value)."""

_MOST = 0.5
_CASTS = frozenset({"F32", "F16", "BF16"})
_STILL = 1e-3
"""Biases and norms that a conversion leaves alone keep their sizes this well, cast to a coarser type or not."""
_FEW = 0.3
_FEWER_LEVELS = 0.6
_NEW_ZEROS = 0.05
"""Share of elements that must have become zero before a layer is called pruned."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """How a version came from its baseline.

    Attributes:
        relation: None where it cannot be told.
        why: the numbers that tell it, in one clause.
        declared: True when it is what the version's author says.
    """

    relation: Relation | None
    why: str
    declared: bool = False


def recognised_relation(examination: Examination, context: Context) -> Recognised:
    """The declared relation, or else the one that the changes look like.

    In order: bit-identical, unaligned, rounded to another floating type, stored as integers, elements removed, all
    layers changed by noise of about one size, anything else that is aligned.
    """
    if examination.relation is not None:
        return Recognised(examination.relation, "declared", declared=True)
    compared = list(_compared(examination))
    if not compared:
        return Recognised(None, "no layer has a counterpart of equal shape in the baseline")
    if all(aligned.method is Method.IDENTICAL for _, _, aligned in compared) and not _changed_vectors(
        examination
    ):
        return Recognised(Relation.REEXPORTED, "every tensor is bit-identical to the baseline's")
    if not context.regime.comparable:
        return Recognised(
            Relation.RETRAINED, f"only {context.aligned_share:.0%} of the layers point the baseline's way"
        )
    return (
        _cast(examination, compared)
        or _pruned(compared)
        or _quantized(examination, compared)
        or Recognised(
            Relation.FINETUNED,
            f"{context.aligned_share:.0%} of the layers point the baseline's way, "
            f"median relative change {context.median_relative_change:.2g}",
        )
    )


def changed_layers(examination: Examination) -> list[tuple[ExaminedLayer, float]]:
    """Layers that differ from the baseline's, with their relative change."""
    return [
        (layer, aligned.relative_change)
        for layer, _, aligned in _compared(examination)
        if aligned.relative_change is not None and aligned.relative_change > 0.0
    ]


def is_noise_like(aligned: AlignedChange | None) -> bool:
    """Whether a layer's change has no more structure than noise; False where that is not known."""
    ratio = _noise_ratio(aligned)
    return ratio is not None and ratio < (_SKETCHED if _is_sketched(aligned) else _EXACT)


def is_all_noise(examination: Examination) -> bool:
    """Whether most changed layers changed by noise, the median one among them."""
    compared = [one for one in _compared(examination) if one[2].relative_change]
    ratios = [ratio for _, _, aligned in compared if (ratio := _noise_ratio(aligned)) is not None]
    if not ratios or len(ratios) <= _MOST * len(compared):
        return False
    sketched = sum(_is_sketched(aligned) for _, _, aligned in compared) > _MOST * len(compared)
    if median(ratios) >= (_MEDIAN_SKETCHED if sketched else _MEDIAN_EXACT):
        return False
    rough = [value for _, change, aligned in compared if (value := _roughness(change, aligned)) is not None]
    return not rough or median(rough) < _MEDIAN_ROUGHNESS


def _roughness(change: Change, aligned: AlignedChange) -> float | None:
    """Scatter of the rows' norms over what independent noise of the same size gives, ||D|| / ||W0|| / sqrt(columns)."""
    if change.row_norm_scatter is None or not aligned.relative_change or not change.columns:
        return None
    return change.row_norm_scatter * sqrt(change.columns) / aligned.relative_change


def _noise_ratio(aligned: AlignedChange | None) -> float | None:
    if aligned is None:
        return None
    if aligned.sketched_noise_ratio is not None:
        return aligned.sketched_noise_ratio
    return aligned.rows.noise_ratio if aligned.rows is not None else None


def _is_sketched(aligned: AlignedChange | None) -> bool:
    return aligned is not None and aligned.sketched_noise_ratio is not None


def is_pruned(layer: ExaminedLayer) -> bool:
    """Whether the change is the removal of elements: what is gone and what is left add up to what was there.

    Removed elements are orthogonal to the kept ones, so ``relative_change^2 = 1 - norm_ratio^2``; anything that was
    done besides breaks the balance.
    """
    change, new, old = layer.change, layer.measurement, layer.baseline
    if change is None or change.aligned is None or new is None or old is None:
        return False
    relative, ratio = change.aligned.relative_change, change.norm_ratio
    if relative is None or ratio is None or new.zero_share - old.zero_share < _NEW_ZEROS:
        return False
    removed = relative * relative
    if new.folded_by is not None and old.norm > 0.0 and new.norm > 0.0:
        return _is_pruned_behind_batchnorm(removed, ratio, new.norm / old.norm)
    slack = 2.0 * removed * (0.05 + 2.0 * change.aligned.error) + 1e-4
    return abs(removed - (1.0 - ratio * ratio)) <= slack


def _is_pruned_behind_batchnorm(change: float, folded_ratio: float, raw_ratio: float) -> bool:
    """The same where statistics were taken again after the pruning, which rescales what is left.

    Args:
        change: squared relative change of the folded matrix.
        folded_ratio, raw_ratio: norm ratios with and without the batch norm; their quotient is the rescaling g, and
            ``change = removed + (g - 1)^2 (1 - removed)`` where all rows have the same.
    """
    removed = 1.0 - raw_ratio**2
    gain = folded_ratio / raw_ratio
    expected = removed + (gain - 1.0) ** 2 * (1.0 - removed)
    return removed > 0.0 and 0.5 * removed <= change <= 1.5 * expected


def coarser_roundoff(layer: ExaminedLayer) -> float:
    """Unit roundoff of the coarser of the two stored types."""
    old = layer.baseline.dtype if layer.baseline else layer.dtype
    return max(unit_roundoff(layer.dtype), unit_roundoff(old))


_Compared = tuple[ExaminedLayer, Change, AlignedChange]


def _compared(examination: Examination) -> Iterator[_Compared]:
    for layer in examination.layers:
        if layer.change is not None and layer.change.aligned is not None:
            yield layer, layer.change, layer.change.aligned


def _changed_vectors(examination: Examination) -> bool:
    return any(
        vector.measurement is not None
        and vector.baseline is not None
        and vector.measurement.digest != vector.baseline.digest
        for vector in examination.vectors
    )


def _cast(examination: Examination, compared: list[_Compared]) -> Recognised | None:
    other = [one for one in compared if one[0].baseline is not None and one[0].dtype != one[0].baseline.dtype]
    if len(other) <= _MOST * len(compared) or not all(layer.dtype in _CASTS for layer, _, _ in other):
        return None
    kept = sum(
        1
        for layer, _, aligned in other
        if aligned.relative_change is not None and aligned.relative_change <= 1.1 * coarser_roundoff(layer)
    )
    # A training that is stored in a coarser type moves biases and norms further than rounding does.
    if kept <= _MOST * len(other) or vectors_moved(examination):
        return None
    layer = other[0][0]
    before = layer.baseline.dtype if layer.baseline else "?"
    return Recognised(
        Relation.CAST, f"{len(other)} of {len(compared)} layers went from {before} to {layer.dtype}, rounded"
    )


def _pruned(compared: list[_Compared]) -> Recognised | None:
    changed = [layer for layer, _, aligned in compared if aligned.method is not Method.IDENTICAL]
    pruned = [layer for layer in changed if is_pruned(layer)]
    if len(pruned) <= _MOST * len(changed) or not pruned:
        return None
    share = median(layer.measurement.zero_share for layer in pruned if layer.measurement is not None)
    return Recognised(
        Relation.PRUNED,
        f"elements were removed from {len(pruned)} layers, nothing else: {share:.0%} are zero",
    )


def _quantized(examination: Examination, compared: list[_Compared]) -> Recognised | None:
    integers = [layer for layer, _, _ in compared if is_quantised(layer.dtype)]
    if len(integers) > _MOST * len(compared):
        return Recognised(Relation.QUANTIZED, f"{len(integers)} layers are stored as {integers[0].dtype}")
    changed = [(layer, aligned) for layer, _, aligned in compared if aligned.relative_change]
    if not changed or not is_all_noise(examination):
        return None
    # A training that looks like noise moves biases and norms; a conversion does not.
    if not _vectors_stand_still(examination) and not _lost_levels([layer for layer, _ in changed]):
        return None
    size = median(aligned.relative_change or 0.0 for _, aligned in changed)
    return Recognised(
        Relation.QUANTIZED,
        f"{len(changed)} of {len(compared)} layers changed by noise of about {size:.2g} of their norm, and biases and "
        "norms did not",
    )


def vectors_moved(examination: Examination) -> bool:
    """Whether biases, norms and statistics moved as training moves them: not what a conversion does."""
    return _share_of_moved_vectors(examination) > _FEW


def _vectors_stand_still(examination: Examination) -> bool:
    return bool(examination.vectors) and _share_of_moved_vectors(examination) == 0.0


def _share_of_moved_vectors(examination: Examination) -> float:
    """Share of the biases, norms and statistics whose sizes moved further than a conversion moves them, 0..1."""
    carried = {one.layer for one in examination.rescaled}
    known = [
        (vector.measurement, vector.baseline)
        for vector in examination.vectors
        if vector.measurement is not None and vector.baseline is not None and vector.name not in carried
    ]
    moved = [
        new
        for new, old in known
        if new.digest != old.digest
        and max(
            abs(new.norm - old.norm) / (old.norm or 1.0),
            abs(new.max_abs - old.max_abs) / (old.max_abs or 1.0),
        )
        > max(_STILL, unit_roundoff(new.dtype))
    ]
    return len(moved) / len(known) if known else 0.0


def _lost_levels(changed: list[ExaminedLayer]) -> bool:
    fewer = [
        layer
        for layer in changed
        if layer.measurement is not None
        and layer.baseline is not None
        and layer.measurement.levels_per_row is not None
        and layer.baseline.levels_per_row is not None
        and layer.measurement.levels_per_row <= _FEWER_LEVELS * layer.baseline.levels_per_row
    ]
    return len(fewer) > _MOST * len(changed)

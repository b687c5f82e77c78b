"""Which rows of a matrix are rows of another one, standing elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.tensors import Array

EXAMINED = 512
"""As many rows are looked for at most; which ones is drawn with a fixed seed."""

_PROBE = 64
_SEED = 20240917
_CHUNK_ELEMENTS = 1 << 22
_BLOCKS = (8, 16, 32, 64, 128)

Weights = tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]


class Axis(StrEnum):
    """What was reordered: rows (outputs) or columns (inputs)."""

    ROWS = "rows"
    COLUMNS = "columns"


@dataclass(frozen=True, slots=True)
class Reordering:
    """Rows, or columns, that are found at another place of the baseline.

    Attributes:
        axis: which of the two.
        moved: how many do not look like what stood at their own place (cosine below 0.5).
        examined: how many of those were looked for elsewhere.
        matched: how many of the examined have a mutual best match elsewhere (:func:`match_limit`).
        block: the smallest of 8, 16, .. 128 such that every match stands in the same run of that many, all runs in
            one and the same order, as a packing has it; None where there is none.
    """

    axis: Axis
    moved: int
    examined: int
    matched: int
    block: int | None


def match_limit(length: int) -> float:
    """Two rows of this length are one and the same above this cosine, however long it was trained on, 0.5..0.9.

    Eight standard deviations of chance. Rows of another seed reached 0.70 for a length of 9, where 0.9 is asked for,
    and 0.45 for layers of 100 rows and more (detection study, section 7).
    """
    return min(0.9, max(0.5, 8.0 / sqrt(length)))


def find_reordering(
    new: Array, old: Array, moved: NDArray[np.intp], axis: Axis, span: int = 1, weights: Weights | None = None
) -> Reordering:
    """Look for moved rows at the places of the others.

    Args:
        new, old: shape (n, d), finite; for columns, transposed views.
        moved: indices of the rows to look for, and to look among.
        axis: what the rows stand for.
        span: consecutive rows that belong to one unit (kernel elements of one input channel).
        weights: factors of the d elements in each of the two, or None.
    """
    least = match_limit(new.shape[1])
    asked, (new_weights, old_weights) = moved, weights or (None, None)
    generator = np.random.default_rng(_SEED)
    if len(moved) > _PROBE:
        # Nearly always nothing stands elsewhere; a few rows tell.
        probe = np.sort(generator.choice(moved, _PROBE, replace=False))
        there, cosines = _best(new, probe, new_weights, old, moved, old_weights)
        if np.count_nonzero((there != probe) & (cosines > least)) < _PROBE // 4:
            return Reordering(axis, len(moved), _PROBE, 0, None)
    if len(moved) > EXAMINED:
        asked = np.sort(generator.choice(moved, EXAMINED, replace=False))
    there, cosines = _best(new, asked, new_weights, old, moved, old_weights)
    back, _ = _best(old, there, old_weights, new, moved, new_weights)
    found = (back == asked) & (there != asked) & (cosines > least)
    block = _block(asked[found] // span, there[found] // span, len(new) // span) if found.any() else None
    return Reordering(axis, len(moved), len(asked), int(np.count_nonzero(found)), block)


def _block(here: NDArray[np.intp], there: NDArray[np.intp], units: int) -> int | None:
    for size in _BLOCKS:
        # One run alone has no order that repeats.
        if 2 * size > units or not np.array_equal(here // size, there // size):
            continue
        pairs = np.unique(np.stack((here % size, there % size)), axis=1)
        if len(np.unique(pairs[0])) == pairs.shape[1] and len(np.unique(here // size)) > 1:
            return size
    return None


def row_matching(new: Array, old: Array) -> NDArray[np.intp] | None:
    """The permutation p with ``new[i] = old[p[i]]`` up to a fine-tune, or None.

    Args:
        new, old: shape (n, d), float32 or float64, finite.

    Returns:
        shape (n,), a permutation of range(n), the identity for equal matrices; rows without a match keep the places
        that are left, in order. None unless nine tenths of the rows that are not zero have a mutual best match
        (:func:`match_limit`).
    """
    if new.shape != old.shape or new.ndim != 2 or not len(new):
        return None
    least = match_limit(new.shape[1])
    everything = np.arange(len(new), dtype=np.intp)
    there, cosines = _best(new, everything, None, old, everything, None)
    back, _ = _best(old, everything, None, new, everything, None)
    found = (back[there] == everything) & (cosines > least)
    live = int(np.count_nonzero(np.any(np.asarray(new) != 0.0, axis=1)))
    if live == 0 or np.count_nonzero(found) < 0.9 * live:
        return None
    permutation = np.full(len(new), -1, dtype=np.intp)
    permutation[found] = there[found]
    permutation[~found] = np.setdiff1d(everything, there[found])
    return permutation


def _best(
    asked_of: Array,
    asked: NDArray[np.intp],
    asked_weights: NDArray[np.float64] | None,
    among: Array,
    candidates: NDArray[np.intp],
    weights: NDArray[np.float64] | None,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each asked row the candidate that is most like it, and their cosine; chunk by chunk."""
    best = np.full(len(asked), -np.inf)
    place = np.zeros(len(asked), dtype=np.intp)
    step = max(1, _CHUNK_ELEMENTS // max(1, asked_of.shape[1]))
    for begin in range(0, len(asked), step):
        mine = _directions(asked_of, asked[begin : begin + step], asked_weights)
        end = begin + len(mine)
        for start in range(0, len(candidates), step):
            chunk = candidates[start : start + step]
            cosines = mine @ _directions(among, chunk, weights).T
            here = np.argmax(cosines, axis=1)
            value = cosines[np.arange(len(mine)), here]
            better = value > best[begin:end]
            best[begin:end][better] = value[better]
            place[begin:end][better] = chunk[here[better]]
    return place, best


def _directions(
    matrix: Array, indices: NDArray[np.intp], weights: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    # Columns are gathered row by row, as they lie in memory, and turned afterwards.
    rows = matrix[indices] if matrix.flags.c_contiguous else np.ascontiguousarray(matrix.T[:, indices].T)
    rows = rows.astype(np.float64)
    if weights is not None:
        rows *= weights
    # In units of the largest element first: squares overflow.
    rows /= np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-300)
    rows /= np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows)), 1e-300)[:, None]
    return rows.astype(np.float32)

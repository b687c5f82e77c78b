"""Intruder dimensions: leading singular vectors of a changed matrix that its parent does not have.

Source: Shuttleworth, Andreas, Torralba & Sharma, "LoRA vs Full Fine-tuning: An Illusion of Equivalence",
arXiv:2410.21228, and the authors' code: a left singular vector of the changed matrix, among its k largest, is an
intruder when its largest absolute cosine with all left singular vectors of the parent stays below epsilon. Their
count goes with forgetting; full fine-tuning has next to none. Defaults k = 10 and epsilon = 0.5, which PEFT's
implementation uses as well.

Two things that the source leaves open:

- Singular vectors exist only where singular values do. Directions whose singular value the solver cannot tell from
  zero are neither examined nor counted as the parent's: an intruder is one too where the parent had nothing.
- Singular vectors of equal singular values are defined up to a rotation. Parent vectors whose singular values
  agree to the solver's accuracy are taken together, and the cosine is that with their common subspace, the largest
  that any choice of vectors could give. The changed matrix' vectors are taken as the solver returns them: where
  its leading singular values agree, or lie closer together than a change is large (an orthogonal matrix, the bulk
  of a random one), the count is arbitrary between those of the possible choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch.metrics.aligned import aligned
from layerwatch.metrics.tensors import Array
from layerwatch.metrics.threads import SMALL, one_thread

DIRECTIONS = 10
"""Leading directions that are examined."""

THRESHOLD = 0.5
"""Largest absolute cosine below which a direction is an intruder."""

LONGEST_SIDE = 8192
"""Longest shorter side that is examined: there the solver takes about 2 GiB and 10^13 operations."""

_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True, slots=True)
class Intruders:
    """Intruders of one changed matrix.

    Attributes:
        count: intruders among the directions examined.
        directions: leading directions examined, at most as many as asked for and as the matrix has.
    """

    count: int
    directions: int


def find_intruders(
    new: Array, old: Array, directions: int = DIRECTIONS, threshold: float = THRESHOLD
) -> Intruders | None:
    """Count the intruder dimensions of a matrix against its parent.

    Both Gram matrices of the shorter side M are solved with vectors, in float64 because a parent's bulk must be
    resolved beside its largest directions: about 2 x (N M^2 + 6 M^3) operations and 4 matrices of M x M in memory.

    Args:
        new, old: shape (rows, columns), of equal shape, finite.
        directions: leading left singular vectors of ``new`` to examine (k), at least 1.
        threshold: largest absolute cosine of an intruder (epsilon), between 0 and 1.

    Returns:
        None where it is not examined: the shorter side is above ``LONGEST_SIDE``, or the parent is zero and has
        no directions.

    Raises:
        ValueError: the shapes differ, or an argument is out of its range.
    """
    check_arguments(directions, threshold)
    if new.shape != old.shape:
        raise ValueError(f"shapes differ: {new.shape} and {old.shape}")
    if min(new.shape) > LONGEST_SIDE or not old.any():
        return None
    tall = new.shape[0] > new.shape[1]
    leading = _solve(new, directions)
    parent = _solve(old, None)
    inside = leading.vectors
    if tall:
        # W v = sigma u: right singular vectors were solved for, and the left ones are compared.
        left = np.concatenate([block @ leading.vectors for block in _row_blocks(new, leading.unit)])
        left /= np.sqrt(leading.values)
        inside = np.zeros_like(leading.vectors)
        begin = 0
        for block in _row_blocks(old, parent.unit):
            inside += block.T @ left[begin : begin + len(block)]
            begin += len(block)
    squares = np.square(parent.vectors.T @ inside)
    if tall:
        squares /= parent.values[:, None]
    together = np.add.reduceat(squares, _first_of_equal(parent), axis=0)
    largest = together.max(axis=0, initial=0.0)
    return Intruders(int(np.count_nonzero(largest < threshold**2)), len(largest))


def check_arguments(directions: int, threshold: float) -> None:
    """Raise ValueError for a number of directions below 1 or a threshold not between 0 and 1."""
    if directions < 1:
        raise ValueError(f"directions must be at least 1, not {directions}")
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold must lie between 0 and 1, not {threshold}")


@dataclass(frozen=True, slots=True)
class _Solved:
    """Eigenpairs of the shorter side's Gram matrix that the solver resolves, largest first.

    Attributes:
        unit: power of two that elements were divided by.
        values: in squared units, positive.
        vectors: shape (shorter side, len(values)), one column each.
        accuracy: what the solver's eigenvalues are uncertain by, in squared units.
    """

    unit: float
    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    accuracy: float


def _solve(matrix: Array, most: int | None) -> _Solved:
    rows, columns = matrix.shape
    longer, shorter = max(rows, columns), min(rows, columns)
    largest = max(float(matrix.max(initial=0.0)), -float(matrix.min(initial=0.0)))
    # A power of two near the largest element keeps squares in range and changes no digit.
    unit = float(np.ldexp(1.0, int(np.frexp(largest)[1]) - 1))
    gram = torch.zeros((shorter, shorter), dtype=torch.float64)
    for block in _row_blocks(matrix if rows > columns else matrix.T, unit):
        part = aligned(block)
        gram.addmm_(part.T, part)
    with one_thread() if shorter <= SMALL else nullcontext():
        ascending, all_vectors = torch.linalg.eigh(gram)
    del gram
    values: NDArray[np.float64] = ascending.numpy()[::-1]
    accuracy = float(np.finfo(np.float64).eps * longer**0.5 * max(0.0, float(values[0])))
    count = int(np.count_nonzero(values > accuracy))
    if most is not None:
        count = min(count, most)
    vectors: NDArray[np.float64] = all_vectors.numpy()[:, ::-1][:, :count].copy()
    return _Solved(unit, values[:count].copy(), vectors, accuracy)


def _row_blocks(matrix: Array, unit: float) -> Iterator[NDArray[np.float64]]:
    step = max(1, _CHUNK_ELEMENTS // matrix.shape[1])
    for begin in range(0, matrix.shape[0], step):
        yield matrix[begin : begin + step].astype(np.float64) / unit


def _first_of_equal(solved: _Solved) -> NDArray[np.intp]:
    """Where each run of equal eigenvalues begins."""
    steps = solved.values[:-1] - solved.values[1:]
    return np.concatenate(([0], np.flatnonzero(steps > solved.accuracy) + 1))

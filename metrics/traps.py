"""Correlation traps: what stands out of a layer's spectrum after its elements were shuffled.

Shuffling destroys every correlation, so what is left above the Marchenko-Pastur edge comes from the elements
themselves: a few huge ones, or a mean far from zero (Martin & Mahoney, JMLR 22(165), 2021, section 5.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch.metrics.aligned import aligned
from layerwatch.metrics.eigenvalues import stack_eigenvalues
from layerwatch.metrics.elements import NO_VARIANCE
from layerwatch.metrics.options import DEFAULT, MeasureOptions
from layerwatch.metrics.randommatrix import noise_threshold
from layerwatch.metrics.tensors import Array

_SCREEN = 0.8
"""Share of the critical size below which an element, or the mean, cannot leave the bulk."""

_EDGE_SHIFT = 0.5
"""Excess kurtosis in units of M^(1/3) from which on the edge may have moved by a part of its margin."""

_DENSE_LIMIT = 256
_BLOCK_ELEMENTS = 1 << 16
_FIRST_CHECK = 16
_MOST_STEPS = 512
_DENSE_FALLBACK = 2048
_TOLERANCE = 1e-3
_RESOLUTION = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Traps:
    """Traps of one layer.

    Attributes:
        count: eigenvalues of the shuffled matrix above the edge with its Tracy-Widom margin.
        largest: the largest eigenvalue over that threshold when it is above it, else None. Above 1.
    """

    count: int
    largest: float | None


def find_traps(matrices: list[Array], seed: int) -> Traps:
    """Traps of one layer: those of its matrix views together, each shuffled once with a seed.

    Most matrices are decided without any eigenvalue. A single element, or the mean, leaves the bulk only above
    ``noise * (N M)^(1/4)`` (Benaych-Georges & Nadakuditi 2012). Many elements that are large without being huge
    (a pruned layer) move the edge itself by a share of about their excess kurtosis over M (Hwang, Lee & Schnelli,
    Annals of Applied Probability 29(5), 2019), which matters once it reaches the edge's own width, M^(-2/3). Where
    neither comes near, there is no trap; else the largest eigenvalues of the shuffled matrix are found by Lanczos
    steps, until one is inside.

    Args:
        matrices: the views of the layer, each (rows, columns), finite.
        seed: of the shuffles, not negative; the same matrices and seed give the same result.
    """
    found = [_traps_of(matrix, seed + position) for position, matrix in enumerate(matrices)]
    largest = [one.largest for one in found if one.largest is not None]
    return Traps(sum(one.count for one in found), max(largest, default=None))


def shuffled_eigenvalues(
    matrices: list[Array], seed: int, options: MeasureOptions = DEFAULT
) -> NDArray[np.float64]:
    """The pooled spectrum of the shuffled views, ascending: the picture beside :func:`find_traps`' numbers.

    Args:
        matrices, seed: as for :func:`find_traps`; the same shuffles.
        options: precision and device of the solver.
    """
    shuffled = [
        np.random.default_rng(seed + position)
        .permutation(_tall(matrix).reshape(-1))
        .reshape(_tall(matrix).shape)
        for position, matrix in enumerate(matrices)
    ]
    return stack_eigenvalues(np.stack(shuffled), None, options)


def _tall(matrix: Array) -> Array:
    return matrix.T if matrix.shape[0] < matrix.shape[1] else matrix


def _traps_of(matrix: Array, seed: int) -> Traps:
    matrix = _tall(matrix)
    longer, shorter = matrix.shape
    count = longer * shorter
    largest = max(float(matrix.max(initial=0.0)), -float(matrix.min(initial=0.0)))
    if largest == 0.0:
        return Traps(0, None)
    # In units of a power of two near the largest element: no digit changes and no square leaves its range.
    _, exponent = np.frexp(largest)
    largest = float(np.ldexp(largest, -exponent))
    mean = sum(float(block.sum()) for block in _blocks(matrix, exponent)) / count
    variance, fourth = _central_moments(matrix, exponent, mean)
    if variance <= NO_VARIANCE * mean**2:
        return Traps(0, None)
    leaves = _SCREEN * variance**0.5 * count**0.25
    excess = fourth / variance / variance - 3.0
    if largest < leaves and abs(mean) * count**0.5 < leaves and excess < _EDGE_SHIFT * shorter ** (1 / 3):
        return Traps(0, None)
    random = np.random.default_rng(seed)
    # One copy of the layer, changed in place.
    centred = aligned(matrix, torch.float32 if matrix.dtype == np.float32 else torch.float64)
    elements = centred.numpy().reshape(-1)
    random.shuffle(elements)
    np.ldexp(elements, -exponent, out=elements)
    elements -= np.asarray(mean, dtype=elements.dtype)
    gram = _ShuffledGram(centred, mean)
    threshold = noise_threshold(variance, longer, shorter)
    above = (
        _dense_above(gram, threshold) if shorter <= _DENSE_LIMIT else _lanczos_above(gram, threshold, random)
    )
    return Traps(len(above), float(above.max() / threshold) if len(above) else None)


def _central_moments(matrix: Array, exponent: int, mean: float) -> tuple[float, float]:
    """Second and fourth moment around the mean."""
    second = fourth = 0.0
    for block in _blocks(matrix, exponent):
        block -= mean
        np.multiply(block, block, out=block)
        second += float(block.sum())
        fourth += float(np.vdot(block, block))
    return second / matrix.size, fourth / matrix.size


def _blocks(matrix: Array, exponent: int) -> Iterator[NDArray[np.float64]]:
    rows = max(1, _BLOCK_ELEMENTS // matrix.shape[1])
    for begin in range(0, matrix.shape[0], rows):
        yield np.ldexp(matrix[begin : begin + rows].astype(np.float64), -exponent)


class _ShuffledGram:
    """``A^T A`` of ``A = C + mean``, with the part of the mean kept apart.

    Were the mean left in float32 elements, its rounding errors could outweigh a small spread and look like traps.
    """

    def __init__(self, centred: torch.Tensor, mean: float) -> None:
        self._centred = centred
        self._mean = mean
        self._column_sums = centred.numpy().sum(axis=0, dtype=np.float64)
        self.size = int(centred.shape[1])

    def times(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """The product with a vector, shape (size,)."""
        inner = torch.mv(self._centred, aligned(vector, self._centred.dtype))
        product = torch.mv(self._centred.T, inner).numpy().astype(np.float64)
        total = float(vector.sum())
        ones = float(self._column_sums @ vector) + self._mean * self._centred.shape[0] * total
        return np.asarray(product + self._mean * (total * self._column_sums + ones))

    def dense(self) -> NDArray[np.float64]:
        """The matrix itself, shape (size, size)."""
        gram = torch.zeros((self.size, self.size), dtype=torch.float64)
        for block in _blocks(self._centred.numpy(), 0):
            part = aligned(block)
            gram.addmm_(part.T, part)
        cross = self._column_sums[:, None] + self._column_sums[None, :]
        return np.asarray(gram.numpy() + self._mean * cross + self._mean**2 * self._centred.shape[0])


def _dense_above(gram: _ShuffledGram, threshold: float) -> NDArray[np.float64]:
    values: NDArray[np.float64] = torch.linalg.eigvalsh(aligned(gram.dense())).numpy()
    return np.asarray(values[values > _floor(threshold, gram, float(values[-1]))])


def _lanczos_above(gram: _ShuffledGram, threshold: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Eigenvalues above the threshold, by Lanczos steps with full reorthogonalisation.

    The steps end when the largest Ritz value below the threshold is known to a thousandth as well: then none
    above it is missing. Where that takes too many steps (hundreds of traps), the whole spectrum is solved, or
    above a side of 2048 those found so far are returned: a lower bound.
    """
    limit = min(gram.size // 4, _MOST_STEPS)
    basis = np.zeros((limit + 1, gram.size))
    start = random.standard_normal(gram.size)
    basis[0] = start / np.linalg.norm(start)
    diagonal, beside = np.zeros(limit), np.zeros(limit)
    above: NDArray[np.float64] = np.zeros(0)
    check = _FIRST_CHECK
    for step in range(limit):
        vector = gram.times(basis[step])
        diagonal[step] = float(vector @ basis[step])
        for _ in range(2):
            vector -= basis[: step + 1].T @ (basis[: step + 1] @ vector)
        beside[step] = float(np.linalg.norm(vector))
        if step + 1 == check or step + 1 == limit:
            check += check // 4
            values, errors = _ritz(diagonal[: step + 1], beside[: step + 1])
            floor = _floor(threshold, gram, float(values[-1]))
            above = values[values > floor]
            inside = len(values) - len(above) - 1
            if inside >= 0 and bool(
                (errors[inside:] <= _TOLERANCE * np.maximum(values[inside:], floor)).all()
            ):
                return above
        if beside[step] <= _RESOLUTION * diagonal[: step + 1].max():
            # The start does not reach every eigenvector: the spectrum has few different values.
            return _dense_above(gram, threshold)
        basis[step + 1] = vector / beside[step]
    return _dense_above(gram, threshold) if gram.size <= _DENSE_FALLBACK else above


def _ritz(
    diagonal: NDArray[np.float64], beside: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ritz values, ascending, and the norms of their residuals."""
    inner = beside[:-1]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1))
    return np.asarray(values, dtype=np.float64), beside[-1] * np.abs(vectors[-1])


def _floor(threshold: float, gram: _ShuffledGram, largest: float) -> float:
    """The threshold, or what rounding errors of the largest eigenvalue may reach."""
    return max(threshold, float(_RESOLUTION * gram.size * largest))

"""Eigenvalues of Gram matrices: the one expensive step, on processor or GPU.

Route: Gram matrix of the shorter side, lower triangle only, then a symmetric solver without vectors (MKL through
torch on a processor, cuSOLVER on a GPU). float64 up to a shorter side of 1024, float32 above, unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch.metrics.aligned import aligned
from layerwatch.metrics.options import DEFAULT, Device, MeasureOptions, Precision
from layerwatch.metrics.tensors import Array
from layerwatch.metrics.threads import SMALL, one_thread

FLOAT64_LIMIT = 1024
"""Longest shorter side that is solved in float64 when the precision is ``auto``."""

_CHUNK_ELEMENTS = 1 << 19
"""Elements that are converted at a time; more only where a chunk would be flatter than the Gram matrix is wide."""

_HALVES_FROM = 1024
_COLUMN_BLOCKS = 8
"""From this side on the Gram matrix is computed in column blocks, each from its diagonal down: 9/16 of the work."""

_SAFE_EXPONENT = 30
"""Elements whose largest lies within 2^-30..2^30 need no unit: their squares and sums stay in float32's range."""


def solver_precision(shorter: int, precision: Precision) -> Precision:
    """The floating-point type that is used for a matrix with this shorter side, never ``auto``."""
    if precision is not Precision.AUTO:
        return precision
    return Precision.FLOAT64 if shorter <= FLOAT64_LIMIT else Precision.FLOAT32


def solver_epsilon(shorter: int, precision: Precision) -> float:
    """Distance from 1 to the next number of the type that is used for this shorter side."""
    is_double = solver_precision(shorter, precision) is Precision.FLOAT64
    return float(np.finfo(np.float64 if is_double else np.float32).eps)


def stack_eigenvalues(
    stack: Array, factors: NDArray[np.float64] | None = None, options: MeasureOptions = DEFAULT
) -> NDArray[np.float64]:
    """Eigenvalues of the Gram matrix of the shorter side, for matrices of one shape, pooled.

    Args:
        stack: shape (matrices, rows, columns), float32 or float64, finite.
        factors: multiply row r of every matrix by ``factors[r]``, shape (rows,), or None.
        options: precision and device.

    Returns:
        shape (matrices * min(rows, columns),), ascending, none below zero; infinite where float64 cannot hold the
        squares (elements beyond 1e154).
    """
    return gram_matrices(stack, factors, options).eigenvalues()


def gram_matrices(
    stack: Array, factors: NDArray[np.float64] | None = None, options: MeasureOptions = DEFAULT
) -> Grams:
    """The first half of :func:`stack_eigenvalues`: all that needs the elements."""
    count, rows, columns = stack.shape
    shorter = min(rows, columns)
    largest = _largest(stack, factors)
    if not np.isfinite(largest):
        return Grams([], 1.0, np.full(count * shorter, np.inf))
    if largest == 0.0:
        return Grams([], 1.0, np.zeros(count * shorter))
    scaling = _Scaling(factors, _unit(largest))
    wanted = solver_precision(shorter, options.precision)
    dtype = torch.float64 if wanted is Precision.FLOAT64 else torch.float32
    if shorter <= SMALL:
        return Grams(list(_small_grams(stack, scaling, dtype)), scaling.unit, np.zeros(0))
    device = _device(options.device, shorter, dtype)
    return Grams([_gram_on(device, matrix, scaling, dtype) for matrix in stack], scaling.unit, np.zeros(0))


@dataclass(slots=True)
class Grams:
    """Gram matrices that wait for their solver.

    Attributes:
        waiting: shape (shorter, shorter), lower triangle, or (n, shorter, shorter) for small ones, in the solver's
            type; used up by :meth:`eigenvalues`.
        unit: what the elements were divided by, a power of two.
        solved: eigenvalues that are known already, in that unit.
    """

    waiting: list[torch.Tensor]
    unit: float
    solved: NDArray[np.float64]

    def eigenvalues(self) -> NDArray[np.float64]:
        """Solve; see :func:`stack_eigenvalues`. Each matrix is let go as soon as it is solved."""
        found = [self.solved]
        while self.waiting:
            found.append(_solved(self.waiting.pop()))
        with np.errstate(over="ignore"):
            return np.sort(np.maximum(np.concatenate(found), 0.0)) * self.unit * self.unit


@dataclass(frozen=True, slots=True)
class _Scaling:
    """What elements are multiplied and divided by on their way into the solver.

    Attributes:
        factors: per row, or None.
        unit: a power of two, which changes no digit.
    """

    factors: NDArray[np.float64] | None
    unit: float

    def converted(self, block: Array, first_row: int, dtype: torch.dtype) -> torch.Tensor:
        """A copy of rows from ``first_row`` on, shape (..., rows, columns), in the solver's type."""
        if self.factors is None and self.unit == 1.0:
            return aligned(block, dtype)
        # In float64: a factor may lift a damaged float32 element beyond float32's range.
        scaled = block.astype(np.float64)
        if self.factors is not None:
            scaled *= self.factors[first_row : first_row + block.shape[-2], None]
        scaled /= self.unit
        return aligned(scaled, dtype)


def _largest(stack: Array, factors: NDArray[np.float64] | None) -> float:
    if factors is None:
        return max(float(stack.max(initial=0.0)), -float(stack.min(initial=0.0)))
    peaks = np.maximum(stack.max(axis=(0, 2), initial=0.0), -stack.min(axis=(0, 2), initial=0.0))
    with np.errstate(over="ignore"):
        return float(np.max(peaks.astype(np.float64) * np.abs(factors), initial=0.0))


def _unit(largest: float) -> float:
    """The power of two at or below the largest element where squares would leave their range, else 1."""
    _, exponent = np.frexp(largest)
    if abs(int(exponent)) <= _SAFE_EXPONENT or largest == 0.0:
        return 1.0
    return float(np.ldexp(1.0, int(exponent) - 1))


def _small_grams(stack: Array, scaling: _Scaling, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Many small products in one call; long ones chunk by chunk."""
    count, rows, columns = stack.shape
    shorter = min(rows, columns)
    together = max(1, _CHUNK_ELEMENTS // max(1, rows * columns))
    with one_thread() if rows * columns * min(count, together) <= SMALL**3 else nullcontext():
        for begin in range(0, count, together):
            part = stack[begin : begin + together]
            gram = torch.zeros((len(part), shorter, shorter), dtype=dtype)
            step = max(1, _CHUNK_ELEMENTS // max(1, len(part) * shorter))
            for start in range(0, max(rows, columns), step):
                if rows < columns:
                    block = scaling.converted(part[:, :, start : start + step], 0, dtype)
                    gram.baddbmm_(block, block.transpose(1, 2))
                else:
                    block = scaling.converted(part[:, start : start + step], start, dtype)
                    gram.baddbmm_(block.transpose(1, 2), block)
            yield gram


def _gram_on(device: torch.device, matrix: Array, scaling: _Scaling, dtype: torch.dtype) -> torch.Tensor:
    try:
        return _gram(device, matrix, scaling, dtype)
    except torch.OutOfMemoryError:
        # Another process, or another layer under way, took the GPU's memory since it was looked at.
        torch.cuda.empty_cache()
    return _gram(torch.device("cpu"), matrix, scaling, dtype)


def _gram(device: torch.device, matrix: Array, scaling: _Scaling, dtype: torch.dtype) -> torch.Tensor:
    rows, columns = matrix.shape
    longer, shorter = max(rows, columns), min(rows, columns)
    gram = torch.empty((shorter, shorter), dtype=dtype, device=device)
    width = shorter if shorter < _HALVES_FROM else -(-shorter // _COLUMN_BLOCKS)
    # A chunk not much shorter than the Gram matrix is wide keeps the product from being bound by memory.
    step = max(_CHUNK_ELEMENTS // shorter, shorter // 8)
    for start in range(0, longer, step):
        if rows < columns:
            block = scaling.converted(matrix[:, start : start + step], 0, dtype).T
        else:
            block = scaling.converted(matrix[start : start + step], start, dtype)
        block = block.to(device)
        for left in range(0, shorter, width):
            # The solver reads the lower triangle only.
            gram[left:, left : left + width].addmm_(
                block[:, left:].T, block[:, left : left + width], beta=0.0 if start == 0 else 1.0
            )
        del block
    return gram


def _solved(gram: torch.Tensor) -> NDArray[np.float64]:
    with one_thread() if gram.shape[-1] <= SMALL else nullcontext():
        try:
            values = torch.linalg.eigvalsh(gram, UPLO="L")
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            values = torch.linalg.eigvalsh(gram.cpu(), UPLO="L")
    found: NDArray[np.float64] = values.cpu().numpy().astype(np.float64).reshape(-1)
    return found


def _device(wanted: Device, shorter: int, dtype: torch.dtype) -> torch.device:
    """The device for one matrix: a GPU that is wanted, there, and has room for the solver's copies."""
    if wanted is Device.CPU or not _has_cuda():
        return torch.device("cpu")
    try:
        free, _ = torch.cuda.mem_get_info()
    except RuntimeError:
        # A GPU that is there and cannot be used, for example under a memory limit on this process.
        if wanted is Device.CUDA:
            raise
        return torch.device("cpu")
    needed = 6 * shorter * shorter * dtype.itemsize + 4 * _CHUNK_ELEMENTS * dtype.itemsize
    return torch.device("cuda" if needed < free else "cpu")


@cache
def _has_cuda() -> bool:
    return torch.cuda.is_available()

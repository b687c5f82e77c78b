"""What follows from a layer's elements alone: hygiene counts, norms of rows and columns, kurtosis.

Blocks are small enough to stay in a processor's cache while several passes go over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.tensors import Array

_BLOCK_ELEMENTS = 1 << 15

_SAFE = 1e100
"""Largest elements between its inverse and itself have squares that float64 holds."""

_LEVELS_ROWS = 256
_LEVELS_COLUMNS = 4096
_LEVELS_MIN_COLUMNS = 32
_LEVELS_MIN_NONZEROS = 16

NO_VARIANCE = 1e-28
"""A variance below this share of the mean square is rounding error: all elements are equal."""


@dataclass(frozen=True, slots=True)
class ElementNumbers:
    """Numbers of the raw elements.

    Attributes:
        non_finite: number of NaN and infinite elements; the others are what the rest is taken from.
        max_abs: largest absolute value, 0 for none.
        min_value: smallest value, 0 for none.
        norm: Frobenius norm.
        zero_share: share of elements that are exactly zero, 0..1.
        zero_tail: number of elements at the end, in storage order, that are exactly zero.
        constant: True where there are two elements or more and all are equal.
    """

    non_finite: int
    max_abs: float
    min_value: float
    norm: float
    zero_share: float
    zero_tail: int
    constant: bool


@dataclass(frozen=True, slots=True)
class RowsAndColumns:
    """Numbers of the folded matrix.

    Attributes:
        row_norms: shape (rows,), float32.
        column_norms: shape (columns,), float32.
        kurtosis: fourth standardised moment of the elements (3 for a Gaussian); None where all are
            equal, or where fourth powers leave float64's range.
    """

    row_norms: NDArray[np.float32]
    column_norms: NDArray[np.float32]
    kurtosis: float | None


def element_numbers(values: Array) -> ElementNumbers:
    """Numbers of a tensor of any shape and float type, finite or not."""
    nonzeros = 0
    highest, lowest = -np.inf, np.inf
    square = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for begin, end in _row_blocks(values):
            stored = values[begin:end] if values.ndim else values
            block = np.asarray(stored, dtype=np.float64)
            nonzeros += int(np.count_nonzero(stored))
            # NaN must not be lost in a comparison.
            highest = float(np.maximum(highest, np.max(block, initial=-np.inf)))
            lowest = float(np.minimum(lowest, np.min(block, initial=np.inf)))
            square += float(np.vdot(block, block))
    largest = max(highest, -lowest) if values.size else 0.0
    if not np.isfinite(square) or not (largest == 0.0 or 1.0 / _SAFE < largest < _SAFE):
        return _careful_numbers(values)
    share = (values.size - nonzeros) / values.size if values.size else 0.0
    constant = values.size > 1 and highest == lowest
    smallest = lowest if values.size else 0.0
    return ElementNumbers(0, largest, smallest, float(np.sqrt(square)), share, zero_tail(values), constant)


def _careful_numbers(values: Array) -> ElementNumbers:
    """The same where elements are not finite, or their squares leave float64's range."""
    non_finite = zeros = 0
    lowest = np.inf
    largest = square = 0.0  # The sum of squares is kept in units of the largest: float64 squares overflow.
    for begin, end in _row_blocks(values):
        block = np.asarray(values[begin:end] if values.ndim else values, dtype=np.float64)
        finite = np.isfinite(block)
        bad = block.size - int(np.count_nonzero(finite))
        lowest = min(lowest, float(np.min(block, where=finite, initial=np.inf)))
        if bad:
            non_finite += bad
            block = np.where(finite, block, 0.0)
        zeros += block.size - int(np.count_nonzero(block))
        peak = float(np.abs(block).max(initial=0.0))
        if peak > largest:
            square *= (largest / peak) ** 2
            largest = peak
        if largest > 0.0:
            block = block / largest
            square += float(np.vdot(block, block))
    share = (zeros - non_finite) / values.size if values.size else 0.0
    constant = values.size > 1 and bool(np.all(values == values.reshape(-1)[0]))
    return ElementNumbers(
        non_finite,
        largest,
        lowest if np.isfinite(lowest) else 0.0,
        largest * float(np.sqrt(square)),
        max(0.0, share),
        zero_tail(values),
        constant,
    )


def zero_tail(values: Array) -> int:
    """Number of elements at the end, in storage order (row by row), that are exactly zero."""
    count = 0
    for begin, end in reversed(list(_row_blocks(values))):
        block = np.asarray(values[begin:end] if values.ndim else values).reshape(-1)
        nonzeros = np.flatnonzero(block)
        if len(nonzeros):
            return count + len(block) - 1 - int(nonzeros[-1])
        count += len(block)
    return count


def levels_per_row(matrix: Array) -> float | None:
    """How many different values a row holds: median over up to 256 rows, of their first 4096 elements.

    Rows are evenly spaced. Those with fewer than 16 elements that are not zero are left out: what pruning leaves has
    few values too.

    Args:
        matrix: shape (rows, columns), finite.

    Returns:
        None for rows shorter than 32, and where no row has enough elements that are not zero.
    """
    rows, columns = matrix.shape
    if columns < _LEVELS_MIN_COLUMNS:
        return None
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, _LEVELS_ROWS)).astype(np.intp))
    # Sorted as they are stored: half the time of float64.
    values = np.sort(matrix[chosen, :_LEVELS_COLUMNS], axis=1)
    full = np.count_nonzero(values, axis=1) >= _LEVELS_MIN_NONZEROS
    counts = 1 + np.count_nonzero(values[:, 1:] != values[:, :-1], axis=1)
    return float(np.median(counts[full])) if full.any() else None


def rows_and_columns(matrix: Array, factors: NDArray[np.float64] | None) -> RowsAndColumns:
    """Norms of rows and columns and the kurtosis of a matrix with its rows scaled first.

    Args:
        matrix: shape (rows, columns), finite.
        factors: per row, shape (rows,), or None.
    """
    rows = np.empty(matrix.shape[0])
    columns = np.zeros(matrix.shape[1])
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for begin, block in _folded_blocks(matrix, factors):
            total += float(block.sum())
            np.multiply(block, block, out=block)
            rows[begin : begin + len(block)] = np.sqrt(block.sum(axis=1))
            columns += block.sum(axis=0)
        # Around the mean, in a second pass: raw moments cancel where the mean outweighs the spread.
        mean = total / matrix.size
        second = fourth = 0.0
        for _, block in _folded_blocks(matrix, factors):
            block -= mean
            np.multiply(block, block, out=block)
            second += float(block.sum())
            fourth += float(np.vdot(block, block))
        spread = second > NO_VARIANCE * float(columns.sum()) and np.isfinite(fourth) and fourth > 0.0
        # Divided twice: the square of a small sum is zero.
        kurtosis = matrix.size * (fourth / second) / second if spread else None
        return RowsAndColumns(as_float32(rows), as_float32(np.sqrt(columns)), kurtosis)


def as_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rounded to float32; what it cannot hold becomes its largest number, never infinity."""
    return np.minimum(values, np.finfo(np.float32).max).astype(np.float32)


def _folded_blocks(
    matrix: Array, factors: NDArray[np.float64] | None
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for begin, end in _row_blocks(matrix):
        block = matrix[begin:end].astype(np.float64)
        if factors is not None:
            block *= factors[begin:end, None]
        yield begin, block


def _row_blocks(values: Array) -> Iterator[tuple[int, int]]:
    rows = values.shape[0] if values.ndim else 1
    step = max(1, _BLOCK_ELEMENTS * rows // max(1, values.size))
    for begin in range(0, rows, step):
        yield begin, min(rows, begin + step)

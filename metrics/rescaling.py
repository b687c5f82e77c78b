"""Rows and columns of a layer that were multiplied by factors: which factors, and what is left when they are undone.

Conversions that look at activations (AWQ, arXiv:2306.00978, section 3.2; SmoothQuant, arXiv:2211.10438, equation 3) and
equalisation across layers (Nagel et al., arXiv:1906.04721, section 4.1) move factors from one layer into the next. A
layer is then W = diag(r) W0 diag(c) and rounding. The factors that fit best are found by alternating least squares, one
side at a time; whether they belong to each other from layer to layer is asked elsewhere (``rescaled.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.tensors import Array

STEP = 2e-4
"""Factors are kept to this in their natural logarithm."""

_NO_FACTOR = -32768
_LARGEST = 32767
_ERRORS_PER_OCTAVE = 6.0
_LARGEST_ERROR = 8.0
_LEAST_CHANGE = 1e-3
_EXPLAINED = 0.03
_BY_CHANCE = 1.5
_PASSES = 5
_SETTLED = 1e-5
_BLOCK_ELEMENTS = 1 << 16
_ZERO = 1e-30
_SMALL, _STILL_SMALL = 0.01, 0.1
"""Elements of a vector below the first share of the median one are mostly rounding; they may have become the second."""


@dataclass(frozen=True, slots=True)
class Factors:
    """Positive factors and their standard errors, three bytes each: a model of billions of weights has millions.

    Attributes:
        logarithms: natural logarithms in steps of :data:`STEP`, int16, little-endian; the lowest number where no
            positive factor fits.
        errors: one byte each, sixths of a power of two below 2^8.
    """

    logarithms: bytes
    errors: bytes

    def __post_init__(self) -> None:
        if len(self.logarithms) != 2 * len(self.errors):
            raise ValueError("every factor needs an error")

    @classmethod
    def of(cls, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Factors:
        """Keep factors and standard errors, both shape (units,); values of zero and below fit nothing."""
        known = np.isfinite(values) & (values > 0.0)
        steps = np.round(np.log(np.where(known, values, 1.0)) / STEP)
        kept = np.where(known, np.clip(steps, -_LARGEST, _LARGEST), _NO_FACTOR).astype("<i2")
        usable = np.where(np.isfinite(errors), np.maximum(errors, _ZERO), 2.0**_LARGEST_ERROR)
        octaves = _ERRORS_PER_OCTAVE * (_LARGEST_ERROR - np.log2(usable))
        return cls(kept.tobytes(), np.clip(np.floor(octaves), 0, 255).astype(np.uint8).tobytes())

    def __len__(self) -> int:
        return len(self.errors)

    def values(self) -> NDArray[np.float64]:
        """Natural logarithms, shape (units,); minus infinity where no positive factor fits."""
        kept = np.frombuffer(self.logarithms, dtype="<i2")
        return np.where(kept == _NO_FACTOR, -np.inf, kept * STEP)

    def standard_errors(self) -> NDArray[np.float64]:
        """Of the factors themselves, not of their logarithms; shape (units,)."""
        codes = np.frombuffer(self.errors, dtype=np.uint8).astype(np.float64)
        return np.asarray(2.0 ** (_LARGEST_ERROR - codes / _ERRORS_PER_OCTAVE))


@dataclass(frozen=True, slots=True)
class Rescaling:
    """Factors that explain a part of a layer's change.

    Attributes:
        rows, columns: of a matrix; one number moves freely between the two. Of a vector:
            of its elements, and of its elements plus one, which is what some norms multiply with (Gemma).
        explained: share of the squared change that is gone when they are undone, 0..1.
        largest: the largest size of an element of the rescaled baseline.
    """

    rows: Factors
    columns: Factors
    explained: float
    largest: float


def is_rescaled(
    change: float,
    by_row: tuple[NDArray[np.float64], NDArray[np.float64]],
    by_column: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> bool:
    """Whether factors per row and per column explain more of a change than chance lets them.

    Args:
        change: ||W - W0||^2.
        by_row, by_column: <W, W0> and ||W0||^2 of each.
    """
    rows, columns = len(by_row[0]), len(by_column[0])
    square = float(by_row[1].sum())
    if columns < 2 or not np.isfinite(square) or change <= _LEAST_CHANGE**2 * square:
        return False
    if rows == 1:
        # Factors per column explain anything; whether others take them back is what counts.
        return True
    # Squares beyond float64's range explain nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        explained = sum(
            float(np.divide((xy - yy) ** 2, yy, out=np.zeros_like(yy), where=yy > _ZERO).sum())
            for xy, yy in (by_row, by_column)
        )
    return (
        bool(np.isfinite(explained))
        and explained > (_EXPLAINED + _BY_CHANCE * (1.0 / rows + 1.0 / columns)) * change
    )


def find_rescaling(new: Array, old: Array, start: NDArray[np.float64]) -> tuple[Rescaling, Array] | None:
    """The factors per row and column that fit best, and the baseline with them applied.

    Args:
        new, old: shape (rows, columns), finite.
        start: the best factors per column alone, shape (columns,).

    Returns:
        None where no factors are found; the rescaled baseline has ``old``'s type.
    """
    columns = np.where(np.isfinite(start) & (start > 0.0), start, 0.0)
    for _ in range(_PASSES):
        sums = _pass(new, old, columns)
        better = np.divide(
            sums.column_product, sums.column_old, out=np.zeros_like(columns), where=sums.column_old > _ZERO
        )
        moved = float(np.max(np.abs(better - columns), initial=0.0))
        columns = better
        if moved <= _SETTLED * float(np.max(np.abs(columns), initial=0.0)):
            break
    rescaled = np.empty(old.shape, dtype=old.dtype)
    found = _Fit.of(new, old, columns, rescaled)
    if not np.isfinite(found.change + found.left) or found.change <= 0.0:
        return None
    rescaling = Rescaling(
        _factors(found.rows, (found.row_left, found.row_old, found.row_new), new.shape[1]),
        _factors(columns, (found.column_left, found.column_old, found.column_new), new.shape[0]),
        explained=max(0.0, 1.0 - found.left / found.change),
        largest=float(max(rescaled.max(initial=0.0), -rescaled.min(initial=0.0))),
    )
    return rescaling, rescaled


def vector_rescaling(new: Array, old: Array) -> Rescaling | None:
    """The factors between two vectors of one length; None where either holds a value that is not finite."""
    x, y = new.astype(np.float64).reshape(-1), old.astype(np.float64).reshape(-1)
    if not len(x) or len(x) != len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    return Rescaling(
        _ratios(x, y), _ratios(1.0 + x, 1.0 + y), explained=1.0, largest=float(np.max(np.abs(x)))
    )


def _ratios(x: NDArray[np.float64], y: NDArray[np.float64]) -> Factors:
    usual = float(np.median(np.abs(y)))
    told = np.abs(y) > max(_SMALL * usual, _ZERO)
    # What was next to nothing and still is has no factor that could be told.
    untold = ~told & (np.abs(x) <= max(_STILL_SMALL * usual, _ZERO))
    values = np.divide(x, y, out=np.full_like(x, -1.0), where=told)
    return Factors.of(np.where(untold, 1.0, values), np.where(untold, np.inf, 0.0))


@dataclass(frozen=True, slots=True)
class _Pass:
    column_product: NDArray[np.float64]
    column_old: NDArray[np.float64]


def _blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    step = max(1, _BLOCK_ELEMENTS // max(1, columns))
    return [(begin, min(rows, begin + step)) for begin in range(0, rows, step)]


def _row_factors(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    square = np.einsum("ij,ij->i", y, y)
    return np.asarray(
        np.divide(np.einsum("ij,ij->i", x, y), square, out=np.zeros_like(square), where=square > _ZERO)
    )


def _pass(new: Array, old: Array, columns: NDArray[np.float64]) -> _Pass:
    """Best factors per row for those per column, and the sums that give the next ones per column."""
    product, square = np.zeros(new.shape[1]), np.zeros(new.shape[1])
    for begin, end in _blocks(*new.shape):
        x, y = new[begin:end].astype(np.float64), old[begin:end].astype(np.float64)
        y *= _row_factors(x, y * columns)[:, None]
        product += np.einsum("ij,ij->j", x, y)
        square += np.einsum("ij,ij->j", y, y)
    return _Pass(product, square)


@dataclass(frozen=True, slots=True)
class _Fit:
    """Sums of squares: of what is left, of the new layer, and of the baseline with the other side's factors."""

    rows: NDArray[np.float64]
    row_left: NDArray[np.float64]
    row_old: NDArray[np.float64]
    row_new: NDArray[np.float64]
    column_left: NDArray[np.float64]
    column_old: NDArray[np.float64]
    column_new: NDArray[np.float64]
    change: float
    left: float

    @classmethod
    def of(cls, new: Array, old: Array, columns: NDArray[np.float64], into: Array) -> _Fit:
        by_row = np.zeros((4, new.shape[0]))
        by_column = np.zeros((3, new.shape[1]))
        change = 0.0
        for begin, end in _blocks(*new.shape):
            x, y = new[begin:end].astype(np.float64), old[begin:end].astype(np.float64)
            change += float(np.square(x - y).sum())
            scaled = y * columns
            rows = _row_factors(x, scaled)
            fitted = scaled * rows[:, None]
            into[begin:end] = fitted
            left = np.square(x - fitted)
            square = x * x
            for place, values in enumerate((left, scaled * scaled, square)):
                by_row[place, begin:end] = values.sum(axis=1)
            by_row[3, begin:end] = rows
            for place, values in enumerate((left, np.square(y * rows[:, None]), square)):
                by_column[place] += values.sum(axis=0)
        return cls(
            rows=by_row[3],
            row_left=by_row[0],
            row_old=by_row[1],
            row_new=by_row[2],
            column_left=by_column[0],
            column_old=by_column[1],
            column_new=by_column[2],
            change=change,
            left=float(by_row[0].sum()),
        )


def _factors(values: NDArray[np.float64], sums: tuple[NDArray[np.float64], ...], length: int) -> Factors:
    """Least squares factors with their standard errors.

    Args:
        sums: of squares of what is left, of the baseline and of the new layer, for each row or column.
        length: elements of one.
    """
    left, old, new = sums
    usual = float(left.mean())
    # Where nothing is left of a unit, how well it fits says nothing about how well it is known.
    noise = np.where(new < usual, np.maximum(left, usual), left)
    errors = np.sqrt(np.divide(noise, old, out=np.zeros_like(old), where=old > _ZERO) / max(1, length))
    # What was zero and is has no factor that could be told.
    untold = (old <= _ZERO) & (new <= _ZERO)
    return Factors.of(np.where(untold, 1.0, values), np.where(untold, np.inf, errors))


@dataclass(frozen=True, slots=True)
class RescaledLayer:
    """A layer or vector with factors that others take back.

    Attributes:
        layer: its name.
        smallest, largest: of the factors that its rows, columns or elements were multiplied with.
        assumes_relu: whether they are taken back only where nothing but ReLU stands between the layers.
    """

    layer: str
    smallest: float
    largest: float
    assumes_relu: bool = False


@dataclass(frozen=True, slots=True)
class UnsharedRescaling:
    """A layer or vector with other factors than the others that share its units, or with none.

    Attributes:
        layer: its name.
        other: one that has them.
        together: how many have them.
        size: root mean square by which the natural logarithms of the factors differ.
    """

    layer: str
    other: str
    together: int
    size: float

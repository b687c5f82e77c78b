"""What a comparison element by element sees in a layer besides the size of its change.

One pass over both weights gives every row and column its cosine and norms, and the residual its moments; a few
Lanczos steps give the largest singular values of residual and baseline. Only where rows or columns no longer look
like themselves are they looked for elsewhere, so a healthy layer pays for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.rescaling import is_rescaled
from layerwatch.metrics.rowmatching import Axis, Reordering, find_reordering
from layerwatch.metrics.tensors import Array

LIVE_SHARE = 0.2
"""A row (column) of the baseline is live above this share of the median row (column) norm."""

LOW = 0.5
"""A row whose cosine with its counterpart is below this is another one."""

_STEPS = 10
_SEED = 5150
_BLOCK_ELEMENTS = 1 << 16
_UNALIKE = 0.5
_NOTHING = 1e-4
"""A relative change below this is rounding, whose norm in float32 means nothing."""
_ZERO = 1e-30
_MANY_COLUMNS = 1 << 20
_SMALLEST_NORMAL = float(np.finfo(np.float64).tiny)

_Product = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class RowChange:
    """Numbers of one layer, on the BatchNorm-folded matrices of shape (rows, columns).

    Attributes:
        rows: all rows.
        live_rows: rows of the baseline above a fifth of its median row norm that are not exactly zero now; the
            counts below are over these.
        low_rows: cosine with the baseline's row below 0.5.
        flipped_rows: the same below -0.5, and further than chance goes for rows of this length.
        row_norm_ratio: the largest ratio of a row's norm to its baseline's or the other way round, >= 1; None
            without live rows.
        rescaled_row: index of that row.
        reordering: where the low rows, or columns, are found elsewhere; None where nothing was looked for.
        transposed_cosine: cosine with the baseline transposed (axes 0 and 1, raw weights), for equal sides and
            only where the layer's own cosine is below 0.5; else None.
        spectral_change: ||W - W0||_2 / ||W0||_2, from below, within a few percent; None for changes below 1e-4.
        noise_ratio: ||W - W0||_2 over what independent elements of the same norm would have,
            ||W - W0||_F (sqrt(rows) + sqrt(columns)) / sqrt(rows columns). About 1 for noise and rounding, 3 to 6
            for a fine-tune; None for changes below 1e-4.
        residual_kurtosis: fourth standardised moment of the elements of W - W0; None where all are equal.
        gain: <W, W0> / <W0, W0>; None for an empty baseline.
        relative_perpendicular: ||W - gain W0|| / ||W0||; None for an empty baseline.
        structure: ||W - W0||_2 over the largest row norm and the largest column norm of W - W0 together, 0..1 (about)
            where its elements are independent, however unequal rows and columns are (Bandeira and van Handel, Annals
            of Probability 44, 2016, theorem 1.1); None as for ``noise_ratio``.
    """

    rows: int
    live_rows: int
    low_rows: int
    flipped_rows: int
    row_norm_ratio: float | None
    rescaled_row: int | None
    reordering: Reordering | None
    transposed_cosine: float | None
    spectral_change: float | None
    noise_ratio: float | None
    residual_kurtosis: float | None
    gain: float | None
    relative_perpendicular: float | None
    structure: float | None = None

    @property
    def low_share(self) -> float:
        """Share of the live rows that are others now, 0..1."""
        return self.low_rows / self.live_rows if self.live_rows else 0.0


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums of squares and products by row and by column; ``moments`` are the sums of d, d^2, d^3, d^4."""

    row_new: NDArray[np.float64]
    row_old: NDArray[np.float64]
    row_product: NDArray[np.float64]
    column_new: NDArray[np.float64]
    column_old: NDArray[np.float64]
    column_product: NDArray[np.float64]
    moments: NDArray[np.float64]

    def row_changes(self) -> float:
        """The largest norm of a row of W - W0."""
        return _largest(self.row_new + self.row_old - 2.0 * self.row_product)

    def column_changes(self) -> float:
        """The largest norm of a column of W - W0."""
        return _largest(self.column_new + self.column_old - 2.0 * self.column_product)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that one pass tells.

    Attributes:
        change, norm, norm0: Frobenius norms of W - W0, W and W0.
        product: <W, W0>.
        rows: the rest.
        column_factors: the best factor of each column alone, where factors per row and column explain more of the
            change than chance lets them; else None.
    """

    change: float
    norm: float
    norm0: float
    product: float
    rows: RowChange
    column_factors: NDArray[np.float64] | None = None


def compare_elements(
    new: Array,
    old: Array,
    factors: NDArray[np.float64] | None,
    factors0: NDArray[np.float64] | None,
) -> Comparison | None:
    """Compare two weights of one shape.

    Args:
        new, old: shape (rows, ...), float32 or float64.
        factors, factors0: BatchNorm factors of each, shape (rows,), or None.

    Returns:
        None where either holds a value that is not finite, or squares leave float64's range.
    """
    a, b = new.reshape(new.shape[0], -1), old.reshape(old.shape[0], -1)
    # Squares beyond float64's range end as "no comparison" below.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _sums(a, b, factors, factors0)
        square, square0 = float(sums.row_new.sum()), float(sums.row_old.sum())
        product, change = float(sums.row_product.sum()), float(sums.moments[1])
    if not np.isfinite(square + square0 + change):
        return None
    norm, norm0, size = sqrt(square), sqrt(square0), sqrt(change)
    cosine = product / norm / norm0 if min(norm, norm0) > _ZERO else None
    live = _live(sums.row_old, sums.row_new)
    cosines = _cosines(sums.row_product, sums.row_new, sums.row_old)
    low = np.flatnonzero(live & (cosines < LOW))
    ratio, where = _largest_ratio(sums.row_new, sums.row_old, live)
    spectral = _spectral_norms(a, b, factors, factors0, norm, norm0, size)
    gain = product / square0 if norm0 > _ZERO else None
    rows = RowChange(
        rows=len(a),
        live_rows=int(np.count_nonzero(live)),
        low_rows=len(low),
        flipped_rows=int(np.count_nonzero(live & (cosines < -_chance(a.shape[1])))),
        row_norm_ratio=ratio,
        rescaled_row=where,
        reordering=_reordering(a, b, factors, factors0, low, sums, prod(new.shape[2:])),
        transposed_cosine=_transposed_cosine(new, old) if cosine is not None and cosine < _UNALIKE else None,
        spectral_change=spectral[0] / spectral[1] if spectral and spectral[1] > 0.0 else None,
        noise_ratio=spectral[0] / (size * (sqrt(len(a)) + sqrt(a.shape[1])) / sqrt(a.size))
        if spectral
        else None,
        residual_kurtosis=_kurtosis(sums.moments, a.size),
        gain=gain,
        relative_perpendicular=sqrt(max(0.0, square - gain * product)) / norm0 if gain is not None else None,
        structure=spectral[0] / (sums.row_changes() + sums.column_changes()) if spectral else None,
    )
    return Comparison(size, norm, norm0, product, rows, _column_factors(sums))


def _sums(
    a: Array, b: Array, factors: NDArray[np.float64] | None, factors0: NDArray[np.float64] | None
) -> _Sums:
    rows, columns = a.shape
    by_row = np.zeros((3, rows))
    by_column = np.zeros((3, columns))
    moments = np.zeros(4)
    step = max(1, _BLOCK_ELEMENTS // max(1, columns))
    for begin in range(0, rows, step):
        end = min(rows, begin + step)
        x = a[begin:end].astype(np.float64)
        y = b[begin:end].astype(np.float64)
        if factors is not None:
            x *= factors[begin:end, None]
        if factors0 is not None:
            y *= factors0[begin:end, None]
        d = x - y
        for place, product in enumerate((x * x, y * y, x * y)):
            by_row[place, begin:end] = product.sum(axis=1)
            by_column[place] += product.sum(axis=0)
        squares = d * d
        moments += (d.sum(), squares.sum(), np.vdot(squares, d), np.vdot(squares, squares))
    return _Sums(by_row[0], by_row[1], by_row[2], by_column[0], by_column[1], by_column[2], moments)


def _column_factors(sums: _Sums) -> NDArray[np.float64] | None:
    by_row, by_column = (sums.row_product, sums.row_old), (sums.column_product, sums.column_old)
    if not is_rescaled(float(sums.moments[1]), by_row, by_column):
        return None
    zero = np.zeros_like(sums.column_old)
    return np.asarray(
        np.divide(sums.column_product, sums.column_old, out=zero, where=sums.column_old > _ZERO)
    )


def _largest(squares: NDArray[np.float64]) -> float:
    return sqrt(max(_ZERO, float(squares.max())))


def _live(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.bool_]:
    norms = np.sqrt(old)
    return np.asarray((norms > LIVE_SHARE * np.median(norms)) & (old > 0.0) & (new > 0.0))


def _cosines(
    product: NDArray[np.float64], new: NDArray[np.float64], old: NDArray[np.float64]
) -> NDArray[np.float64]:
    # Two roots: the product of two squares leaves float64's range.
    both = np.sqrt(new) * np.sqrt(old)
    return np.asarray(np.divide(product, both, out=np.ones_like(product), where=both > 0.0))


def _chance(length: int) -> float:
    """Two random rows of this length have a cosine beyond it once in 30,000."""
    return min(0.95, max(LOW, 4.0 / sqrt(length)))


def _largest_ratio(
    new: NDArray[np.float64], old: NDArray[np.float64], live: NDArray[np.bool_]
) -> tuple[float | None, int | None]:
    places = np.flatnonzero(live)
    if not len(places):
        return None, None
    logs = np.abs(np.log(new[places]) - np.log(old[places])) / 2.0
    largest = int(np.argmax(logs))
    return float(np.exp(min(logs[largest], 700.0))), int(places[largest])


def _kurtosis(moments: NDArray[np.float64], size: int) -> float | None:
    first, second, third, fourth = (float(one) / size for one in moments)
    if fourth < _SMALLEST_NORMAL:
        return None
    # In units of the root mean square, one division at a time: powers leave float64's range.
    unit = sqrt(second)
    first, third, fourth = first / unit, third / second / unit, fourth / second / second
    variance = 1.0 - first**2
    if variance <= 1e-12:
        return None
    central = fourth - 4.0 * first * third + 6.0 * first**2 - 3.0 * first**4
    kurtosis = central / variance / variance
    return kurtosis if np.isfinite(kurtosis) and kurtosis > 0.0 else None


def _reordering(
    a: Array,
    b: Array,
    factors: NDArray[np.float64] | None,
    factors0: NDArray[np.float64] | None,
    low: NDArray[np.intp],
    sums: _Sums,
    kernel: int,
) -> Reordering | None:
    found = None
    if len(low) >= 2 and a.shape[1] > 1:
        found = find_reordering(a, b, low, Axis.ROWS)
        if found.matched >= max(2.0, 0.5 * found.examined):
            return found
    live = _live(sums.column_old, sums.column_new)
    cosines = _cosines(sums.column_product, sums.column_new, sums.column_old)
    moved = np.flatnonzero(live & (cosines < LOW))
    if len(moved) >= 2 and len(a) > 1 and a.shape[1] <= _MANY_COLUMNS:
        columns = find_reordering(a.T, b.T, moved, Axis.COLUMNS, kernel, (factors, factors0))
        if found is None or columns.matched * found.examined > found.matched * columns.examined:
            return columns
    return found


def _transposed_cosine(new: Array, old: Array) -> float | None:
    if new.ndim < 2 or new.shape[0] != new.shape[1]:
        return None
    turned = old.swapaxes(0, 1)
    product = square = square0 = 0.0
    step = max(1, _BLOCK_ELEMENTS // max(1, new[0].size))
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, len(new), step):
            x = new[begin : begin + step].astype(np.float64)
            y = turned[begin : begin + step].astype(np.float64)
            product += float((x * y).sum())
            square += float((x * x).sum())
            square0 += float((y * y).sum())
    both = sqrt(square) * sqrt(square0)
    return max(-1.0, min(1.0, product / both)) if 0.0 < both < np.inf else None


def _spectral_norms(
    a: Array,
    b: Array,
    factors: NDArray[np.float64] | None,
    factors0: NDArray[np.float64] | None,
    norm: float,
    norm0: float,
    change: float,
) -> tuple[float, float] | None:
    """Largest singular values of the residual and of the baseline (Golub & Van Loan, Matrix Computations, 10.4).

    Both are products with the stored arrays: neither the residual nor a folded copy is held in memory.
    """
    scale = max(norm, norm0)
    if norm0 <= _ZERO or change <= _NOTHING * scale:
        return None
    # In units of the norm: what float32 holds, its products hold too.
    f = (np.ones(len(a)) if factors is None else factors) / scale
    g = (np.ones(len(a)) if factors0 is None else factors0) / scale
    g0 = g * (scale / norm0)
    if not (np.isfinite(f).all() and np.isfinite(g0).all()):
        return None

    def residual(x: NDArray[np.float64]) -> NDArray[np.float64]:
        y = f * (a @ x.astype(a.dtype)) - g * (b @ x.astype(b.dtype))
        return np.asarray((f * y).astype(a.dtype) @ a - (g * y).astype(b.dtype) @ b, dtype=np.float64)

    def baseline(x: NDArray[np.float64]) -> NDArray[np.float64]:
        y = g0 * (b @ x.astype(b.dtype))
        return np.asarray((g0 * y).astype(b.dtype) @ b, dtype=np.float64)

    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        largest = [_largest_singular_value(matrix, a.shape[1]) for matrix in (residual, baseline)]
    if any(one is None for one in largest):
        return None
    # Between what the Frobenius norm allows: rounding in float32 may leave it by its last digits.
    residual_norm = min(change, (largest[0] or 0.0) * scale)
    return residual_norm, min(norm0, (largest[1] or 0.0) * norm0)


def _largest_singular_value(square: _Product, columns: int) -> float | None:
    """Root of the largest eigenvalue of a symmetric product, by Lanczos steps that stay orthogonal."""
    x = np.random.default_rng(_SEED).standard_normal(columns)
    basis = [x / np.linalg.norm(x)]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(_STEPS, columns)):
        y = square(basis[-1])
        if not np.isfinite(y).all():
            return None
        diagonal.append(float(basis[-1] @ y))
        for one in (*basis, *basis):
            y -= (one @ y) * one
        length = float(np.linalg.norm(y))
        if length <= 1e-9 * abs(diagonal[0]):
            break
        beside.append(length)
        basis.append(y / length)
    small = np.diag(diagonal)
    for place in range(len(diagonal) - 1):
        small[place, place + 1] = small[place + 1, place] = beside[place]
    return sqrt(max(0.0, float(np.linalg.eigvalsh(small)[-1])))

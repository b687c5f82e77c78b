"""What a layer's stored norms and spectrum tell about how it changed, where its weights are not at hand.

A layer whose rows were permuted, whose signs were flipped or that was stored transposed keeps its singular values,
and its norms as a set. By Mirsky's theorem (Quarterly Journal of Mathematics 11, 1960) no update moves the sorted
singular values, and none moves the norms, by more than its own Frobenius norm: what is kept within the size of a
healthy update was only rearranged.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, prod

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.tensors import Array

_ZERO = 1e-30


@dataclass(frozen=True, slots=True)
class OutlineChange:
    """Relative distances, each ||x - x0|| / ||x0||, >= 0, small where nothing but order or sign changed.

    Attributes:
        rows, columns: of the norms of the folded rows (columns), place by place.
        sorted_rows, sorted_columns: of the same, sorted.
        spectrum: of the raw singular values, sorted.
        exchanged: the larger of row norms against the baseline's norms of input channels and the other way round;
            None unless the sides are equal, and where a BatchNorm is folded in.
        folded: whether a BatchNorm is folded into the norms, so that a raw row that moved has another factor now.
        concentrations: for folded layers, the larger move |log| of how unequal raw rows and raw input channels are
            (sum of fourth powers of the norms over the squared sum of squares); None where not folded.
        exchanged_concentrations: the same, of rows against the baseline's channels and the other way round.
    """

    rows: float
    columns: float
    sorted_rows: float
    sorted_columns: float
    spectrum: float
    exchanged: float | None
    folded: bool
    concentrations: float | None
    exchanged_concentrations: float | None


def outline_change(new: Measurement, old: Measurement) -> OutlineChange | None:
    """Compare what is stored of two layers of one shape; None where an array is missing or empty."""
    r, r0, c, c0 = new.row_norms, old.row_norms, new.column_norms, old.column_norms
    if r is None or r0 is None or c is None or c0 is None or new.spectrum is None or old.spectrum is None:
        return None
    spectrum = _distance(_singular(new.spectrum), _singular(old.spectrum))
    distances = [_distance(r, r0), _distance(c, c0), _distance(np.sort(r), np.sort(r0))]
    distances.append(_distance(np.sort(c), np.sort(c0)))
    if spectrum is None or any(one is None for one in distances):
        return None
    folded = new.folded_by is not None or old.folded_by is not None
    exchanged = None
    if not folded and len(new.shape) >= 2 and new.shape[0] == new.shape[1]:
        kernel = prod(new.shape[2:])
        turned = [_distance(r, _channels(c0, kernel)), _distance(_channels(c, kernel), r0)]
        exchanged = max((one for one in turned if one is not None), default=None)
    here, there = _concentrations(new), _concentrations(old)
    rows, columns, sorted_rows, sorted_columns = (one or 0.0 for one in distances)
    return OutlineChange(
        rows=rows,
        columns=columns,
        sorted_rows=sorted_rows,
        sorted_columns=sorted_columns,
        spectrum=spectrum,
        exchanged=exchanged,
        folded=folded,
        concentrations=_log_distance(here, there) if here and there else None,
        exchanged_concentrations=_log_distance(here, (there[1], there[0])) if here and there else None,
    )


def concentrations(values: Array) -> tuple[float | None, float | None]:
    """How unequal the norms of rows and of input channels are, 0..1, whatever their order.

    Args:
        values: shape (rows, channels, ...), finite.

    Returns:
        sum of the fourth powers of the norms over the squared sum of squares, for rows and for channels; None where
        squares leave float64's range.
    """
    channels = np.zeros(values.shape[1])
    rows = np.empty(values.shape[0])
    with np.errstate(over="ignore", invalid="ignore"):
        for place, row in enumerate(values):
            squares = np.square(row.astype(np.float64).reshape(len(channels), -1)).sum(axis=1)
            rows[place] = squares.sum()
            channels += squares
        return _concentration(rows), _concentration(channels)


def _concentration(squares: NDArray[np.float64]) -> float | None:
    total = float(squares.sum())
    if not 0.0 < total < np.inf:
        return None
    return float(np.square(squares / total).sum())


def _concentrations(measurement: Measurement) -> tuple[float, float] | None:
    rows, channels = measurement.row_concentration, measurement.channel_concentration
    return None if rows is None or channels is None else (rows, channels)


def _singular(spectrum: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.sqrt(np.maximum(np.sort(spectrum).astype(np.float64), 0.0))


def _channels(columns: NDArray[np.float32], kernel: int) -> NDArray[np.float64]:
    """Norms of input channels from those of their kernel elements."""
    return np.asarray(np.sqrt(np.square(columns.astype(np.float64)).reshape(-1, kernel).sum(axis=1)))


def _distance(
    new: NDArray[np.float32] | NDArray[np.float64], old: NDArray[np.float32] | NDArray[np.float64]
) -> float | None:
    if len(new) != len(old):
        return None
    x, y = new.astype(np.float64), old.astype(np.float64)
    base = float(np.linalg.norm(y))
    distance = float(np.linalg.norm(x - y)) / base if base > _ZERO else np.inf
    return distance if np.isfinite(distance) else None


def _log_distance(new: tuple[float, float], old: tuple[float, float]) -> float:
    return max(abs(log(x) - log(y)) if x > 0.0 and y > 0.0 else 700.0 for x, y in zip(new, old, strict=True))

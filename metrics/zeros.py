"""Zeros that a layer has and its baseline had not: rows, columns, and the end of the tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.rowchange import LIVE_SHARE


def zero_sides(norms: NDArray[np.float32] | None) -> tuple[int, ...]:
    """Positions of rows (columns) that are exactly zero, ascending."""
    return () if norms is None else tuple(np.flatnonzero(norms == 0.0).tolist())


def newly_zero(new: NDArray[np.float32] | None, old: NDArray[np.float32] | None) -> tuple[int, ...]:
    """Positions of rows (columns) that are exactly zero and were live, ascending; none between different sides."""
    if new is None or old is None or len(new) != len(old) or len(old) == 0:
        return ()
    live = old > LIVE_SHARE * np.median(old.astype(np.float64))
    return tuple(np.flatnonzero((new == 0.0) & live & (old > 0.0)).tolist())


def zero_tail_energy(new: Measurement, old: Measurement) -> float | None:
    """What the baseline had where the new layer ends in zeros: mean square there, over that of the whole layer.

    Read off the norms of the baseline's rows; within the row in which the zeros begin, off those of its columns.

    Returns:
        None without zeros at the end, for vectors, and between different shapes.
    """
    rows, columns = old.row_norms, old.column_norms
    if not new.zero_tail or new.shape != old.shape or rows is None or columns is None:
        return None
    row_energy, column_energy = np.square(rows.astype(np.float64)), np.square(columns.astype(np.float64))
    total = float(row_energy.sum())
    if total <= 0.0 or not np.isfinite(total):
        return None
    whole, rest = divmod(new.zero_tail, len(columns))
    energy = float(row_energy[len(rows) - whole :].sum())
    if rest:
        share = column_energy[len(columns) - rest :].sum() / column_energy.sum()
        energy += float(row_energy[len(rows) - whole - 1] * share)
    return energy / total * (len(rows) * len(columns)) / new.zero_tail

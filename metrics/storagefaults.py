"""Faults of quantised storage, recognised in what was read back: a zero point, scales.

A weight that was stored in groups along one axis and read with one wrong number per group differs from its parent in
a way that nothing else does: the difference is one constant per group (zero point), or the group is its parent times
one factor (scale). Healthy rounding leaves 1/g of its energy in the means of groups of g, pruning and training
little more. Failures and their sizes: field report, sections 7.3 and 7.5. Order that was not undone is found among
the rows and columns (``rowmatching.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.rowmatching import Axis
from layerwatch.metrics.tensors import Array

LEAST_CHANGE = 0.02
"""Below this relative change nothing is looked for: int8 leaves 0.008."""

EXPLAINED = 0.5
"""Share of the change that one number per group must explain."""

_GROUPS = (128, 64, 32, 16)
_CELL = 16
_ROWS_AT_ONCE = 256
_SAMPLE_ELEMENTS = 1 << 21
_BLOCK_ELEMENTS = 1 << 15
_LEAST_LENGTH = 16
_LONGEST = 8192
_LEFT = 0.05
"""Share of the energy that may not be explained by factors per group: int4 leaves 0.02, pruning half of it all."""
_LEAST_SPREAD = 0.05
_SHIFT = 0.9
_COARSER = 0.98
_CENTRED = 1e-3


class StorageFaultKind(StrEnum):
    """What is wrong.

    ``zero_point``: every group is off by a constant; ``shifted_scales``: every group has the scale of its neighbour;
    ``group_scales``: every group is off by a factor of its own.
    """

    ZERO_POINT = "zero_point"
    SHIFTED_SCALES = "shifted_scales"
    GROUP_SCALES = "group_scales"


@dataclass(frozen=True, slots=True)
class StorageFault:
    """A fault of quantised storage.

    Attributes:
        kind: what is wrong.
        axis: along what the groups run: ``columns`` where a group is a run of inputs of one row.
        group: elements per group; None for a whole row (or column).
        explained: share of the squared change that one number per group explains, 0..1.
        spread: for factors, the ratio of the 95th to the 5th percentile of them; else None.
    """

    kind: StorageFaultKind
    axis: Axis
    group: int | None
    explained: float
    spread: float | None = None


def group_words(fault: StorageFault) -> str:
    """What one group is, in words."""
    line = "row" if fault.axis is Axis.COLUMNS else "column"
    return f"whole {line}" if fault.group is None else f"run of {fault.group} along its {line}s"


def find_storage_fault(new: Array, old: Array) -> StorageFault | None:
    """Recognise a fault of quantised storage in raw weights (no BatchNorm folded).

    About 2 million elements are looked at, in runs of 256 rows: such faults are all over a tensor.

    Args:
        new, old: shape (rows, columns), float32 or float64, finite.
    """
    if min(new.shape) < 2 or max(new.shape) < _LEAST_LENGTH:
        return None
    by_axis = {
        Axis.COLUMNS: _Explained(new.shape[1]),
        Axis.ROWS: _Explained(min(len(new), _ROWS_AT_ONCE)),
    }
    with np.errstate(over="ignore", invalid="ignore"):
        totals = np.zeros(4)
        for begin, end in _runs(*new.shape):
            by_rows: list[list[NDArray[np.float64]]] = [[], [], []]
            for x, y in _blocks(new[begin:end], old[begin:end]):
                difference, product, square = parts = x - y, x * y, y * y
                totals += (np.vdot(difference, difference), np.vdot(x, x), product.sum(), square.sum())
                by_axis[Axis.COLUMNS].add(
                    *(_cells(part, Axis.COLUMNS) for part in parts), length=new.shape[1]
                )
                for kept, part in zip(by_rows, parts, strict=True):
                    kept.append(_cells(part, Axis.ROWS))
            joined = (np.concatenate(kept, axis=1) for kept in by_rows)
            by_axis[Axis.ROWS].add(*joined, length=end - begin)
        if not np.isfinite(totals).all() or totals[0] < LEAST_CHANGE**2 * totals[3] or totals[3] <= 0.0:
            return None
        found = [
            fault
            for axis, one in by_axis.items()
            if (fault := one.zero_point(axis, totals)) is not None and not _is_centred(new, old, axis)
        ]
        if not found:
            found = [
                fault
                for axis, one in by_axis.items()
                if (fault := _scales(one, axis, totals, new, old)) is not None
            ]
    return max(found, key=lambda fault: fault.explained, default=None)


class _Explained:
    """How much of a change one number per group explains, by group size, from coarse to fine.

    Sums of squares over what was looked at come as ``totals``: of the change, of W, of W W0, of W0 squared.

    Args:
        length: elements of a line as far as it is looked at; the first size is such a line.
    """

    def __init__(self, length: int) -> None:
        sizes = [size for size in _GROUPS if size < length]
        self.sizes: list[int | None] = [*([None] if length >= _LEAST_LENGTH else []), *sizes]
        self.constants = np.zeros(len(self.sizes))
        self.factors = np.zeros(len(self.sizes))

    def add(
        self,
        difference: NDArray[np.float64],
        product: NDArray[np.float64],
        square: NDArray[np.float64],
        *,
        length: int,
    ) -> None:
        """Add lines of ``length`` elements, given as sums over runs of 16, shape (lines, runs)."""
        for place, size in enumerate(self.sizes):
            d, xy, yy = (_groups(one, size) for one in (difference, product, square))
            self.constants[place] += float((d * d / _lengths(length, size)).sum())
            kept = np.divide(xy * xy, yy, out=np.zeros_like(yy), where=yy > 0.0)
            self.factors[place] += float(kept.sum())

    def zero_point(self, axis: Axis, totals: NDArray[np.float64]) -> StorageFault | None:
        """One constant per group explains the change."""
        place, share = self._coarsest(self.constants, float(totals[0]))
        return (
            StorageFault(StorageFaultKind.ZERO_POINT, axis, self.sizes[place], share)
            if share >= EXPLAINED
            else None
        )

    def by_factors(self, totals: NDArray[np.float64]) -> tuple[int | None, float] | None:
        """Group size and share, where one factor per group explains the change and leaves hardly anything.

        What one factor for all explains is taken off first: a layer that was scaled is no fault of this kind.
        """
        _, square, product, square0 = (float(one) for one in totals)
        common = product * product / square0
        if not self.sizes or square - common <= _LEAST_SPREAD**2 * square0:
            return None
        place, share = self._coarsest(self.factors - common, square - common)
        left = 1.0 - float(self.factors[place]) / square
        return (self.sizes[place], share) if share >= EXPLAINED and left <= _LEFT else None

    def _coarsest(self, parts: NDArray[np.float64], whole: float) -> tuple[int, float]:
        """The coarsest groups that explain as much as the finest: those in which the fault was made."""
        if not len(parts) or not 0.0 < whole < np.inf or not np.isfinite(parts).all():
            return 0, 0.0
        shares = np.minimum(parts / whole, 1.0)
        place = int(np.flatnonzero(shares >= _COARSER * shares.max())[0])
        return place, float(shares[place])


def _is_centred(new: Array, old: Array, axis: Axis) -> bool:
    """Whether whole lines lost their mean: some export tools centre what is read or written through a norm."""
    along = 1 if axis is Axis.COLUMNS else 0
    after, before = (one.sum(axis=along, dtype=np.float64) for one in (new, old))
    return float(np.square(after).sum()) <= _CENTRED * float(np.square(after - before).sum())


def _scales(
    explained: _Explained, axis: Axis, totals: NDArray[np.float64], new: Array, old: Array
) -> StorageFault | None:
    found = explained.by_factors(totals)
    if found is None:
        return None
    size, share = found
    # One piece without gaps, so that neighbours stand side by side.
    piece = (
        (slice(_ROWS_AT_ONCE), slice(None)) if axis is Axis.COLUMNS else (slice(None), slice(_ROWS_AT_ONCE))
    )
    x, y = (one[piece][:_LONGEST, :_LONGEST].astype(np.float64) for one in (new, old))
    products, squares = (_groups(_cells(one, axis), size) for one in (x * y, y * y))
    usable = (squares > 0.0) & (products > 0.0)
    logs = np.log(np.where(usable, products, 1.0)) - np.log(np.where(usable, squares, 1.0))
    low, high = np.percentile(logs[usable], [5, 95]) if usable.any() else (0.0, 0.0)
    spread = float(np.exp(min(high - low, 700.0)))
    if any(_is_shifted(logs, steps, usable) for steps in _steps(y if axis is Axis.COLUMNS else y.T, size)):
        return StorageFault(StorageFaultKind.SHIFTED_SCALES, axis, size, share, spread)
    # A factor per whole row is what training with a norm behind it, or an equalisation of scales, does too.
    return None if size is None else StorageFault(StorageFaultKind.GROUP_SCALES, axis, size, share, spread)


def _is_shifted(logs: NDArray[np.float64], steps: NDArray[np.float64], usable: NDArray[np.bool_]) -> bool:
    """Whether the factors are those of a neighbour: its step of quantisation over the own one."""
    usable = usable & (steps > 0.0)
    sizes = np.log(np.where(usable, steps, 1.0))
    for along in (0, 1):
        for step in (1, -1):
            if logs.shape[along] < 8:
                continue
            here = np.roll(sizes, step, axis=along) - sizes
            inside = usable & np.roll(usable, step, axis=along)
            edge = 0 if step == 1 else -1
            inside[(edge, slice(None)) if along == 0 else (slice(None), edge)] = False
            x, y = logs[inside], here[inside]
            if len(x) >= 8 and x.std() > 0.0 and y.std() > 0.0 and np.corrcoef(x, y)[0, 1] > _SHIFT:
                return True
    return False


def _runs(rows: int, columns: int) -> list[tuple[int, int]]:
    """Runs of up to 256 rows to look at, evenly spread."""
    runs = -(-rows // _ROWS_AT_ONCE)
    most = max(1, _SAMPLE_ELEMENTS // (_ROWS_AT_ONCE * columns))
    chosen = np.unique(np.linspace(0, runs - 1, min(runs, most)).astype(int))
    return [(int(run) * _ROWS_AT_ONCE, min(rows, (int(run) + 1) * _ROWS_AT_ONCE)) for run in chosen]


def _blocks(new: Array, old: Array) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The same rows as float64, a multiple of 16 at a time, few enough to stay in a cache."""
    step = _CELL * max(1, _BLOCK_ELEMENTS // (_CELL * new.shape[1]))
    for begin in range(0, len(new), step):
        x = new[begin : begin + step].astype(np.float64)
        yield x, old[begin : begin + step].astype(np.float64)


def _cells(matrix: NDArray[np.float64], axis: Axis) -> NDArray[np.float64]:
    """Sums over runs of 16 along each line, the last one shorter; shape (lines, runs)."""
    if axis is Axis.ROWS:
        return np.asarray(np.add.reduceat(matrix, np.arange(0, len(matrix), _CELL), axis=0).T)
    rest = -matrix.shape[1] % _CELL
    padded = np.pad(matrix, ((0, 0), (0, rest))) if rest else matrix
    # A product with ones is several times faster than a sum over a short axis.
    return np.asarray((padded.reshape(-1, _CELL) @ np.ones(_CELL)).reshape(len(matrix), -1))


def _groups(cells: NDArray[np.float64], size: int | None) -> NDArray[np.float64]:
    width = cells.shape[1] if size is None else size // _CELL
    if width == 1:
        return cells
    return np.asarray(np.add.reduceat(cells, np.arange(0, cells.shape[1], width), axis=1))


def _lengths(count: int, size: int | None) -> NDArray[np.float64]:
    """Elements in each group of a line of ``count``."""
    if size is None:
        return np.array([float(count)])
    begins = np.arange(0, count, size)
    return np.minimum(size, count - begins).astype(np.float64)


def _steps(lines: NDArray[np.float64], size: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the step of quantisation of each group is proportional to: its largest size, or its range."""
    width = size or lines.shape[1]
    padded = np.pad(lines, ((0, 0), (0, -lines.shape[1] % width))).reshape(len(lines), -1, width)
    lowest, highest = padded.min(axis=2), padded.max(axis=2)
    return np.maximum(highest, -lowest), highest - lowest

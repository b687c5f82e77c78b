"""Rows that are copies of other rows of the same matrix, up to a factor: pasted heads, a shard read twice.

Two unit vectors with a cosine above 0.9999 lie within 0.0142 of each other, so their projections on a random
direction do too, and both fall into one cell of a coarse grid over a few projections, but for a little bad luck that
several grids share out. Only rows of one cell are compared: n log n instead of n^2, whatever the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.tensors import Array

COSINE = 0.9999
"""Rows whose absolute cosine is above this are copies of each other (detection study, section 10)."""

MIN_COLUMNS = 8
"""Rows shorter than this come to lie on one line by chance, and are not compared."""

MIN_NONZEROS = 8
"""What pruning left of two rows, where it is less than this, lies on one line by chance too."""

_GRIDS = 8
_DIRECTIONS = 8
"""Grids, and projections that make one grid: 64 projections in all."""

_CELL = 0.25
"""Side of a cell. A projection has unit variance, that of a difference of copies 0.0142^2: two copies are in one
cell in all 8 directions with a probability of at least 0.69, and apart in all 8 grids with less than 1e-4."""

_NEIGHBOURS = 8
"""A row is compared with as many rows behind it in the order of a crowded cell."""

_VERIFIED_PER_ROW = 4
"""Pairs that are compared element by element, per row; only a matrix of rows that are all nearly copies has more."""

_SQUARED_DISTANCE = 2.0 * (1.0 - COSINE)

_BATCH_ELEMENTS = 1 << 20

_Rows = NDArray[np.intp]

_MULTIPLIERS = np.random.Philox(key=0x6C617965727761746368_0003).random_raw(_DIRECTIONS).astype(np.uint64) | 1


def duplicate_rows(matrix: Array, projections: NDArray[np.float64]) -> int | None:
    """Number of rows, of those that are not zero, with ``|cos| > 0.9999`` to another one; each of a pair counts.

    Args:
        matrix: shape (rows, columns), finite.
        projections: of its rows on seeded random signs, shape (rows, 64) (``sketch.projected_rows``).

    Returns:
        None for rows of fewer than 8 elements, where lying on one line means nothing.
    """
    if matrix.shape[1] < MIN_COLUMNS:
        return None
    norms = _norms(matrix)
    live = np.flatnonzero(np.isfinite(norms) & (norms > 0.0))
    unit = projections[live] / norms[live, None]
    found = np.zeros(len(live), dtype=bool)
    left = _VERIFIED_PER_ROW * len(live)
    for grid in range(_GRIDS):
        for one, other in _pairs_of_one_cell(unit, grid):
            undecided = ~(found[one] & found[other])
            one, other = _likely_copies(unit, one[undecided], other[undecided], grid)
            one, other = one[:left], other[:left]
            left -= len(one)
            copies = _are_copies(matrix, norms, live[one], live[other])
            found[one[copies]] = True
            found[other[copies]] = True
    return int(np.count_nonzero(found))


def _pairs_of_one_cell(unit: NDArray[np.float64], grid: int) -> Iterator[tuple[_Rows, _Rows]]:
    """Pairs of rows in one cell of a grid, the nearest in the order of the cell first."""
    of_grid = unit[:, grid * _DIRECTIONS : (grid + 1) * _DIRECTIONS]
    # A copy may be negative: both are turned to the side where their first projection is positive.
    turned = of_grid * np.where(of_grid[:, :1] < 0.0, -1.0, 1.0)
    cells = np.floor(turned / _CELL + (grid + 0.5) / _GRIDS).astype(np.int64).view(np.uint64)
    keys = (cells * _MULTIPLIERS).sum(axis=1, dtype=np.uint64)
    # Within a cell by a projection as it is, which puts exact copies side by side.
    order = np.lexsort((turned[:, -1], keys))
    in_order = keys[order]
    for shift in range(1, _NEIGHBOURS + 1):
        together = np.flatnonzero(in_order[:-shift] == in_order[shift:])
        if len(together) == 0:
            return
        yield order[together], order[together + shift]


def _likely_copies(unit: NDArray[np.float64], one: _Rows, other: _Rows, grid: int) -> tuple[_Rows, _Rows]:
    """Those pairs whose distance, estimated from projections, may be that of copies; the nearest first.

    The estimate of a squared distance from k projections is chi-squared with k degrees of freedom, over k: first from
    eight that the cell did not look at, then from all.
    """
    sign = np.where(unit[one, grid * _DIRECTIONS] * unit[other, grid * _DIRECTIONS] < 0.0, -1.0, 1.0)
    begin = (grid + 1) % _GRIDS * _DIRECTIONS
    for columns, factor in ((slice(begin, begin + _DIRECTIONS), 6.0), (slice(None), 3.0)):
        apart = unit[one, columns] - sign[:, None] * unit[other, columns]
        distances = np.einsum("ij,ij->i", apart, apart) / apart.shape[1]
        near = np.flatnonzero(distances < factor * _SQUARED_DISTANCE)
        one, other, sign, distances = one[near], other[near], sign[near], distances[near]
    order = np.argsort(distances, kind="stable")
    return one[order], other[order]


def _are_copies(matrix: Array, norms: NDArray[np.float64], one: _Rows, other: _Rows) -> NDArray[np.bool_]:
    copies = np.empty(len(one), dtype=bool)
    step = max(1, _BATCH_ELEMENTS // matrix.shape[1])
    for begin in range(0, len(one), step):
        i, j = one[begin : begin + step], other[begin : begin + step]
        a, b = matrix[i].astype(np.float64), matrix[j].astype(np.float64)
        cosines = np.einsum("ij,ij->i", a / norms[i, None], b / norms[j, None])
        dense = (np.count_nonzero(a, axis=1) >= MIN_NONZEROS) & (np.count_nonzero(b, axis=1) >= MIN_NONZEROS)
        copies[begin : begin + step] = dense & (np.abs(cosines) > COSINE)
    return copies


def _norms(matrix: Array) -> NDArray[np.float64]:
    norms = np.empty(matrix.shape[0])
    step = max(1, _BATCH_ELEMENTS // 16 // matrix.shape[1])
    with np.errstate(over="ignore"):
        for begin in range(0, len(norms), step):
            block = matrix[begin : begin + step].astype(np.float64)
            norms[begin : begin + step] = np.sqrt(np.einsum("ij,ij->i", block, block))
    return norms

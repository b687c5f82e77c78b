"""Linear sketches: enough of a layer to compare it with any earlier or later version without its weights.

``S(W) = A W B / k`` with seeded random +-1 matrices A (k x rows) and B (columns x k), k = 64. Because it is
linear, ``S(W) - S(W0)`` is the sketch of the change, and ``E ||S(D)||^2 = ||D||^2`` for every D (each entry of
``A D B`` has variance ``||D||_F^2``). Measured on 3072 x 768: the estimate's standard deviation is 1.3 % for a
noise-like change, 3.5 % for rank 16, 12 % for rank 1. What is read off sketches, each with its own error:
``estimate.py``, ``recipe.py``, ``nearest.py``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.tensors import Array

SIZE = 64
"""Rows and columns of a sketch (16 KiB per layer)."""

_ROWS_KEY = 0x6C617965727761746368_0001
_COLUMNS_KEY = 0x6C617965727761746368_0002
_BLOCK_ELEMENTS = 1 << 18


def sketch(matrix: Array, factors: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """Sketch of a matrix, optionally with its rows scaled first.

    Args:
        matrix: shape (rows, columns), float32 or float64, finite.
        factors: factor per row, shape (rows,), or None.

    Returns:
        shape (64, 64), float32. The same matrix gives the same sketch on every machine and release that
        shares the metric set: the signs are raw bits of the Philox generator, whose stream is fixed.
    """
    return sketch_of_projections(projected_rows(matrix), factors)


def projected_rows(matrix: Array) -> NDArray[np.float64]:
    """``W B``: the rows' projections on 64 seeded sign vectors, shape (rows, 64)."""
    # Imported here: sketches are compared where no solver is loaded.
    import torch

    from layerwatch.metrics.aligned import aligned

    rows, columns = matrix.shape
    right = aligned(signs(columns, _COLUMNS_KEY)).T
    projected = torch.empty((rows, SIZE), dtype=torch.float64)
    step = max(1, _BLOCK_ELEMENTS // max(1, columns))
    for begin in range(0, rows, step):
        projected[begin : begin + step] = aligned(matrix[begin : begin + step]) @ right
    numbers: NDArray[np.float64] = projected.numpy()
    return numbers


def sketch_of_projections(
    projected: NDArray[np.float64], factors: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """:func:`sketch`, from what :func:`projected_rows` gave."""
    import torch

    from layerwatch.metrics.aligned import aligned

    left = signs(len(projected), _ROWS_KEY).astype(np.float64)
    if factors is not None:
        left = left * factors
    total = (aligned(left) @ torch.from_numpy(projected)).numpy()
    limit = np.finfo(np.float32).max
    return np.clip(total / SIZE, -limit, limit).astype(np.float32)


@lru_cache(maxsize=16)
def signs(length: int, key: int) -> NDArray[np.int8]:
    """Seeded random signs, shape (64, length), values -1 and +1; a prefix of any longer one of the same key.

    Being a prefix keeps the signs of a row the same when rows are appended (a grown vocabulary).
    """
    words = np.random.Philox(key=key).random_raw(length)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little").reshape(length, SIZE)
    return np.ascontiguousarray(bits.T.astype(np.int8) * 2 - 1)

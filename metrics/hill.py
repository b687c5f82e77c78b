"""Tail exponents that need no choice of xmin: Hill's estimator, and the same on windows of one aspect ratio."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch.metrics.aligned import aligned
from layerwatch.metrics.tailfit import NO_SPREAD
from layerwatch.metrics.tensors import Array
from layerwatch.metrics.threads import one_thread

WINDOW = 128
"""Side of a FARMS window. The value on pure noise depends on it: 2.11 for 128."""

GRID = 5
"""Windows per axis at most."""

_RESOLUTION = float(np.finfo(np.float64).eps) * WINDOW**0.5
"""Eigenvalues of a window below this share of its largest cannot be told from zero."""


def hill_alpha(spectrum: NDArray[np.float64]) -> float | None:
    """``1 + k / sum_{i<=k} ln(lambda_(i) / lambda_(k+1))`` over the upper half, k = n / 2.

    Args:
        spectrum: ascending, not negative, finite.

    Returns:
        None for fewer than four positive eigenvalues, or when the upper half has no spread.
    """
    positive = spectrum[spectrum > 0.0]
    half = len(positive) // 2
    if half < 2:
        return None
    logs = np.log(positive[-half - 1 :])
    if not logs[-1] - logs[0] > NO_SPREAD:
        return None
    return 1.0 + half / float((logs[1:] - logs[0]).sum())


def farms_alpha(matrices: list[Array]) -> float | None:
    """Hill's alpha of the pooled eigenvalues of square windows: free of the bias of the aspect ratio.

    Hill's alpha of a random matrix runs from 2.1 (square) to 5.9 (16 : 1); on windows of one shape it is 2.11
    whatever the matrix' shape, so that "indistinguishable from noise" can be read off (arXiv:2506.06280).

    Args:
        matrices: the views of one layer, each (rows, columns), finite.

    Returns:
        None when no view is at least 128 x 128, or as :func:`hill_alpha` (a layer of zeros).
    """
    windows = [window for matrix in matrices for window in _windows(matrix, len(matrices))]
    largest = max((float(np.abs(window).max()) for window in windows), default=0.0)
    if largest == 0.0:
        return None
    # A power of two changes no digit and keeps the squares in range. One window at a time keeps memory small.
    _, exponent = np.frexp(largest)
    with one_thread():
        pooled = [_eigenvalues(np.ldexp(window.astype(np.float64), -exponent)) for window in windows]
    return hill_alpha(np.sort(np.concatenate(pooled)))


def _eigenvalues(window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of W^T W, ascending; what the solver cannot tell from zero is zero."""
    wide = aligned(window)
    values: NDArray[np.float64] = torch.linalg.eigvalsh(wide.T @ wide).numpy()
    return np.where(values > _RESOLUTION * values[-1], values, 0.0)


def _windows(matrix: Array, views: int) -> list[Array]:
    rows, columns = matrix.shape
    if min(rows, columns) < WINDOW:
        return []
    grid = max(1, round(GRID / views**0.5))
    return [
        matrix[top : top + WINDOW, left : left + WINDOW]
        for top in _starts(rows, grid)
        for left in _starts(columns, grid)
    ]


def _starts(length: int, grid: int) -> list[int]:
    """Evenly spread window positions; no more than fit side by side with half overlap."""
    room = length - WINDOW
    count = min(grid, 1 + 2 * room // WINDOW)
    return [0] if count < 2 else [round(room * index / (count - 1)) for index in range(count)]

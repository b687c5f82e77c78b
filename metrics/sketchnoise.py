"""Whether a sketched change has structure, without the weights.

The sketch ``A D B / k`` of noise is a product of three random matrices, whose largest singular value is a known part of
its norm; a change along few directions keeps a larger part in its first. Measured on digits networks, median over the
layers: int8, int4, int3, noise and pruning 0.90 to 1.07, fine-tunes 1.35 to 1.8, adapters of rank 16 1.25, of rank 4
1.6 to 1.9; convolutions with batch norms 1.04 to 1.13, which is hardly told from noise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.sketch import SIZE

_LARGEST = 512
"""From this many rows or columns on, the ratio is that of any larger matrix."""

_DRAWS = 3
_NOTHING = 1e-4
"""A change below this part of the norm is rounding, in the sketch itself too."""


def sketched_noise_ratio(
    new: NDArray[np.float32], old: NDArray[np.float32], rows: int, columns: int
) -> float | None:
    """Largest singular value of the sketched change over what noise of the same norm and shape would have.

    Args:
        new, old: sketches, shape (64, 64), finite.
        rows, columns: of the sketched matrices.

    Returns:
        about 1 for noise, more for structure; None where nothing changed, or one side is too short to tell.
    """
    change = new.astype(np.float64) - old.astype(np.float64)
    size = float(np.linalg.norm(change))
    if (
        min(rows, columns) < 2
        or not np.isfinite(size)
        or size <= _NOTHING * float(np.linalg.norm(old.astype(np.float64)))
    ):
        return None
    share = float(np.linalg.norm(change, ord=2)) / size
    return share / _of_noise(min(rows, _LARGEST), min(columns, _LARGEST))


@lru_cache(maxsize=256)
def _of_noise(rows: int, columns: int) -> float:
    """Largest singular value over the norm of sketched noise: mean of a few seeded draws."""
    random = np.random.default_rng(rows * (_LARGEST + 1) + columns)
    shares = []
    for _ in range(_DRAWS):
        left = random.choice((-1.0, 1.0), (SIZE, rows))
        right = random.choice((-1.0, 1.0), (columns, SIZE))
        sketched = left @ random.standard_normal((rows, columns)) @ right
        shares.append(float(np.linalg.norm(sketched, ord=2)) / float(np.linalg.norm(sketched)))
    return float(np.mean(shares))

"""What random matrices predict: the bulk of a spectrum, what stands out of it.

Sources: Marchenko & Pastur 1967 (the bulk); Johnstone, Annals of Statistics 29(2), 2001 (centring, scale and
Tracy-Widom law of the largest eigenvalue); Gavish & Donoho, IEEE Trans. Information Theory 60(8), 2014 (noise
level from the median); Benaych-Georges & Nadakuditi, J. Multivariate Analysis 111, 2012 (when a rank-one part
leaves the bulk). Eigenvalues are those of W^T W, not divided by N.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import cbrt, sqrt

import numpy as np
from numpy.typing import NDArray

TRACY_WIDOM_QUANTILE = 3.2725
"""99.9 % point of the Tracy-Widom law of order 1: one false spike in a thousand random matrices."""

_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Bulk:
    """The Marchenko-Pastur bulk fitted to a spectrum.

    Attributes:
        noise: standard deviation of the elements of the fitted random part.
        upper_edge, lower_edge: of the bulk, in the units of the eigenvalues.
        threshold: upper edge with the Tracy-Widom margin; larger eigenvalues are spikes.
        num_spikes: eigenvalues above the threshold.
        softrank: upper edge over the largest eigenvalue, 0..1 (1 where nothing stands out).
        below_share: share of eigenvalues below the lower edge, 0..1: small directions that noise would not have.
    """

    noise: float
    upper_edge: float
    lower_edge: float
    threshold: float
    num_spikes: int
    softrank: float
    below_share: float


def fit_bulk(spectrum: NDArray[np.float64], longer: int, shorter: int) -> Bulk | None:
    """Fit the Marchenko-Pastur bulk by its own bulk: median first, then the mean of what is not a spike.

    The median of the eigenvalues gives a noise level that a few spikes do not move. Eigenvalues above the
    threshold of that level are set aside and the level is taken again from the mean of the others (a mean has
    less scatter than a median), until the set no longer changes or
    holds more than half of them. With k spikes aside, the rest is the spectrum
    of a random matrix of (longer - k) x (shorter - k).

    Args:
        spectrum: ascending, not negative; pooled over ``len(spectrum) / shorter`` views of one shape.
        longer, shorter: sides of one view.

    Returns:
        None when there is no bulk: fewer than two eigenvalues, or a median of zero; also where float64 cannot
        hold the numbers.
    """
    count = len(spectrum)
    largest = float(spectrum[-1]) if count > 1 else 0.0
    if largest <= 0.0:
        return None
    # In units of the largest: sums of huge eigenvalues overflow, products with tiny ones are rounded to zero.
    spectrum = spectrum / largest
    median = float(np.median(spectrum))
    if median <= 0.0:
        return None
    variance = median / (longer * median_of_bulk(shorter / longer))
    views = count / shorter
    spikes = -1
    for _ in range(_ROUNDS):
        threshold = noise_threshold(variance, longer, shorter)
        above = count - int(np.searchsorted(spectrum, threshold, side="right"))
        rest = float(spectrum[: count - above].sum())
        # Once most eigenvalues stand out, what is left is no bulk to read a level from.
        if above == spikes or 2 * above > count or rest <= 0.0:
            break
        spikes = above
        aside = spikes / views
        variance = rest / max(1.0, (longer - aside) * (shorter - aside) * views)
    upper = variance * (longer**0.5 + shorter**0.5) ** 2
    lower = variance * (longer**0.5 - shorter**0.5) ** 2
    threshold = noise_threshold(variance, longer, shorter)
    above = count - int(np.searchsorted(spectrum, threshold, side="right"))
    # Below the lower edge the law of the smallest eigenvalue has a margin of its own, of the same order.
    margin = (threshold - upper) * (lower / upper) ** (2 / 3)
    if not np.isfinite(threshold * largest):
        return None
    return Bulk(
        noise=variance**0.5 * largest**0.5,
        upper_edge=upper * largest,
        lower_edge=lower * largest,
        threshold=threshold * largest,
        num_spikes=above,
        softrank=min(1.0, upper),
        below_share=float(np.count_nonzero(spectrum < lower - margin)) / count,
    )


def noise_threshold(variance: float, longer: int, shorter: int) -> float:
    """Largest eigenvalue that noise of this variance reaches in 999 of 1000 matrices (Johnstone 2001)."""
    a, b = sqrt(max(longer - 1, 1)), sqrt(shorter)
    center = (a + b) ** 2
    scale = (a + b) * cbrt(1 / a + 1 / b)
    return variance * (center + TRACY_WIDOM_QUANTILE * scale)


@lru_cache(maxsize=4096)
def median_of_bulk(ratio: float) -> float:
    """Median of the Marchenko-Pastur law of aspect ratio ``shorter / longer`` in (0, 1] and unit variance.

    Found on the distribution function, integrated after the substitution that removes both square-root edges.
    """
    root = ratio**0.5
    low, high = (1 - root) ** 2, (1 + root) ** 2
    angles = np.linspace(0.0, np.pi, 4001)
    # x = mid - half cos(angle): dx and the density's square root combine to sin^2.
    middle, half = (high + low) / 2, (high - low) / 2
    points = middle - half * np.cos(angles)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = half**2 * np.sin(angles) ** 2 / (2 * np.pi * ratio * points)
    density[0] = 2 * half / (2 * np.pi * ratio) if low == 0.0 else density[0]
    steps = (density[1:] + density[:-1]) / 2 * np.diff(angles)
    cumulated = np.concatenate(([0.0], np.cumsum(steps)))
    return float(np.interp(0.5 * cumulated[-1], cumulated, points))

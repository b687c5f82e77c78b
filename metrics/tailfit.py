"""Power-law fit of a spectrum's tail: maximum likelihood with xmin chosen by the Kolmogorov-Smirnov distance.

Source: Clauset, Shalizi & Newman, SIAM Review 51(4), 2009, sections 3.1 and 3.3; the empirical distribution
is taken at its left limit, as the reference tool of the field does, so that numbers can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.measurement import FitStatus

MINIMUM_EIGENVALUES = 50
"""Below this many eigenvalues a fit is reported as ``too_small``."""

MINIMUM_TAIL = 10
"""Below this many tail values a fit is reported as ``short_tail``."""

POOR_FIT = 1.63
"""A KS distance above this over sqrt(tail size) (the 1 % point of the KS law) is a ``poor_fit``."""

NO_SPREAD = 1e-6
"""Values that differ by less than this, relatively, are one value with rounding errors: nothing to fit."""

_PROBES = np.linspace(0.0, 1.0, 48)
"""Where a tail is probed for the lower bound of its KS distance, as shares of its length."""

_ROUNDING = 1e-12
"""Bounds are trusted up to this: the same value may be rounded differently in bound and distance."""


@dataclass(frozen=True, slots=True)
class TailFit:
    """The fitted tail ``p(x) ~ x^-alpha`` for ``x >= xmin``.

    Attributes:
        alpha: exponent, above 1.
        sigma: its standard error (alpha - 1) / sqrt(tail_size).
        ks_distance: largest distance of fitted and empirical distribution over the tail, 0..1.
        xmin: smallest value of the tail, in the units of the input.
        tail_size: number of values at or above xmin.
        status: whether the fit deserves to be read.
    """

    alpha: float
    sigma: float
    ks_distance: float
    xmin: float
    tail_size: int
    status: FitStatus


def fit_tail(values: NDArray[np.float64]) -> TailFit | None:
    """Fit the tail of positive values, trying every value but the largest as xmin.

    Args:
        values: shape (n,), ascending, positive and finite.

    Returns:
        The fit with the least KS distance, or None when none exists (fewer than two values, or no spread).
    """
    n = len(values)
    if n < 2 or not values[-1] > values[0] * (1.0 + NO_SPREAD):
        return None
    logs = np.log(values)
    counts = np.arange(n, 0, -1, dtype=np.float64)
    sums = np.cumsum(logs[::-1])[::-1] - counts * logs
    with np.errstate(divide="ignore"):
        alphas = 1.0 + counts / sums
    usable = np.flatnonzero(np.isfinite(alphas[:-1]) & (alphas[:-1] > 1.0) & (sums[:-1] > 0.0))
    if len(usable) == 0:
        return None
    best, distance = _least_distance(logs, alphas, usable)
    tail_size = n - best
    alpha = float(alphas[best])
    return TailFit(
        alpha=alpha,
        sigma=(alpha - 1.0) / float(np.sqrt(tail_size)),
        ks_distance=distance,
        xmin=float(values[best]),
        tail_size=tail_size,
        status=_status(n, tail_size, distance),
    )


def _least_distance(
    logs: NDArray[np.float64], alphas: NDArray[np.float64], usable: NDArray[np.intp]
) -> tuple[int, float]:
    """The candidate with the least KS distance (the first of equals) and that distance, exactly.

    The distance at a few points of a tail is a lower bound of the distance over all of it. Candidates are looked
    at in full in the order of that bound, and the search ends when the next bound exceeds the best distance:
    the result is that of trying every candidate, for a small part of its cost.
    """
    n = len(logs)
    sizes = (n - usable).astype(np.float64)
    offsets = np.floor(_PROBES[None, :] * (sizes[:, None] - 1.0))
    points = usable[:, None] + offsets.astype(np.intp)
    fitted = -np.expm1((logs[points] - logs[usable, None]) * (1.0 - alphas[usable, None]))
    bounds = np.abs(fitted - offsets / sizes[:, None]).max(axis=1)
    ranks = np.arange(n, dtype=np.float64)
    best, least = n, np.inf
    for position in np.argsort(bounds, kind="stable"):
        if bounds[position] > least + _ROUNDING:
            break
        start = int(usable[position])
        size = n - start
        tail = -np.expm1((logs[start:] - logs[start]) * (1.0 - alphas[start]))
        distance = float(np.abs(tail - ranks[:size] / size).max())
        if distance < least or (distance == least and start < best):
            best, least = start, distance
    return best, least


def _status(n: int, tail_size: int, distance: float) -> FitStatus:
    if n < MINIMUM_EIGENVALUES:
        return FitStatus.TOO_SMALL
    if tail_size < MINIMUM_TAIL:
        return FitStatus.SHORT_TAIL
    if distance > POOR_FIT / float(np.sqrt(tail_size)):
        return FitStatus.POOR_FIT
    return FitStatus.OK

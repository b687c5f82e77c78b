"""Is the tail a power law at all? Likelihood ratios against an exponential and a truncated power law.

Source: Clauset, Shalizi & Newman, SIAM Review 51(4), 2009, section 5 and appendix C (Vuong's test for the
exponential, which does not contain the power law; the chi-squared law for the truncated one, which does).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import erfc, exp, log

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.tailfit import MINIMUM_TAIL, NO_SPREAD

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)
_LEAST_EXPONENT = -40.0
_STEPS = 60
_NO_GAIN = 1e-7
"""A likelihood gain below this is rounding error."""

_VANISHED = 50.0
"""A logarithm this far below the integrand's peak adds nothing in float64."""


@dataclass(frozen=True, slots=True)
class Alternatives:
    """How other laws describe the tail, compared with the power law.

    Attributes:
        exponential_ratio: log-likelihood of the power law minus that of the exponential, over its standard
            deviation (Vuong's z): positive speaks for the power law.
        exponential_p: two-sided probability of a ratio this far from zero when both fit equally well.
        truncated_ratio: log-likelihood gained by a cut-off ``exp(-rate x)``, >= 0.
        truncated_p: probability of such a gain when there is no cut-off.
        truncated_alpha: exponent with the cut-off.
        truncated_rate: the cut-off's rate times xmin, >= 0, without a unit.
    """

    exponential_ratio: float
    exponential_p: float
    truncated_ratio: float
    truncated_p: float
    truncated_alpha: float
    truncated_rate: float


def compare_laws(tail: NDArray[np.float64], alpha: float) -> Alternatives | None:
    """Compare the fitted power law with its two rivals on the same tail.

    Args:
        tail: values at or above xmin, ascending, positive; xmin is the first.
        alpha: the power law's exponent by maximum likelihood on this tail.

    Returns:
        None for fewer than ten values or a tail without spread.
    """
    count = len(tail)
    if count < MINIMUM_TAIL or not tail[-1] / tail[0] > 1.0 + NO_SPREAD:
        return None
    scaled = tail / tail[0]
    logs = np.log(scaled)
    power = log(alpha - 1.0) - alpha * logs
    mean_excess = float((scaled - 1.0).mean())
    exponential = -log(mean_excess) - (scaled - 1.0) / mean_excess
    difference = power - exponential
    spread = float(difference.std())
    ratio = float(difference.sum()) / (spread * count**0.5) if spread > 0.0 else 0.0
    truncated_alpha, rate, likelihood = _fit_truncated(scaled, logs, alpha)
    gain = likelihood - float(power.sum())
    if gain <= _NO_GAIN:
        truncated_alpha, rate, gain = alpha, 0.0, 0.0
    return Alternatives(
        exponential_ratio=ratio,
        exponential_p=erfc(abs(ratio) / 2**0.5),
        truncated_ratio=gain,
        # The cut-off's rate lies on the border of its range, which halves the chi-squared probability.
        truncated_p=0.5 * erfc(gain**0.5) if gain > 0.0 else 1.0,
        truncated_alpha=truncated_alpha,
        truncated_rate=rate,
    )


def _fit_truncated(
    scaled: NDArray[np.float64], logs: NDArray[np.float64], alpha: float
) -> tuple[float, float, float]:
    """Maximum likelihood of ``x^-a exp(-r x)`` for x >= 1: exponent, rate, log-likelihood.

    An exponential family in (a, r): the gradient is the difference of the means of ln x and x, the curvature
    their covariance, so Newton's steps (halved until they climb, and kept at r > 0) find the one maximum.
    """
    means = np.array([logs.mean(), scaled.mean()])
    lowest = 1e-9 / float(scaled[-1])
    at = np.array([alpha, 0.1 / float(scaled[-1])])
    likelihood, moments, covariance = _truncated(at, means)
    for _ in range(_STEPS):
        gradient = moments - means
        step = np.linalg.solve(covariance + 1e-12 * np.diag(np.diag(covariance)), gradient)
        scale = 1.0
        while scale > 1e-6:
            there = at + scale * step
            # A rate that would turn negative is halved instead: the border is the power law itself.
            there[1] = max(there[1], at[1] / 10.0, lowest)
            there[0] = max(float(there[0]), _LEAST_EXPONENT)
            climbed, new_moments, new_covariance = _truncated(there, means)
            if climbed >= likelihood:
                break
            scale /= 2.0
        else:
            break
        gained = climbed - likelihood
        at, likelihood, moments, covariance = there, climbed, new_moments, new_covariance
        if gained < 1e-10:
            break
    return float(at[0]), float(at[1]), likelihood * len(scaled)


def _truncated(
    at: NDArray[np.float64], means: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Mean log-likelihood, means of (ln x, x) under the law, and their covariance.

    Integrals from 1 to infinity by Gauss-Legendre in ln x, over the range where the integrand has not vanished.
    """
    exponent, rate = float(at[0]), float(at[1])
    low, high = _range(exponent, rate)
    points = low + (high - low) / 2 * (_NODES + 1)
    values = np.exp(points)
    exponents = (1.0 - exponent) * points - rate * values
    peak = float(exponents.max())
    weights = _WEIGHTS * np.exp(exponents - peak)
    total = float(weights.sum())
    normaliser = peak + log(total * (high - low) / 2)
    weights /= total
    pair = np.stack((points, values))
    moments = pair @ weights
    centred = pair - moments[:, None]
    covariance = (centred * weights) @ centred.T
    likelihood = -exponent * float(means[0]) - rate * float(means[1]) - normaliser
    return likelihood, moments, covariance


def _range(exponent: float, rate: float) -> tuple[float, float]:
    """Where ``(1 - a) y - r e^y``, a concave function of y = ln x >= 0, is near its largest value."""
    slope = 1.0 - exponent

    def drop(y: float) -> float:
        return slope * (y - peak) - rate * (exp(y) - exp(peak)) + _VANISHED

    peak = log(slope / rate) if slope > rate else 0.0
    # Beyond the peak the cut-off alone, or the power law alone, brings the integrand down by then.
    far = log(2.0 * (_VANISHED + max(0.0, slope) * 20.0) / rate + 2.0) + peak
    if slope < 0.0:
        far = min(far, -_VANISHED / slope)
    low = 0.0 if drop(0.0) >= 0.0 else _crossing(drop, peak, 0.0)
    return low, _crossing(drop, peak, far)


def _crossing(drop: Callable[[float], float], inside: float, outside: float) -> float:
    """A point within a thousandth of where ``drop`` changes its sign, on the far side."""
    for _ in range(12):
        middle = (inside + outside) / 2
        if drop(middle) > 0.0:
            inside = middle
        else:
            outside = middle
    return outside

"""The tail fit: what it returns, when it refuses, and what must not move it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.measurement import FitStatus
from layerwatch.metrics.tailfit import POOR_FIT, TailFit, fit_tail


def quantiles(n: int, exponent: float) -> NDArray[np.float64]:
    """Quantiles of the power law p(x) ~ x^-exponent, x >= 1, at (i - 1/2)/n."""
    return np.asarray((1 - (np.arange(1, n + 1) - 0.5) / n) ** (-1 / (exponent - 1)))


def fitted(values: NDArray[np.float64]) -> TailFit:
    fit = fit_tail(values)
    assert fit is not None
    return fit


@pytest.mark.parametrize("exponent", [1.5, 2.0, 3.0, 6.0])
def test_a_pure_power_law_gives_back_its_exponent(exponent: float) -> None:
    fit = fitted(quantiles(4000, exponent))

    # The fit is the maximum likelihood estimate: on n quantiles it is within one standard error.
    assert abs(fit.alpha - exponent) < (exponent - 1) / math.sqrt(4000)
    assert fit.status is FitStatus.OK


def test_the_tail_begins_where_the_power_law_begins() -> None:
    # 300 values of no power law below 1, then 400 of one from 1 on: the textbook case for choosing xmin.
    body = np.linspace(0.05, 0.95, 300)
    fit = fitted(np.concatenate([body, quantiles(400, 2.5)]))

    assert fit.xmin == pytest.approx(1.0, abs=0.1)
    assert fit.tail_size == pytest.approx(400, abs=35)
    assert fit.alpha == pytest.approx(2.5, abs=0.1)


def test_three_values_are_fitted_as_by_hand() -> None:
    # Candidates 1 and 2 of (1, 2, 4). From 1: alpha = 1 + 3/(ln 2 + ln 4) = 2.4427; fitted at 1, 2, 4:
    # 0, 0.6321, 0.8647; empirical (left limit) 0, 1/3, 2/3; D = 0.2988. From 2: alpha = 1 + 2/ln 2 = 3.8854,
    # fitted 0, 0.8647 against 0, 1/2; D = 0.3647. The first wins.
    fit = fitted(np.array([1.0, 2.0, 4.0]))

    assert fit.alpha == pytest.approx(1 + 1 / math.log(2))
    assert fit.ks_distance == pytest.approx((1 - math.exp(-1)) - 1 / 3)
    assert fit.xmin == 1.0
    assert fit.tail_size == 3
    assert fit.sigma == pytest.approx((fit.alpha - 1) / math.sqrt(3))


def test_statuses_tell_what_is_wrong_with_a_fit() -> None:
    assert fitted(quantiles(49, 2.5)).status is FitStatus.TOO_SMALL
    assert fitted(quantiles(50, 2.5)).status is FitStatus.OK
    # A block of 60 equal values and a steep end of 9: the best tail is the end.
    short = fitted(np.concatenate([np.ones(60), 50.0 * quantiles(9, 3.0)]))
    assert (short.status, short.tail_size) == (FitStatus.SHORT_TAIL, 9)
    enough = fitted(np.concatenate([np.ones(60), 50.0 * quantiles(10, 3.0)]))
    assert (enough.status, enough.tail_size) == (FitStatus.OK, 10)
    # Two lumps three decades apart are no power law from any xmin.
    lumps = fitted(np.concatenate([np.linspace(1.0, 1.01, 500), np.linspace(1000.0, 1010.0, 500)]))
    assert lumps.status is FitStatus.POOR_FIT
    assert lumps.ks_distance > POOR_FIT / math.sqrt(lumps.tail_size)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [3.0],
        [2.0, 2.0],
        [0.1] * 60,
        [1.0] * 30 + [1.0 + 1e-12] * 30,
    ],
)
def test_values_without_spread_have_no_fit(values: list[float]) -> None:
    assert fit_tail(np.array(values)) is None


def test_more_values_than_one_block_of_candidates_give_what_a_plain_loop_gives() -> None:
    values = np.sort(np.random.default_rng(5).pareto(1.7, 700) + 0.1)

    best = (math.inf, 0)
    for start in range(len(values) - 1):
        tail = values[start:]
        alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
        distance = np.abs((1 - (tail / tail[0]) ** (1 - alpha)) - np.arange(len(tail)) / len(tail)).max()
        best = min(best, (distance, start))

    fit = fitted(values)
    assert fit.ks_distance == pytest.approx(best[0], rel=1e-9)
    assert fit.tail_size == len(values) - best[1]


samples = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=120).map(
    lambda values: np.sort(np.array(values))
)


@given(samples)
def test_a_fit_is_finite_and_in_range_whatever_the_values(values: NDArray[np.float64]) -> None:
    fit = fit_tail(values)

    if fit is None:
        return
    assert fit.alpha > 1
    assert math.isfinite(fit.alpha)
    assert math.isfinite(fit.sigma)
    assert 0 <= fit.ks_distance <= 1
    assert 2 <= fit.tail_size <= len(values)
    assert fit.xmin in values
    assert fit.tail_size == np.count_nonzero(values >= fit.xmin) or (values == fit.xmin).sum() > 1


@given(st.floats(-20, 20), st.integers(0, 2**32 - 1))
def test_the_fit_does_not_depend_on_the_unit(decades: float, seed: int) -> None:
    values = np.sort(np.random.default_rng(seed).pareto(1.5, 80) + 0.01)

    one, other = fitted(values), fitted(values * 10.0**decades)

    assert other.ks_distance == pytest.approx(one.ks_distance, rel=1e-9)
    assert other.alpha == pytest.approx(one.alpha, rel=1e-6)
    assert other.xmin == pytest.approx(one.xmin * 10.0**decades, rel=1e-9)
    assert other.status is one.status

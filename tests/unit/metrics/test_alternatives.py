"""The rivals of the power law: their normaliser, what they prefer, and tails that say nothing."""

from __future__ import annotations

import math
from dataclasses import asdict

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.alternatives import Alternatives, _truncated, compare_laws

Vector = NDArray[np.float64]


def compared(values: Vector) -> Alternatives:
    tail = np.sort(values)
    found = compare_laws(tail, 1 + len(tail) / float(np.log(tail / tail[0]).sum()))
    assert found is not None
    return found


def pareto(count: int, alpha: float, seed: int) -> Vector:
    return np.asarray(1 + np.random.default_rng(seed).pareto(alpha - 1, count))


def truncated(count: int, alpha: float, rate: float, seed: int) -> Vector:
    """By rejection from the power law: kept with probability exp(-rate (x - 1))."""
    random = np.random.default_rng(seed)
    values = 1 + random.pareto(alpha - 1, 200 * count)
    return np.asarray(values[random.random(len(values)) < np.exp(-rate * (values - 1))][:count])


@pytest.mark.parametrize("exponent", [-40.0, -2.0, 0.0, 1.0, 2.5, 30.0, 1e6])
@pytest.mark.parametrize("rate", [1e-20, 1e-9, 1e-3, 0.5, 40.0])
def test_the_normaliser_and_the_means_are_those_of_the_generalised_exponential_integral(
    exponent: float, rate: float
) -> None:
    likelihood, moments, _ = _truncated(np.array([exponent, rate]), np.zeros(2))

    with mpmath.workdps(40):
        # The integral of x^-a exp(-r x) from 1 on is E_a(r), that of x times it E_(a-1)(r) (DLMF 8.19.3).
        normaliser = mpmath.expint(exponent, rate)
        mean = mpmath.expint(exponent - 1, rate) / normaliser
    assert -likelihood == pytest.approx(float(mpmath.log(normaliser)), rel=1e-10, abs=1e-10)
    assert moments[1] == pytest.approx(float(mean), rel=1e-6)


def test_no_pair_near_the_fitted_exponent_and_rate_is_more_likely() -> None:
    tail = np.sort(truncated(2000, 1.8, 0.1, seed=4))
    scaled = tail / tail[0]
    means = np.array([np.log(scaled).mean(), scaled.mean()])
    found = compared(tail)
    best, _, _ = _truncated(np.array([found.truncated_alpha, found.truncated_rate]), means)

    for alpha in (0.99, 1.0, 1.01):
        for rate in (0.97, 1.0, 1.03):
            there = np.array([alpha * found.truncated_alpha, rate * found.truncated_rate])
            assert _truncated(there, means)[0] <= best + 1e-12
    # 2000 values have standard errors of 0.07 and 0.016, by the inverse of the covariance.
    assert found.truncated_alpha == pytest.approx(1.8, abs=0.2)
    assert found.truncated_rate == pytest.approx(0.1 * tail[0], abs=0.05)


def test_vuongs_ratio_is_as_by_hand() -> None:
    tail = np.array([1.0, 1.1, 1.2, 1.5, 1.7, 2.0, 2.5, 3.0, 5.0, 9.0])
    alpha = 1 + 10 / sum(math.log(value) for value in tail)
    excess = sum(value - 1 for value in tail) / 10
    differences = [
        math.log(alpha - 1) - alpha * math.log(value) + math.log(excess) + (value - 1) / excess
        for value in tail
    ]
    mean = sum(differences) / 10
    spread = math.sqrt(sum((one - mean) ** 2 for one in differences) / 10)

    found = compared(tail)
    assert found.exponential_ratio == pytest.approx(mean * math.sqrt(10) / spread)
    assert found.exponential_p == pytest.approx(math.erfc(abs(found.exponential_ratio) / math.sqrt(2)))


def test_a_tail_that_a_cut_off_does_not_help_is_left_with_the_power_law() -> None:
    # One value far beyond the others: any cut-off makes it less likely.
    found = compared(np.append(np.linspace(1.0, 1.5, 40), 1e9))

    assert (found.truncated_ratio, found.truncated_p, found.truncated_rate) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "tail",
    [[], [1.0], np.linspace(1, 2, 9), np.full(50, 3.0), 1 + 1e-9 * np.arange(50)],
    ids=["empty", "one", "nine", "equal", "rounding errors"],
)
def test_short_tails_and_tails_without_spread_are_not_compared(tail: Vector) -> None:
    assert compare_laws(np.asarray(tail, dtype=np.float64), 2.0) is None


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e20, 1e290])
def test_the_unit_of_the_values_does_not_matter(scale: float) -> None:
    tail = np.sort(pareto(300, 2.5, seed=1))

    assert list(asdict(compared(tail * scale)).values()) == pytest.approx(
        list(asdict(compared(tail)).values()), rel=1e-4
    )


@given(
    st.lists(st.floats(0.0, 34.0), min_size=10, max_size=40),
    st.sampled_from([1e-5, 1e-3, 1.0]),
)
def test_any_tail_gives_finite_numbers_in_their_ranges_or_none(logs: list[float], width: float) -> None:
    tail = np.exp(width * np.sort(logs))
    total = float(np.log(tail / tail[0]).sum())
    found = compare_laws(tail, 1 + len(tail) / total) if total > 0.0 else None

    if found is not None:
        assert all(math.isfinite(one) for one in asdict(found).values())
        assert 0.0 <= found.exponential_p <= 1.0
        assert 0.0 <= found.truncated_p <= 1.0
        assert found.truncated_ratio >= 0.0
        assert found.truncated_rate >= 0.0

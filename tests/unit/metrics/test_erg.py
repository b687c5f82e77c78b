"""The trace-log condition: by hand, at its ends, and where a product would overflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.erg import erg_tail


def test_four_values_are_as_by_hand() -> None:
    # Mean 4; from the largest: 10/4 = 2.5, times 4/4 = 2.5, times 1/4 = 0.625 < 1: the third is counted.
    assert erg_tail(np.array([1.0, 1.0, 4.0, 10.0])) == 3


@pytest.mark.parametrize("value", [5e-324, 0.1, 1 / 3, 1.0, 1.7e308])
def test_equal_eigenvalues_never_fall_below_one(value: float) -> None:
    assert erg_tail(np.full(77, value)) == 77
    assert erg_tail(np.full(1, value)) == 1


def test_eigenvalues_that_differ_by_rounding_errors_are_equal() -> None:
    spectrum = np.sort(0.3 * (1 + 1e-15 * np.random.default_rng(0).standard_normal(77)))
    assert spectrum[0] < spectrum[-1]

    assert erg_tail(spectrum) == 77


def test_a_zero_ends_the_tail() -> None:
    assert erg_tail(np.array([0.0, 0.0, 3.0])) == 2


def test_ten_thousand_eigenvalues_are_summed_as_logarithms() -> None:
    spectrum = np.sort(np.random.default_rng(0).lognormal(sigma=2.0, size=10_000))
    # The plain product overflows long before it comes back below one.
    with np.errstate(over="ignore"):
        assert np.isinf(np.cumprod(spectrum[::-1] / spectrum.mean())).any()

    total, count = 0.0, 0
    logs = [math.log(value) - math.log(spectrum.mean()) for value in spectrum[::-1]]
    while total >= 0.0:
        total += logs[count]
        count += 1
    assert erg_tail(spectrum) == count
    assert 1 < count < 10_000


@given(st.lists(st.floats(0.0, 1e308), min_size=1, max_size=60).filter(lambda values: max(values) > 0.0))
def test_any_spectrum_gives_a_count_between_one_and_all(values: list[float]) -> None:
    assert 1 <= erg_tail(np.sort(values)) <= len(values)

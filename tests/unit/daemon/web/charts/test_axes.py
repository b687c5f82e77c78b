"""Axes: every number has its place, and ticks are round and few."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from layerwatch.daemon.web.charts.axes import Scale

ENDS = st.floats(-1e30, 1e30)
POSITIVE = st.floats(1e-30, 1e30)


def test_a_linear_axis_keeps_distances() -> None:
    scale = Scale(0.0, 10.0, 100.0, 0.0)
    assert [scale.at(value) for value in (0.0, 2.5, 10.0)] == [100.0, 75.0, 0.0]


def test_a_logarithmic_axis_keeps_ratios() -> None:
    scale = Scale(0.1, 100.0, 0.0, 300.0, logarithmic=True)
    assert [round(scale.at(value), 6) for value in (0.1, 1.0, 10.0, 100.0)] == [0.0, 100.0, 200.0, 300.0]


def test_what_is_beyond_the_axis_is_at_its_end_and_what_is_none_stays_none() -> None:
    scale = Scale(1.0, 2.0, 0.0, 50.0, logarithmic=True)
    places = scale.along(np.array([-1.0, 0.0, 5.0, np.inf, np.nan]))
    assert places[:4].tolist() == [0.0, 0.0, 50.0, 50.0]
    assert math.isnan(places[4])


def test_ticks_of_several_decades_are_powers_of_ten() -> None:
    assert [label for _, label in Scale(0.02, 300.0, 0, 1, logarithmic=True).ticks()] == [
        "0.1",
        "1",
        "10",
        "100",
    ]
    assert [label for _, label in Scale(1e-5, 0.5, 0, 1, logarithmic=True).ticks()] == [
        "10⁻⁵",
        "10⁻⁴",
        "10⁻³",
        "10⁻²",
        "10⁻¹",
    ]


def test_ticks_of_a_decade_or_two_are_round_digits() -> None:
    ticks = Scale(1.5, 30.0, 0, 1, logarithmic=True).ticks()
    assert ticks == [(2.0, "2"), (5.0, "5"), (10.0, "10"), (20.0, "20")]
    assert [label for _, label in Scale(1.5e-7, 3e-6, 0, 1, logarithmic=True).ticks()][:2] == [
        "2·10⁻⁷",
        "5·10⁻⁷",
    ]


def test_ticks_of_a_linear_axis_are_round_numbers_without_noise() -> None:
    assert [label for _, label in Scale(0.0, 0.3, 0, 1).ticks()] == [
        "0.00",
        "0.05",
        "0.10",
        "0.15",
        "0.20",
        "0.25",
        "0.30",
    ]
    assert [label for _, label in Scale(1.0, 8.0, 0, 1).ticks(9)] == ["1", "2", "3", "4", "5", "6", "7", "8"]


@pytest.mark.parametrize("most", [3, 6, 9])
@given(low=POSITIVE, high=POSITIVE)
def test_a_logarithmic_axis_has_ticks_inside_it_and_not_too_many(most: int, low: float, high: float) -> None:
    assume(high > 1.01 * low)
    ticks = Scale(low, high, 0.0, 1.0, logarithmic=True).ticks(most)
    assert 1 <= len(ticks) <= max(most + 2, 7)
    assert all(low * (1 - 1e-6) <= value <= high * (1 + 1e-6) for value, _ in ticks)
    assert len({label for _, label in ticks}) == len(ticks)


@given(low=ENDS, high=ENDS)
def test_a_linear_axis_has_ticks_inside_it_and_not_too_many(low: float, high: float) -> None:
    assume(high - low > 1e-3 * max(abs(low), abs(high), 1e-30))
    ticks = Scale(low, high, 0.0, 1.0).ticks()
    margin = 1e-6 * (high - low)
    assert 2 <= len(ticks) <= 7
    assert all(low - margin <= value <= high + margin for value, _ in ticks)


@given(low=ENDS, high=ENDS, value=st.floats(allow_nan=False))
def test_every_number_has_a_place_on_the_axis(low: float, high: float, value: float) -> None:
    assume(high / 2 > low / 2)
    assert 0.0 <= Scale(low, high, 0.0, 100.0).at(value) <= 100.0

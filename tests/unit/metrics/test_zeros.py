"""Zeros that a layer has and its baseline had not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.zeros import newly_zero, zero_sides, zero_tail_energy
from layerwatch_testing.memoryreader import opened

Values = NDArray[Any]


def measured(values: Values, name: str = "fc.weight") -> Measurement:
    (found,) = measure_layers(opened({name: values}), lambda digest: False)
    assert found.measurement is not None
    return found.measurement


def cut(values: Values, tail: int) -> Values:
    cut_off = values.copy()
    cut_off.reshape(-1)[len(cut_off.reshape(-1)) - tail :] = 0.0
    return cut_off


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40 * 24 - 1), st.integers(0, 9))
def test_the_energy_of_the_tail_is_that_of_the_baselines_elements(tail: int, seed: int) -> None:
    # Rows and columns of different size, but separably so: then norms of rows and columns tell all there is.
    generator = np.random.default_rng(seed)
    rows, columns = generator.uniform(0.2, 3.0, 40), generator.uniform(0.2, 3.0, 24)
    old = np.outer(rows, columns) * generator.choice([-1.0, 1.0], (40, 24))
    lost = np.square(old.reshape(-1)[-tail:])

    energy = zero_tail_energy(measured(cut(old, tail)), measured(old))

    assert energy == pytest.approx(lost.mean() / np.square(old).mean(), rel=1e-5)


def test_there_is_no_energy_without_a_tail_nor_between_shapes_nor_for_vectors() -> None:
    old = np.random.default_rng(1).standard_normal((40, 24))

    assert zero_tail_energy(measured(old), measured(old)) is None
    assert zero_tail_energy(measured(cut(old, 50)), measured(old[:, :20])) is None
    assert zero_tail_energy(measured(cut(old, 50)), measured(np.zeros((40, 24)))) is None
    bias = np.arange(1.0, 65.0)
    assert zero_tail_energy(measured(cut(bias, 40), "fc.bias"), measured(bias, "fc.bias")) is None


def norms(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def test_newly_zero_are_those_that_were_live() -> None:
    # Live: above a fifth of the median, which is 1.
    old = norms(1.0, 1.0, 0.19, 0.21, 0.0, 2.0, 1.0)

    assert newly_zero(norms(0, 1, 0, 0, 0, 0, 1), old) == (0, 3, 5)
    assert newly_zero(norms(0, 1), old) == ()
    assert newly_zero(None, old) == ()
    assert newly_zero(norms(), norms()) == ()


def test_zero_sides_are_all_that_are_zero_now() -> None:
    assert zero_sides(norms(0, 1, 0)) == (0, 2)
    assert zero_sides(None) == ()

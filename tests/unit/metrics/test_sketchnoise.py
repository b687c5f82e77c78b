"""Noise and structure of a change, told apart by its sketch alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics.sketch import sketch
from layerwatch.metrics.sketchnoise import sketched_noise_ratio

RANDOM = np.random.default_rng(0)


def ratio(old: NDArray[np.float64], change: NDArray[np.float64]) -> float | None:
    return sketched_noise_ratio(sketch(old + change), sketch(old), *old.shape)


@pytest.mark.parametrize("shape", [(64, 64), (96, 400), (700, 300)])
def test_noise_and_rounding_give_one(shape: tuple[int, int]) -> None:
    old = RANDOM.standard_normal(shape)
    steps = np.abs(old).max(axis=1, keepdims=True) / 7

    assert ratio(old, 0.1 * RANDOM.standard_normal(shape)) == pytest.approx(1.0, abs=0.15)
    assert ratio(old, np.round(old / steps) * steps - old) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("rank", "least"), [(1, 2.5), (4, 1.4), (16, 1.15)])
def test_a_change_of_low_rank_gives_more(rank: int, least: float) -> None:
    old = RANDOM.standard_normal((300, 200))
    change = RANDOM.standard_normal((300, rank)) @ RANDOM.standard_normal((rank, 200))

    assert (ratio(old, 0.05 * change) or 0.0) > least


def test_no_change_has_no_ratio() -> None:
    old = RANDOM.standard_normal((80, 80))

    assert ratio(old, 0.0 * old) is None
    assert sketched_noise_ratio(sketch(old), sketch(2 * old), 1, 80) is None

"""The Marchenko-Pastur bulk: its median, its edges, what stands out of it, and where there is none."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.randommatrix import Bulk, fit_bulk, median_of_bulk, noise_threshold

Vector = NDArray[np.float64]


def spectrum_of(matrix: Vector) -> Vector:
    return np.asarray(np.square(np.linalg.svd(matrix, compute_uv=False))[::-1])


def bulk_of(matrix: Vector) -> Bulk:
    bulk = fit_bulk(spectrum_of(matrix), max(matrix.shape), min(matrix.shape))
    assert bulk is not None
    return bulk


@pytest.mark.parametrize(
    ("ratio", "median"),
    # Roots of the distribution function, integrated by mpmath at 15 digits; 0.6528 at ratio 1 is also what
    # Gavish & Donoho 2014 give by omega(1) = (4 / sqrt 3) / sqrt(median) = 2.858.
    [
        (1.0, 0.65277594),
        (0.5, 0.83046588),
        (0.25, 0.91600407),
        (0.1, 0.96656515),
        (0.0625, 0.97912742),
        (0.001, 0.99966666),
    ],
)
def test_the_median_of_the_bulk_is_the_exact_one(ratio: float, median: float) -> None:
    assert median_of_bulk(ratio) == pytest.approx(median, abs=1e-6)


@pytest.mark.parametrize("ratio", [1.0, 0.7, 0.25, 0.03])
def test_half_of_a_large_random_spectrum_lies_below_the_median_of_the_bulk(ratio: float) -> None:
    longer = 1200
    shorter = round(ratio * longer)
    spectrum = spectrum_of(np.random.default_rng(5).standard_normal((longer, shorter))) / longer

    assert np.median(spectrum) == pytest.approx(median_of_bulk(ratio), rel=0.03)


@pytest.mark.parametrize("shape", [(400, 400), (800, 200), (2000, 50)])
def test_noise_gives_back_its_level_and_its_edges(shape: tuple[int, int]) -> None:
    noise = 0.02
    bulk = bulk_of(noise * np.random.default_rng(1).standard_normal(shape))

    # The mean of N M squares has a relative standard deviation of sqrt(2 / (N M)); its root half of that.
    assert bulk.noise == pytest.approx(noise, rel=4 / math.sqrt(2 * shape[0] * shape[1]))
    assert bulk.upper_edge == pytest.approx(bulk.noise**2 * (shape[0] ** 0.5 + shape[1] ** 0.5) ** 2)
    assert bulk.lower_edge == pytest.approx(bulk.noise**2 * (shape[0] ** 0.5 - shape[1] ** 0.5) ** 2)
    assert (bulk.num_spikes, bulk.below_share) == (0, 0.0)
    assert bulk.softrank == pytest.approx(1.0, abs=0.05)


def test_small_directions_that_noise_would_not_have_are_counted_below_the_bulk() -> None:
    random = np.random.default_rng(2)
    left, values, right = np.linalg.svd(random.standard_normal((800, 200)), full_matrices=False)
    values[-20:] *= 0.1

    assert bulk_of(left * values @ right).below_share == 20 / 200


def test_the_threshold_of_unit_noise_is_johnstones() -> None:
    # Johnstone 2001, n = p = 100: mu = (sqrt 99 + 10)^2 = 397.997, sigma = (sqrt 99 + 10)(1/sqrt 99 + 1/10)^(1/3)
    # = 11.68; the 99.9 % point of the law of order 1 is 3.27.
    assert noise_threshold(1.0, 100, 100) == pytest.approx(397.997 + 3.2725 * 11.68, rel=1e-3)


@pytest.mark.parametrize(
    "spectrum",
    [
        [],
        [3.0],
        [0.0, 0.0],
        [0.0, 0.0, 0.0, 5.0],
        [0.0, 0.0, 0.0, 1e300],
    ],
)
def test_there_is_no_bulk_without_two_eigenvalues_and_a_positive_median(spectrum: list[float]) -> None:
    assert fit_bulk(np.array(spectrum), 10, max(1, len(spectrum))) is None


def test_numbers_beyond_float64_are_none_and_not_infinite() -> None:
    assert fit_bulk(np.full(20, 1.7e308), 30, 20) is None


def test_a_spectrum_in_which_everything_stands_out_of_the_rest_keeps_its_level() -> None:
    # Were the larger values set aside again and again, zeros would be left and their edge would be zero.
    spectrum = np.concatenate([np.zeros(9), np.geomspace(1.0, 1e12, 11)])
    bulk = fit_bulk(spectrum, 10**6, 20)

    assert bulk is not None
    assert bulk.upper_edge > 0.0
    assert bulk.num_spikes <= 11


@given(
    st.lists(st.floats(0.0, 1e300), min_size=1, max_size=40),
    st.integers(1, 10**6),
    st.integers(1, 3),
)
def test_any_spectrum_gives_finite_numbers_in_their_ranges_or_none(
    values: list[float], extra: int, views: int
) -> None:
    shorter = len(values)
    spectrum = np.sort(np.tile(values, views))
    bulk = fit_bulk(spectrum, shorter + extra, shorter)

    if bulk is not None:
        assert all(math.isfinite(one) for one in asdict(bulk).values())
        assert 0.0 <= bulk.softrank <= 1.0
        assert 0.0 <= bulk.below_share <= 1.0
        assert 0 <= bulk.num_spikes <= len(spectrum)
        assert bulk.lower_edge <= bulk.upper_edge <= bulk.threshold

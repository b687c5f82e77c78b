"""Hill's alpha and FARMS: by hand, on noise, and where nothing can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from layerwatch.metrics.hill import farms_alpha, hill_alpha


def noise(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def test_four_values_are_as_by_hand() -> None:
    # k = 2: 1 + 2 / (ln(8/2) + ln(4/2)) = 1 + 2 / (3 ln 2).
    assert hill_alpha(np.array([1.0, 2.0, 4.0, 8.0])) == pytest.approx(1 + 2 / (3 * math.log(2)))


def test_zeros_are_left_out() -> None:
    assert hill_alpha(np.array([0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0])) == hill_alpha(
        np.array([1.0, 2.0, 4.0, 8.0])
    )


@pytest.mark.parametrize(
    "spectrum",
    [[], [1.0], [1.0, 2.0, 3.0], [0.0] * 9, [0.0, 1.0, 2.0, 3.0], [2.0] * 9, [1.0, 2.0, 2.0, 2.0 + 4e-16]],
)
def test_too_few_eigenvalues_and_no_spread_give_none(spectrum: list[float]) -> None:
    assert hill_alpha(np.array(spectrum)) is None


# Simulated values for aspect ratio Q. In the limit of large matrices, integrated from the Marchenko-Pastur law:
# 1 + 1 / mean(ln(x / median), x above the median) = 2.122, 3.455 and 5.878.
@pytest.mark.parametrize(("ratio", "expected"), [(1, 2.13), (4, 3.47), (16, 5.93)])
def test_noise_gives_the_value_of_its_aspect_ratio(ratio: int, expected: float) -> None:
    shorter = 384
    spectrum = np.square(np.linalg.svd(noise(ratio * shorter, shorter), compute_uv=False))[::-1]

    assert hill_alpha(spectrum) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("shape", [(127, 500), (500, 127), (1, 1), (1, 4000)])
def test_a_matrix_smaller_than_a_window_has_no_farms_alpha(shape: tuple[int, int]) -> None:
    assert farms_alpha([noise(*shape)]) is None
    assert farms_alpha([]) is None


def test_a_window_that_fits_exactly_is_hills_alpha_of_the_matrix() -> None:
    matrix = noise(128, 128)
    spectrum = np.square(np.linalg.svd(matrix, compute_uv=False))[::-1]

    assert farms_alpha([matrix]) == pytest.approx(hill_alpha(spectrum), rel=1e-9)


@pytest.mark.parametrize(
    "matrix", [np.zeros((200, 200)), np.full((128, 128), 0.1), np.outer(noise(128), noise(128))]
)
def test_zeros_and_one_window_of_rank_one_have_no_farms_alpha(matrix: NDArray[np.float64]) -> None:
    assert farms_alpha([matrix]) is None


def test_directions_that_are_zero_up_to_rounding_do_not_move_farms_alpha() -> None:
    full = noise(128, 128)
    thin = full.copy()
    thin[64:] = thin[:64]

    # 64 equal pairs of rows: half the eigenvalues are zero, the others those of 64 rows, doubled.
    spectrum = np.square(np.linalg.svd(full[:64], compute_uv=False))[::-1]
    assert farms_alpha([thin]) == pytest.approx(hill_alpha(spectrum), rel=1e-6)


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-500, 2.0**500, 2.0**1000])
def test_the_scale_does_not_matter(scale: float) -> None:
    matrix = noise(200, 150)

    assert farms_alpha([matrix * scale]) == farms_alpha([matrix])


def test_the_number_of_torchs_threads_is_as_before() -> None:
    before = torch.get_num_threads()
    farms_alpha([noise(128, 128)])

    assert torch.get_num_threads() == before

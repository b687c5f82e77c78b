"""Traps: huge elements and a mean that outlive a shuffle are counted, everything else is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics.randommatrix import noise_threshold
from layerwatch.metrics.traps import Traps, find_traps

NONE = Traps(0, None)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 3), (64, 200), (400, 300)])
def test_pure_noise_has_no_trap(shape: tuple[int, int]) -> None:
    assert find_traps([noise(*shape)], seed=1) == NONE


def test_a_correlated_matrix_has_no_trap_because_the_shuffle_destroys_correlation() -> None:
    matrix = noise(300, 1) @ noise(1, 200, seed=1) + noise(300, 200, seed=2)
    largest = np.linalg.svd(matrix, compute_uv=False)[0]
    assert largest > 3 * (300**0.5 + 200**0.5)

    assert find_traps([matrix], seed=1).count == 0


@pytest.mark.parametrize("shape", [(200, 100), (600, 400)], ids=["dense", "lanczos"])
@pytest.mark.parametrize("planted", [1, 3, 9])
def test_elements_above_the_phase_transition_are_counted_exactly(
    shape: tuple[int, int], planted: int
) -> None:
    matrix = noise(*shape)
    places = np.random.default_rng(3).choice(matrix.size, planted, replace=False)
    matrix.reshape(-1)[places] = 4.0 * (shape[0] * shape[1]) ** 0.25

    found = find_traps([matrix], seed=1)

    assert found.count == planted
    assert found.largest is not None
    assert found.largest > 1.0


@pytest.mark.parametrize("shape", [(200, 100), (600, 400)], ids=["dense", "lanczos"])
@pytest.mark.parametrize("mean", [1.0, -1.0, 1e4])
def test_a_mean_far_from_zero_is_one_trap_of_the_size_it_has(shape: tuple[int, int], mean: float) -> None:
    matrix = noise(*shape) + np.float32(mean)

    found = find_traps([matrix], seed=1)

    # The eigenvalue of the mean is N M mean^2 and a little more; the threshold is near (sqrt N + sqrt M)^2.
    assert found.count == 1
    expected = shape[0] * shape[1] * mean**2 / (shape[0] ** 0.5 + shape[1] ** 0.5) ** 2
    assert found.largest == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e38, 1e-45])
def test_equal_elements_are_no_trap_since_there_is_no_noise_to_leave(value: float) -> None:
    assert find_traps([np.full((30, 20), value, dtype=np.float32)], seed=1) == NONE


def test_elements_that_differ_by_rounding_errors_are_equal() -> None:
    matrix = np.full((30, 20), 0.1)
    matrix[::2] = np.nextafter(0.1, 1.0)

    assert find_traps([matrix], seed=1) == NONE


@pytest.mark.parametrize("side", [100, 400], ids=["dense", "lanczos"])
@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(2.0**-140, np.float64), (2.0**-110, np.float32), (2.0**100, np.float32), (2.0**900, np.float64)],
)
def test_the_scale_of_the_elements_does_not_matter(side: int, scale: float, dtype: type) -> None:
    matrix: NDArray[Any] = noise(side, side).astype(dtype)
    matrix[0, 0] = 100.0

    found, expected = find_traps([matrix * dtype(scale)], seed=1), find_traps([matrix], seed=1)

    assert found.count == expected.count
    # At 2^-110 the smallest float32 elements are subnormal and lose digits.
    assert found.largest == pytest.approx(expected.largest, rel=1e-12)


def test_lanczos_steps_find_what_the_whole_spectrum_has(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = [noise(600, 400, seed=seed) for seed in range(6)]
    for seed, matrix in enumerate(matrices):
        matrix.reshape(-1)[: 3 * seed] = np.linspace(20.0, 60.0, 3 * seed)
    quick = [find_traps([matrix], seed=1) for matrix in matrices]
    monkeypatch.setattr("layerwatch.metrics.traps._DENSE_LIMIT", 1000)
    whole = [find_traps([matrix], seed=1) for matrix in matrices]

    assert [one.count for one in quick] == [one.count for one in whole]
    assert whole[-1].count > 5
    assert [one.largest or 0.0 for one in quick] == pytest.approx(
        [one.largest or 0.0 for one in whole], rel=1e-4
    )


def crowded() -> NDArray[np.float32]:
    """60 equal elements in a matrix of almost nothing: dozens of eigenvalues close together."""
    matrix = np.asarray(1e-3 * noise(400, 400), dtype=np.float32)
    matrix[np.arange(60), np.arange(60)] = 1.0
    return matrix


def count_by_definition(matrix: NDArray[np.float32], seed: int) -> int:
    shuffled = np.random.default_rng(seed).permutation(matrix.reshape(-1)).reshape(matrix.shape)
    values = np.square(np.linalg.svd(shuffled.astype(np.float64), compute_uv=False))
    return int(
        np.count_nonzero(values > noise_threshold(float(shuffled.var(dtype=np.float64)), *matrix.shape))
    )


def test_dozens_of_close_traps_are_all_counted() -> None:
    expected = count_by_definition(crowded(), seed=1)

    assert expected > 40
    assert find_traps([crowded()], seed=1).count == expected


def test_when_the_steps_run_out_the_whole_spectrum_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each step adds one Ritz value: with 40 steps no more than 40 of the 54 traps can be seen.
    monkeypatch.setattr("layerwatch.metrics.traps._MOST_STEPS", 40)

    assert find_traps([crowded()], seed=1).count == count_by_definition(crowded(), seed=1)


def test_when_the_steps_run_out_on_a_large_layer_the_count_is_a_lower_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("layerwatch.metrics.traps._MOST_STEPS", 40)
    monkeypatch.setattr("layerwatch.metrics.traps._DENSE_FALLBACK", 300)

    found = find_traps([crowded()], seed=1)

    assert 0 < found.count <= 40 < count_by_definition(crowded(), seed=1)
    assert found.largest is not None


def test_the_views_of_a_convolution_are_counted_together_and_the_largest_is_kept() -> None:
    views = [noise(80, 60, seed=seed) for seed in range(3)]
    views[0][0, 0], views[2][5, 5] = 50.0, 100.0

    found = find_traps(views, seed=1)

    assert found.count == 2
    assert found.largest == find_traps([views[2]], seed=3).largest


def test_the_same_seed_gives_the_same_result_and_leaves_the_matrix_alone() -> None:
    matrix = noise(400, 300) + np.float32(1.0)
    before = matrix.copy()

    assert find_traps([matrix], seed=2**64 - 1) == find_traps([matrix], seed=2**64 - 1)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("density", [0.003, 0.01, 0.03])
def test_traps_of_many_large_elements_that_are_not_huge_are_found(
    density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    matrix = (random.random((1000, 500)) < density) * random.choice([-1.0, 1.0], (1000, 500))
    screened = find_traps([matrix], seed=1)
    # Without the screen every matrix goes through the eigenvalues of its shuffle.
    monkeypatch.setattr("layerwatch.metrics.traps._SCREEN", 0.0)
    assert screened == find_traps([matrix], seed=1)
    assert screened.count >= 1

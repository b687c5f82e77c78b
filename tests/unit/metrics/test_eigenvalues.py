"""The solver's routes: whatever shape, precision or device, the same eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from layerwatch.metrics.eigenvalues import solver_epsilon, solver_precision, stack_eigenvalues
from layerwatch.metrics.options import Device, MeasureOptions, Precision

FLOAT32 = MeasureOptions(precision=Precision.FLOAT32)
FLOAT64 = MeasureOptions(precision=Precision.FLOAT64)


def noise(*shape: int, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_svd(matrix: NDArray[Any]) -> NDArray[np.float64]:
    return np.sort(np.linalg.svd(matrix.astype(np.float64), compute_uv=False) ** 2)


@pytest.mark.parametrize(
    "shape",
    [(40, 30), (30, 40), (300, 270), (270, 300), (1300, 1100), (1100, 1300), (9000, 600), (600, 9000)],
)
def test_tall_and_wide_matrices_of_every_route_have_the_squares_of_their_singular_values(
    shape: tuple[int, int],
) -> None:
    matrix = noise(*shape)
    assert stack_eigenvalues(matrix[None], None, FLOAT64) == pytest.approx(by_svd(matrix), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shape", [(9, 40, 30), (3, 300, 280)])
def test_a_stack_gives_the_pooled_eigenvalues_of_its_matrices(shape: tuple[int, int, int]) -> None:
    stack = noise(*shape)
    expected = np.sort(np.concatenate([by_svd(matrix) for matrix in stack]))
    assert stack_eigenvalues(stack) == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("shape", [(5, 40, 30), (5, 30, 40), (2, 300, 280), (2, 280, 300), (1, 5000, 900)])
def test_factors_multiply_the_rows_of_every_matrix(shape: tuple[int, int, int]) -> None:
    stack = noise(*shape)
    factors = np.random.default_rng(1).uniform(0.1, 3.0, shape[1])
    by_hand = stack_eigenvalues(stack.astype(np.float64) * factors[:, None])
    assert stack_eigenvalues(stack, factors) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e-12, 1e12, 1e30, 1e150])
@pytest.mark.parametrize("shape", [(1, 60, 50), (1, 320, 300)])
def test_the_scale_of_the_elements_costs_no_digit(scale: float, shape: tuple[int, int, int]) -> None:
    # A power of two near the scale, so that the elements themselves keep their digits.
    power = 2.0 ** round(np.log2(scale))
    stack = noise(*shape).astype(np.float64)
    found = stack_eigenvalues(stack * power)
    assert found / power / power == pytest.approx(stack_eigenvalues(stack), rel=1e-12)


def test_elements_that_are_not_finite_give_infinite_eigenvalues_not_an_exception() -> None:
    stack = noise(2, 20, 10)
    stack[1, 3, 4] = np.nan
    assert np.isinf(stack_eigenvalues(stack)).all()


def test_float32_keeps_the_large_eigenvalues_to_five_digits() -> None:
    matrix = noise(400, 300)
    found = stack_eigenvalues(matrix[None], None, FLOAT32)
    assert found[150:] == pytest.approx(by_svd(matrix)[150:], rel=1e-5)


def test_auto_takes_float64_up_to_a_side_of_1024_and_float32_above() -> None:
    assert solver_precision(1024, Precision.AUTO) is Precision.FLOAT64
    assert solver_precision(1025, Precision.AUTO) is Precision.FLOAT32
    assert solver_precision(8, Precision.FLOAT32) is Precision.FLOAT32
    assert solver_epsilon(1025, Precision.AUTO) == float(np.finfo(np.float32).eps)
    assert solver_epsilon(4096, Precision.FLOAT64) == float(np.finfo(np.float64).eps)


@pytest.mark.parametrize("device", [Device.AUTO, Device.CPU])
def test_without_a_gpu_auto_is_the_processor(device: Device) -> None:
    if device is Device.AUTO and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    matrix = noise(300, 280)[None]
    found = stack_eigenvalues(matrix, None, MeasureOptions(device=device))
    assert np.array_equal(found, stack_eigenvalues(matrix, None, MeasureOptions(device=Device.CPU)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch finds none here")
@pytest.mark.parametrize(
    ("side", "tolerance"),
    [(300, 1e-10), (1500, 1e-4)],
)
def test_a_gpu_gives_the_processors_eigenvalues(side: int, tolerance: float) -> None:
    stack = noise(1, side + 40, side)
    on_gpu = stack_eigenvalues(stack, None, MeasureOptions(device=Device.CUDA))
    on_cpu = stack_eigenvalues(stack, None, MeasureOptions(device=Device.CPU))
    assert on_gpu[side // 2 :] == pytest.approx(on_cpu[side // 2 :], rel=tolerance)

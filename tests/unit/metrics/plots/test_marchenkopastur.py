"""The bulk's density: Marchenko & Pastur 1967, for eigenvalues of W^T W that are not divided by N."""

from __future__ import annotations

import numpy as np
import pytest

from layerwatch.metrics.layers import view_sides
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.plots.marchenkopastur import bulk_density, lower_edge
from layerwatch_testing.plotting import gaussian

SHAPES = [(1024, 1024), (512, 256), (3000, 100), (64, 63)]


@pytest.mark.parametrize(("longer", "shorter"), SHAPES)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_density_integrates_to_one_between_the_edges(longer: int, shorter: int, scale: float) -> None:
    upper = scale * (longer**0.5 + shorter**0.5) ** 2
    lower = lower_edge(upper, longer, shorter)
    # In u with x = u^2 the square-root singularity of a square matrix at zero is gone.
    roots = np.linspace(lower**0.5, upper**0.5, 20_001)[1:]

    density = bulk_density(roots**2, upper, longer, shorter)

    assert np.trapezoid(density * 2.0 * roots, roots) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize(("longer", "shorter"), SHAPES[:3])
def test_it_is_the_histogram_of_a_random_matrix(longer: int, shorter: int) -> None:
    values = np.linalg.svd(gaussian(longer, shorter, seed=3), compute_uv=False).astype(np.float64) ** 2
    upper = (longer**0.5 + shorter**0.5) ** 2
    edges = np.linspace(max(lower_edge(upper, longer, shorter), 0.02 * upper), upper, 9)
    counts, _ = np.histogram(values, edges)
    fine = np.linspace(edges[:-1], edges[1:], 201)
    expected = np.trapezoid(bulk_density(fine, upper, longer, shorter), fine, axis=0) * shorter

    # Eigenvalues repel each other: counts scatter far less than the square root of a Poisson count.
    assert np.abs(counts - expected).max() <= 4.0


def test_the_density_is_zero_outside_the_edges() -> None:
    upper = (20.0 + 10.0) ** 2

    outside = bulk_density(np.array([50.0, 99.0, 901.0, 5000.0]), upper, 400, 100)

    assert lower_edge(upper, 400, 100) == pytest.approx((20.0 - 10.0) ** 2)
    assert not outside.any()


@pytest.mark.parametrize(
    ("kind", "shape", "sides"),
    [
        (LayerKind.LINEAR, (10, 784), (784, 10)),
        (LayerKind.CONV, (64, 32, 3, 3), (64, 32)),
        (LayerKind.CONV, (64, 1, 3, 3), (64, 9)),
        (LayerKind.CONV, (16, 80, 5), (80, 16)),
        (LayerKind.STACK, (8, 32, 64), (2048, 8)),
        (LayerKind.EMBEDDING, (1, 7), (7, 1)),
    ],
    ids=str,
)
def test_a_convolution_is_seen_by_kernel_position_and_all_else_unfolded(
    kind: LayerKind, shape: tuple[int, ...], sides: tuple[int, int]
) -> None:
    assert view_sides(kind, shape) == sides

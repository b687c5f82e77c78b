"""Intruder dimensions: planted ones are counted exactly, and nothing that keeps its parent's directions is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics import intruders as module
from layerwatch.metrics.intruders import Intruders, find_intruders

Matrix = NDArray[np.float64]

SHAPES = ((96, 96), (80, 200), (200, 80), (300, 64))


def orthonormal(rows: int, columns: int, seed: int) -> Matrix:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))[0])


def trained(rows: int, columns: int, seed: int) -> Matrix:
    """Singular values 1/sqrt(1), 1/sqrt(2), ...: leading directions that stand apart, as trained layers have."""
    side = min(rows, columns)
    values = np.arange(1, side + 1) ** -0.5
    return orthonormal(rows, side, seed) * values @ orthonormal(columns, side, seed + 1).T


def by_definition(new: Matrix, old: Matrix, directions: int = 10, threshold: float = 0.5) -> int:
    """As the paper's authors compute it: thin SVDs, all cosines, the largest of each leading vector."""
    left = np.linalg.svd(new, full_matrices=False)[0]
    parent = np.linalg.svd(old, full_matrices=False)[0]
    return int(np.count_nonzero(np.abs(parent.T @ left[:, :directions]).max(axis=0) < threshold))


def planted(parent: Matrix, number: int, seed: int) -> Matrix:
    """The parent with directions added that are larger than its own and spread over all of its left vectors.

    A random direction's largest cosine with n orthonormal vectors is about sqrt(2 ln n / n): 0.37 at n = 64.
    """
    rows, columns = parent.shape
    values = np.linspace(3.0, 6.0, number) if number else np.zeros(0)
    return parent + orthonormal(rows, max(1, number), seed)[:, :number] * values @ (
        orthonormal(columns, max(1, number), seed + 1)[:, :number].T
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number", [0, 1, 3, 8])
@pytest.mark.parametrize("seed", [10, 20, 30])
def test_planted_directions_are_counted_exactly(shape: tuple[int, int], number: int, seed: int) -> None:
    parent = trained(*shape, seed)

    assert find_intruders(planted(parent, number, seed + 5), parent) == Intruders(number, 10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [1, 2])
def test_small_dense_noise_makes_no_intruder(shape: tuple[int, int], seed: int) -> None:
    parent = trained(*shape, seed)
    noise = np.random.default_rng(seed).standard_normal(shape)
    noise *= 0.05 * np.linalg.norm(parent) / np.linalg.norm(noise)

    assert find_intruders(parent + noise, parent) == Intruders(0, 10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
def test_the_count_is_that_of_the_definition(
    shape: tuple[int, int], threshold: float, strength: float
) -> None:
    # Different random matrices of full rank, where singular vectors are unique: every cosine is in play.
    generator = np.random.default_rng(int(10 * strength))
    parent = generator.standard_normal(shape)
    new = parent + strength * generator.standard_normal(shape)

    found = find_intruders(new, parent, 12, threshold)

    assert found == Intruders(by_definition(new, parent, 12, threshold), 12)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (7, 5), *SHAPES])
def test_a_matrix_has_no_intruder_against_itself(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(3).standard_normal(shape).astype(np.float32)

    assert find_intruders(matrix, matrix) == Intruders(0, min(10, *shape))


def test_a_row_vector_has_one_left_direction_and_keeps_it() -> None:
    generator = np.random.default_rng(4)

    assert find_intruders(generator.standard_normal((1, 50)), generator.standard_normal((1, 50))) == (
        Intruders(0, 1)
    )


def test_a_column_vector_that_turned_away_is_an_intruder() -> None:
    generator = np.random.default_rng(5)

    assert find_intruders(generator.standard_normal((500, 1)), generator.standard_normal((500, 1))) == (
        Intruders(1, 1)
    )


def test_a_direction_where_the_parent_has_nothing_is_an_intruder() -> None:
    # The parent has rank one; thin SVDs give it 30 further vectors at will, which must not be matched.
    parent = np.zeros((30, 40))
    parent[0, 0] = 1.0
    new = parent.copy()
    new[7, 7] = 2.0

    assert find_intruders(new, parent) == Intruders(1, 2)


@settings(max_examples=30)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from([1e-30, -1e-6, -1.0, 0.3, 1e6, 1e150]),
    st.sampled_from([1e-30, -1e-6, -1.0, 0.3, 1e6, 1e150]),
    st.integers(0, 9),
    st.integers(0, 1000),
)
def test_sign_and_scale_of_either_side_do_not_matter(
    shape: tuple[int, int], one: float, other: float, number: int, seed: int
) -> None:
    parent = trained(*shape, seed)
    new = planted(parent, number, seed + 5)

    assert find_intruders(one * new, other * parent) == Intruders(number, 10)


@settings(max_examples=15)
@given(st.sampled_from(SHAPES), st.integers(0, 9), st.integers(0, 1000))
def test_rotating_both_sides_alike_does_not_matter(shape: tuple[int, int], number: int, seed: int) -> None:
    parent = trained(*shape, seed)
    new = planted(parent, number, seed + 5)
    left, right = orthonormal(shape[0], shape[0], 77), orthonormal(shape[1], shape[1], 78)

    assert find_intruders(left @ new @ right, left @ parent @ right) == Intruders(number, 10)


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0, -0.1])
def test_equal_singular_values_are_one_subspace_however_the_solver_turns_its_vectors(scale: float) -> None:
    matrix = orthonormal(60, 60, 6)

    assert find_intruders(scale * matrix, matrix) == Intruders(0, 10)
    assert find_intruders(orthonormal(60, 60, 7), matrix) == Intruders(0, 10)


def test_long_layers_are_read_block_by_block_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((200, 80), (80, 200)):
        parent = trained(*shape, 1)
        new = planted(parent, 4, 9)
        monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 1000)

        assert find_intruders(new, parent) == Intruders(4, 10)


def test_float32_values_give_the_same_count() -> None:
    parent = trained(96, 96, 1)
    new = planted(parent, 4, 9)

    assert find_intruders(new.astype(np.float32), parent.astype(np.float32)) == Intruders(4, 10)


def test_what_cannot_be_examined_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix: NDArray[Any] = np.ones((20, 30))

    assert find_intruders(matrix, np.zeros((20, 30))) is None
    monkeypatch.setattr(module, "LONGEST_SIDE", 19)
    assert find_intruders(matrix, matrix) is None


def test_a_matrix_that_became_zero_has_no_direction_to_examine() -> None:
    assert find_intruders(np.zeros((5, 4)), np.ones((5, 4))) == Intruders(0, 0)
    assert find_intruders(np.zeros((4, 5)), np.ones((4, 5))) == Intruders(0, 0)


@pytest.mark.parametrize(("directions", "threshold"), [(0, 0.5), (-1, 0.5), (10, 0.0), (10, 1.0)])
def test_arguments_out_of_range_are_refused(directions: int, threshold: float) -> None:
    with pytest.raises(ValueError, match="must"):
        find_intruders(np.ones((3, 3)), np.ones((3, 3)), directions, threshold)


def test_matrices_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(3, 4\)"):
        find_intruders(np.ones((3, 3)), np.ones((3, 4)))

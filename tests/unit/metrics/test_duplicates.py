"""Copies among rows: the same as comparing every row with every other one, without doing so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.duplicates import COSINE, MIN_NONZEROS, duplicate_rows
from layerwatch.metrics.sketch import projected_rows

Values = NDArray[Any]


def counted(matrix: Values) -> int | None:
    return duplicate_rows(matrix, projected_rows(matrix))


def by_brute_force(matrix: Values, cosine: float = COSINE) -> int:
    rows = matrix[np.count_nonzero(matrix, axis=1) >= MIN_NONZEROS].astype(np.float64)
    if len(rows) < 2:
        return 0
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    cosines = np.abs(rows @ rows.T)
    np.fill_diagonal(cosines, 0.0)
    return int(np.count_nonzero(cosines.max(axis=1) > cosine))


def weights(rows: int, columns: int, seed: int = 0) -> Values:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 60), st.integers(12, 80), st.integers(0, 2**32 - 1))
def test_pasted_rows_are_counted_as_comparing_all_pairs_counts_them(
    data: st.DataObject, rows: int, columns: int, seed: int
) -> None:
    matrix = weights(rows, columns, seed)
    positions = st.integers(0, rows - 1)
    for source, target, factor in data.draw(
        st.lists(st.tuples(positions, positions, st.sampled_from([1.0, -1.0, 0.0, 3.5, -1e-3])), max_size=8)
    ):
        matrix[target] = np.float32(factor) * matrix[source]

    assert counted(matrix) == by_brute_force(matrix)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.03))
def test_near_copies_are_found_on_the_right_side_of_the_limit(seed: int, noise: float) -> None:
    generator = np.random.default_rng(seed)
    matrix = weights(200, 64, seed)
    matrix[100:] = matrix[:100] + np.float32(noise) * generator.standard_normal((100, 64)).astype(np.float32)
    found = counted(matrix)

    assert found is not None
    # Certain for near copies; a pair right at the limit is missed once in ten thousand.
    assert by_brute_force(matrix, 1.0 - 0.9 * (1.0 - COSINE)) <= found <= by_brute_force(matrix)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_and_their_scale_do_not_matter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    matrix = weights(90, 40, seed)
    matrix[7:11] = -matrix[30:34]
    scaled = matrix[generator.permutation(90)] * np.exp2(generator.integers(-9, 9, (90, 1))).astype(
        np.float32
    )

    assert counted(scaled) == counted(matrix) == 8


def test_all_rows_of_a_collapsed_layer_are_copies_and_of_a_healthy_one_none() -> None:
    generator = np.random.default_rng(2)

    assert counted(np.outer(generator.standard_normal(700), generator.standard_normal(90))) == 700
    assert counted(weights(3000, 64)) == 0


def test_rows_of_one_wide_common_direction_do_not_hide_a_copy() -> None:
    # Like an embedding: the cosine of two rows is about 0.92.
    matrix = weights(1, 128, seed=5) + 0.3 * weights(4000, 128, seed=6)
    matrix[3000] = 2.0 * matrix[17]

    assert counted(matrix) == 2


def test_zero_rows_are_no_copies_of_each_other() -> None:
    matrix = weights(50, 30)
    matrix[10:40] = 0.0

    assert counted(matrix) == 0


def test_what_pruning_left_of_two_rows_may_lie_on_one_line() -> None:
    matrix = np.zeros((10, 64), dtype=np.float32)
    matrix[:5, 3] = 1.0
    matrix[5:, 8 : 8 + MIN_NONZEROS] = 1.0

    assert counted(matrix) == 5


@pytest.mark.parametrize("columns", [1, 2, 7])
def test_rows_that_are_too_short_are_not_compared(columns: int) -> None:
    assert counted(np.ones((20, columns))) is None


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_rows_are_compared_like_others(scale: float) -> None:
    matrix = weights(40, 32)
    matrix[0] = matrix[1]

    assert counted((matrix * np.float64(scale)).astype(np.float32)) == 2


def test_weights_whose_norms_leave_the_range_are_left_out() -> None:
    matrix = np.full((4, 16), 1e300)
    matrix[:2] = weights(1, 16)

    assert counted(matrix) == 2

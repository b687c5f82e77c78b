"""What is counted in a layer's elements, beside definitions written out element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from layerwatch.metrics import elements as module
from layerwatch.metrics.elements import element_numbers, levels_per_row, zero_tail

Values = NDArray[Any]

few_values = st.sampled_from([0.0, -0.0, 0.0, 1.5, -2.0, 1e-40])
tensors = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6), elements=few_values
)


@given(tensors, st.integers(1, 7))
def test_the_zero_tail_is_counted_from_the_last_element_backwards(values: Values, block: int) -> None:
    expected = 0
    for value in values.reshape(-1)[::-1]:
        if value != 0.0:
            break
        expected += 1

    with pytest.MonkeyPatch.context() as patch:
        # Tails that end within a block, with it, and blocks before it.
        patch.setattr(module, "_BLOCK_ELEMENTS", block)
        assert zero_tail(values) == expected
        assert element_numbers(values).zero_tail == expected


@given(tensors)
def test_constant_means_two_elements_or_more_and_all_equal(values: Values) -> None:
    assert element_numbers(values).constant == (
        values.size > 1 and len(set(values.reshape(-1).tolist())) == 1
    )


@pytest.mark.parametrize("value", [1e-200, 1e200, np.inf])
def test_elements_whose_squares_leave_the_range_are_counted_all_the_same(value: float) -> None:
    found = element_numbers(np.array([value, value, 0.0, 0.0]))

    assert (found.zero_tail, found.constant) == (2, False)
    assert element_numbers(np.array([value, value])).constant


@given(tensors)
def test_the_smallest_value_is_that_of_all_elements(values: Values) -> None:
    assert element_numbers(values).min_value == values.min()


@pytest.mark.parametrize(
    ("values", "smallest"),
    [
        ([], 0.0),
        ([3.0, -1e200], -1e200),
        ([3.0, np.nan, -2.0, -np.inf], -2.0),
        ([np.nan], 0.0),
        ([1e200, 2e200], 1e200),
    ],
)
def test_the_smallest_value_is_one_of_the_finite_ones(values: list[float], smallest: float) -> None:
    assert element_numbers(np.array(values)).min_value == smallest


def test_not_a_number_is_neither_constant_nor_zero() -> None:
    found = element_numbers(np.array([0.0, np.nan, 0.0]))

    assert (found.non_finite, found.zero_tail, found.constant) == (1, 1, False)
    assert not element_numbers(np.array([np.nan, np.nan])).constant


def test_nothing_and_a_single_number_have_no_tail_to_speak_of() -> None:
    assert element_numbers(np.zeros((0, 4))).zero_tail == 0
    assert element_numbers(np.array(3.0, dtype=np.float32)).zero_tail == 0
    assert not element_numbers(np.array(3.0, dtype=np.float32)).constant


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(32, 48)),
        elements=st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0]),
    )
)
def test_levels_are_the_different_values_of_the_median_row(matrix: Values) -> None:
    counts = [len(set(row.tolist())) for row in matrix if np.count_nonzero(row) >= 16]

    assert levels_per_row(matrix) == (np.median(counts) if counts else None)


def test_a_random_row_holds_as_many_values_as_elements_and_a_rounded_one_its_steps() -> None:
    matrix = np.random.default_rng(1).standard_normal((600, 64)).astype(np.float32)

    assert levels_per_row(matrix) == 64.0
    assert levels_per_row(np.sign(matrix)) == 2.0
    assert levels_per_row(np.clip(np.round(matrix), -1, 1)) == 3.0


def test_short_rows_have_no_levels_and_pruned_rows_do_not_count() -> None:
    generator = np.random.default_rng(1)
    assert levels_per_row(generator.standard_normal((9, 31))) is None
    pruned = generator.standard_normal((100, 64))
    pruned[:90, 15:] = 0.0

    assert levels_per_row(pruned) == 64.0
    assert levels_per_row(pruned[:90]) is None


def test_long_rows_are_counted_over_their_first_part() -> None:
    matrix = np.random.default_rng(1).permutation(np.arange(20000.0)).reshape(2, 10000)

    assert levels_per_row(matrix) == 4096.0

"""What both weights of a layer tell row by row: every number is that of its definition, every rearrangement is seen."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.rowchange import RowChange, compare_elements
from layerwatch.metrics.rowmatching import Axis, match_limit, row_matching

Values = NDArray[Any]


def weights(seed: int = 0, shape: tuple[int, ...] = (60, 48)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rows_of(
    new: Values, old: Values, factors: Values | None = None, factors0: Values | None = None
) -> RowChange:
    found = compare_elements(new, old, factors, factors0)
    assert found is not None
    for field in dataclasses.fields(found.rows):
        value = getattr(found.rows, field.name)
        assert not isinstance(value, float) or math.isfinite(value), field.name
    return found.rows


def test_the_numbers_are_those_of_their_definitions() -> None:
    old = weights(1)
    new = (0.8 * old + 0.3 * weights(2)).astype(np.float32)
    x, y = new.astype(np.float64), old.astype(np.float64)

    found = rows_of(new, old)

    gain = float(np.vdot(x, y) / np.vdot(y, y))
    residual = x - y
    assert found.gain == pytest.approx(gain, rel=1e-9)
    assert found.relative_perpendicular == pytest.approx(
        np.linalg.norm(x - gain * y) / np.linalg.norm(y), rel=1e-7
    )
    ratios = np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert found.row_norm_ratio == pytest.approx(float(np.maximum(ratios, 1 / ratios).max()), rel=1e-6)
    assert found.rescaled_row == int(np.maximum(ratios, 1 / ratios).argmax())
    centred = residual - residual.mean()
    assert found.residual_kurtosis == pytest.approx((centred**4).mean() / (centred**2).mean() ** 2, rel=1e-6)
    # Ten Lanczos steps, from below.
    largest = np.linalg.norm(residual, 2)
    assert found.spectral_change == pytest.approx(largest / np.linalg.norm(y, 2), rel=0.05)
    chance = np.linalg.norm(residual) * (math.sqrt(60) + math.sqrt(48)) / math.sqrt(60 * 48)
    assert found.noise_ratio == pytest.approx(largest / chance, rel=0.05)


def test_noise_has_a_noise_ratio_of_one_and_a_low_rank_change_a_large_one() -> None:
    generator = np.random.default_rng(3)
    old = weights(1, (300, 200))
    low = generator.standard_normal((300, 2)) @ generator.standard_normal((2, 200))

    noise = rows_of(old + np.float32(0.1) * weights(2, (300, 200)), old).noise_ratio
    adapter = rows_of((old + 0.05 * low).astype(np.float32), old).noise_ratio

    assert noise == pytest.approx(1.0, abs=0.1)
    assert adapter is not None
    assert adapter > 3.0


def test_each_side_is_folded_with_its_own_factors() -> None:
    new, old = weights(1, (8, 3, 3, 3)), weights(2, (8, 3, 3, 3))
    factors, factors0 = np.linspace(0.5, 2.0, 8), np.linspace(3.0, 1.0, 8)
    folded = rows_of(
        new.astype(np.float64) * factors[:, None, None, None],
        old.astype(np.float64) * factors0[:, None, None, None],
    )

    found = rows_of(new, old, factors, factors0)

    for name in ("low_rows", "row_norm_ratio", "gain", "relative_perpendicular", "residual_kurtosis"):
        assert getattr(found, name) == pytest.approx(getattr(folded, name), rel=1e-5)
    assert found.spectral_change == pytest.approx(folded.spectral_change, rel=0.02)


def test_rows_that_were_nearly_dead_or_are_zero_now_do_not_count() -> None:
    old = weights(1)
    old[0] *= 1e-3
    new = old.copy()
    new[0] *= -1
    new[1] = 0

    found = rows_of(new, old)

    assert (found.live_rows, found.low_rows, found.flipped_rows) == (58, 0, 0)
    assert found.row_norm_ratio == pytest.approx(1.0)


def test_a_cast_costs_no_search_and_has_no_noise_ratio() -> None:
    old = weights(1).astype(np.float64)

    found = rows_of(old * (1 + 1e-6), old)

    assert (found.noise_ratio, found.spectral_change, found.reordering) == (None, None, None)


def test_short_rows_point_the_opposite_way_by_chance() -> None:
    found = rows_of(weights(1, (2000, 9)), weights(2, (2000, 9)))

    assert found.flipped_rows <= 2
    assert found.low_rows > 1000


def test_values_beyond_the_range_of_squares_are_not_compared() -> None:
    old = weights(1).astype(np.float64)
    new = old.copy()
    new[3, 3] = 1e200

    assert compare_elements(new, old, None, None) is None


@pytest.mark.parametrize("scale", [1e-150, 1e70, 1e90, 1e140])
def test_the_kurtosis_of_a_change_is_that_at_any_scale_or_none(scale: float) -> None:
    old, new = (weights(seed).astype(np.float64) for seed in (1, 2))

    # Fourth powers of elements of 1e90 and more, or of 1e-150, leave float64's range.
    expected = None if scale != 1e70 else pytest.approx(rows_of(new, old).residual_kurtosis, rel=1e-9)
    assert rows_of(new * scale, old * scale).residual_kurtosis == expected


@pytest.mark.parametrize("giant", [1e20, 1e38])
def test_one_giant_element_of_float32_gives_finite_numbers(giant: float) -> None:
    old = weights(1)
    new = old.copy()
    new[3, 5] = giant

    found = rows_of(new, old)

    assert found.rescaled_row == 3
    assert found.spectral_change is not None
    assert found.spectral_change > 1e10


shapes = st.tuples(st.integers(24, 70), st.integers(24, 70))
updates = st.sampled_from([0.0, 0.05, 0.2])
seeds = st.integers(0, 10**6)


@settings(max_examples=40, deadline=None)
@given(shapes, seeds, updates)
def test_permuted_rows_of_any_matrix_are_found_elsewhere(
    shape: tuple[int, int], seed: int, update: float
) -> None:
    old = weights(seed, shape)
    order = np.random.default_rng(seed).permutation(shape[0])
    new = (old[order] + update * weights(seed + 1, shape)).astype(np.float32)
    moved = int(np.count_nonzero(order != np.arange(shape[0])))

    found = rows_of(new, old).reordering

    assert found is not None
    assert found.axis is Axis.ROWS
    # By chance the cosine of two rows is above 0.5 now and then, or a short noisy one stays below the limit.
    assert 0.8 * moved <= found.matched <= found.examined <= moved
    matching = row_matching(new, old)
    assert matching is not None
    assert np.mean(matching == order) > 0.8


@settings(max_examples=40, deadline=None)
@given(shapes, seeds, updates)
def test_permuted_columns_of_any_matrix_are_found_elsewhere(
    shape: tuple[int, int], seed: int, update: float
) -> None:
    old = weights(seed, shape)
    order = np.random.default_rng(seed).permutation(shape[1])
    new = (old[:, order] + update * weights(seed + 1, shape)).astype(np.float32)

    found = rows_of(new, old).reordering

    assert found is not None
    assert found.axis is Axis.COLUMNS
    assert found.matched >= 0.8 * found.moved


@settings(max_examples=40, deadline=None)
@given(shapes, seeds, updates, st.sampled_from([0.1, 0.3, 1.0]))
def test_flipped_rows_of_any_matrix_are_counted(
    shape: tuple[int, int], seed: int, update: float, share: float
) -> None:
    old = weights(seed, shape)
    flipped = max(1, int(share * shape[0]))
    signs = np.ones((shape[0], 1), np.float32)
    signs[:flipped] = -1
    new = signs * (old + update * weights(seed + 1, shape)).astype(np.float32)

    found = rows_of(new, old)

    assert found.flipped_rows == found.low_rows == flipped
    assert found.reordering is None or found.reordering.matched < 2


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 40), st.sampled_from([(), (3, 3)]), seeds, updates)
def test_a_transposed_matrix_or_kernel_is_recognised(
    side: int, kernel: tuple[int, ...], seed: int, update: float
) -> None:
    old = weights(seed, (side, side, *kernel))
    new = (old.swapaxes(0, 1) + update * weights(seed + 1, old.shape)).astype(np.float32)

    found = rows_of(new, old)

    if found.transposed_cosine is None:
        # So small that it is nearly symmetric by chance.
        assert side < 12
    else:
        assert found.transposed_cosine > 0.95


@settings(max_examples=40, deadline=None)
@given(shapes, seeds)
def test_another_matrix_is_no_permutation_of_this_one(shape: tuple[int, int], seed: int) -> None:
    new, old = weights(seed, shape), weights(seed + 1, shape)

    found = rows_of(new, old)

    assert found.reordering is None or found.reordering.matched < 0.1 * found.reordering.examined
    assert row_matching(new, old) is None


@pytest.mark.parametrize("axis", list(Axis))
def test_an_order_that_repeats_in_every_run_of_eight_is_told_from_any_other(axis: Axis) -> None:
    old = weights(1, (64, 96))
    turned = old if axis is Axis.ROWS else old.T
    order = np.arange(len(turned)).reshape(-1, 8)
    packed = turned[order[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)]
    generator = np.random.default_rng(0)
    local = turned[np.concatenate([generator.permutation(run) for run in order])]

    blocks = []
    for new in (packed, local, turned[::-1]):
        found = rows_of(np.ascontiguousarray(new if axis is Axis.ROWS else new.T), old).reordering
        assert found is not None
        assert found.axis is axis
        blocks.append(found.block)

    assert blocks == [8, None, None]


def test_permuted_input_channels_of_a_convolution_are_permuted_columns() -> None:
    old = weights(1, (96, 32, 3, 3))
    order = np.arange(32).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)

    found = rows_of(old[:, order], old).reordering

    assert found is not None
    assert (found.axis, found.moved, found.matched, found.block) == (Axis.COLUMNS, 216, 216, 8)


def test_many_moved_rows_are_looked_for_by_a_sample() -> None:
    old = weights(1, (2000, 64))

    permuted = rows_of(old[::-1].copy(), old).reordering
    other = rows_of(weights(2, (2000, 64)), old).reordering

    assert permuted is not None
    assert other is not None
    assert (permuted.moved, permuted.examined) == (2000, 512)
    assert permuted.matched > 500
    assert (other.examined, other.matched) == (64, 0)


def test_the_limit_of_a_match_is_eight_standard_deviations_of_chance_between_half_and_nine_tenths() -> None:
    assert [match_limit(length) for length in (9, 144, 4096)] == [0.9, pytest.approx(8 / 12), 0.5]


def test_a_matching_is_a_permutation_even_where_rows_are_dead() -> None:
    old = weights(1)
    old[7] = 0
    order = np.random.default_rng(0).permutation(60)

    matching = row_matching(old[order], old)

    assert matching is not None
    assert sorted(matching) == list(range(60))
    np.testing.assert_array_equal(old[matching], old[order])
    assert row_matching(old, old[:30]) is None

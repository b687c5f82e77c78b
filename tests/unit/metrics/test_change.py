"""What changed in a layer: exact and estimated numbers agree, and every special case has its own answer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.change import (
    AlignedChange,
    Change,
    Method,
    compare_layer,
    esd_distance,
    exact_change,
    scatter_of_norms,
)
from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.rowchange import LIVE_SHARE
from layerwatch_testing.memoryreader import opened

Values = NDArray[Any]


def weights(seed: int = 0, shape: tuple[int, ...] = (120, 80)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def measured(values: Values) -> Measurement:
    (found,) = measure_layers(opened({"fc.weight": values}), lambda digest: False)
    assert found.measurement is not None
    return found.measurement


def changed(new: Values, old: Values) -> Change:
    """Compared by sketches."""
    return compare_layer(measured(new), measured(old))


def aligned(change: Change) -> AlignedChange:
    assert change.aligned is not None
    return change.aligned


def exact(new: Values, old: Values) -> AlignedChange:
    found = exact_change(new, old, None, None)
    assert found is not None
    return found


def assert_finite(change: Change) -> None:
    for owner in (change, change.aligned):
        for field in dataclasses.fields(owner) if owner is not None else ():
            value = getattr(owner, field.name)
            assert not isinstance(value, float) or math.isfinite(value), field.name


def test_exact_numbers_are_those_of_their_definitions() -> None:
    new, old = weights(1), weights(2)

    found = exact(new, old)

    difference = new.astype(np.float64) - old.astype(np.float64)
    norm, norm0 = (float(np.linalg.norm(one.astype(np.float64))) for one in (new, old))
    assert found.relative_change == pytest.approx(float(np.linalg.norm(difference)) / norm0, rel=1e-12)
    expected = float(np.vdot(new.astype(np.float64), old.astype(np.float64))) / (norm * norm0)
    assert found.cosine == pytest.approx(expected, rel=1e-9)
    assert (found.error, found.method) == (0.0, Method.EXACT)


def test_each_side_of_an_exact_comparison_is_folded_with_its_own_factors() -> None:
    new, old = weights(1, (6, 4, 3, 3)), weights(2, (6, 4, 3, 3))
    factors, factors0 = np.arange(1.0, 7.0), np.arange(6.0, 0.0, -1.0)

    folded = exact_change(
        new.astype(np.float64) * factors[:, None, None, None],
        old.astype(np.float64) * factors0[:, None, None, None],
        None,
        None,
    )

    found = exact_change(new, old, factors, factors0)
    assert found is not None
    assert folded is not None
    assert found.relative_change == pytest.approx(folded.relative_change, rel=1e-12)
    assert found.cosine == pytest.approx(folded.cosine, rel=1e-12)


def test_an_exact_comparison_with_a_non_finite_value_does_not_exist() -> None:
    broken = weights(1)
    broken[0, 0] = np.nan

    assert exact_change(broken, weights(2), None, None) is None
    assert exact_change(weights(2), broken, None, None) is None


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.5, 1.0])
def test_sketches_agree_with_the_exact_numbers_within_the_stated_error(scale: float) -> None:
    old = weights(1)
    new = old + np.float32(scale) * weights(2)

    estimate, truth = aligned(changed(new, old)), exact(new, old)

    assert estimate.method is Method.SKETCH
    assert 0 < estimate.error <= 0.12
    assert truth.relative_change is not None
    assert truth.cosine is not None
    # The stated error is that of a change of rank 1; this one is noise (1.3 %), so three of those are safe.
    assert estimate.relative_change == pytest.approx(truth.relative_change, rel=0.04)
    assert estimate.cosine == pytest.approx(truth.cosine, abs=0.05)


def test_a_change_of_rank_one_is_estimated_within_three_stated_errors() -> None:
    generator = np.random.default_rng(3)
    old = weights(1)
    for _ in range(20):
        one = np.outer(generator.standard_normal(120), generator.standard_normal(80)).astype(np.float32)
        estimate, truth = aligned(changed(old + one, old)), exact(old + one, old)
        assert truth.relative_change is not None
        error = 3 * estimate.error * truth.relative_change
        assert estimate.relative_change == pytest.approx(truth.relative_change, abs=error)


def test_exact_numbers_are_preferred_to_estimated_ones() -> None:
    new, old = weights(1), weights(2)
    truth = exact(new, old)

    found = compare_layer(measured(new), measured(old), truth).aligned

    assert found is not None
    assert dataclasses.replace(found, sketched_noise_ratio=None) == truth
    # Told alike whether both weights are at hand or not.
    estimated = compare_layer(measured(new), measured(old)).aligned
    assert estimated is not None
    assert found.sketched_noise_ratio == estimated.sketched_noise_ratio


def test_the_norms_of_rows_scatter_where_rows_have_scales_of_their_own() -> None:
    old = weights(1)
    scales = np.exp(np.random.default_rng(5).normal(0.0, 0.2, len(old)))[:, None]

    assert changed(3.0 * old, old).row_norm_scatter == pytest.approx(0.0, abs=1e-6)
    assert changed((scales * old).astype(np.float32), old).row_norm_scatter == pytest.approx(0.2, rel=0.25)
    assert scatter_of_norms(np.ones(7, np.float32), np.ones(7, np.float32)) is None


def test_the_same_bytes_are_identical_without_any_estimate() -> None:
    change = changed(weights(1), weights(1))

    assert aligned(change) == AlignedChange(0.0, 1.0, 0.0, Method.IDENTICAL)
    assert (
        change.norm_ratio == change.spectral_ratio == change.stable_rank_ratio == change.max_abs_ratio == 1.0
    )
    assert change.esd_distance == 0.0
    assert change.alpha_shift == change.rank_loss_shift == 0.0
    assert (change.new_zero_rows, change.new_zero_columns, change.emptied) == (0, 0, False)


def test_ratios_of_a_scaled_layer_are_its_factor() -> None:
    change = changed(weights(1) * np.float32(4), weights(1))

    assert change.norm_ratio == pytest.approx(4)
    assert change.max_abs_ratio == pytest.approx(4)
    assert change.spectral_ratio == pytest.approx(4)
    assert change.stable_rank_ratio == pytest.approx(1)
    assert change.effective_rank_ratio == pytest.approx(1)
    assert change.kurtosis_ratio == pytest.approx(1)
    assert change.esd_distance == pytest.approx(0, abs=0.02)
    assert aligned(change).cosine == pytest.approx(1, abs=1e-6)
    assert aligned(change).relative_change == pytest.approx(3, rel=0.1)


def test_a_sign_flip_keeps_the_spectrum_and_turns_the_cosine() -> None:
    change = changed(-weights(1), weights(1))

    assert aligned(change).cosine == pytest.approx(-1, abs=1e-6)
    assert aligned(change).relative_change == pytest.approx(2, rel=0.1)
    assert change.norm_ratio == pytest.approx(1)
    assert change.esd_distance == 0.0


def test_an_emptied_layer_moved_by_its_whole_norm() -> None:
    change = changed(np.zeros((120, 80), np.float32), weights(1))

    assert change.emptied
    assert aligned(change).relative_change == 1.0
    assert aligned(change).cosine is None
    assert change.norm_ratio is None
    assert change.esd_distance is None
    assert change.max_abs_ratio == 0.0
    assert_finite(change)


def test_a_layer_that_was_empty_has_nothing_to_be_compared_with() -> None:
    filled = changed(weights(1), np.zeros((120, 80), np.float32))
    still = compare_layer(
        measured(np.zeros((120, 80), np.float32)), measured(np.full((120, 80), -0.0, np.float32))
    )

    for change in (filled, still):
        assert aligned(change).relative_change is None
        assert aligned(change).cosine is None
        assert change.norm_ratio is change.max_abs_ratio is None
        assert not change.emptied
        assert_finite(change)


def test_layers_of_other_shapes_are_compared_by_their_spectra_only() -> None:
    change = changed(weights(1, (120, 80)), weights(2, (150, 80)))

    assert change.aligned is None
    assert change.norm_ratio == pytest.approx((120 / 150) ** 0.5, rel=0.05)
    assert change.esd_distance is not None
    assert (change.new_zero_rows, change.new_zero_columns) == (0, 0)


@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (12, 0), (0, 8), (3, 5)])
def test_rows_and_columns_that_became_zero_are_counted(rows: int, columns: int) -> None:
    old = weights(1)
    new = old.copy()
    new[:rows] = 0
    new[:, :columns] = 0

    change = changed(new, old)

    assert (change.new_zero_rows, change.new_zero_columns) == (rows, columns)
    assert (change.rows, change.columns) == (120, 80)


def test_rows_that_were_dead_or_nearly_so_before_are_not_counted() -> None:
    old = weights(1)
    old[0] = 0.0
    # Norms are near sqrt(80); a row counts as live above a fifth of the median.
    old[1] *= 0.9 * LIVE_SHARE
    old[2] *= 1.3 * LIVE_SHARE
    new = old.copy()
    new[:3] = 0.0

    assert changed(new, old).new_zero_rows == 1


def test_small_rows_are_not_zero_rows() -> None:
    old = weights(1)
    new = old.copy()
    new[0] *= np.float32(1e-30)

    assert changed(new, old).new_zero_rows == 0


def test_lost_rank_is_compared_as_a_share() -> None:
    generator = np.random.default_rng(4)
    low = (generator.standard_normal((120, 20)) @ generator.standard_normal((20, 80))).astype(np.float32)

    assert changed(low, weights(1)).rank_loss_shift == pytest.approx(60 / 80)
    assert changed(weights(1), low).rank_loss_shift == pytest.approx(-60 / 80)


def test_a_cast_is_no_loss_of_rank() -> None:
    # A decaying spectrum: every other singular value is below what bfloat16 resolves, and above float32.
    generator = np.random.default_rng(5)
    left, right = (np.linalg.qr(generator.standard_normal((256, 256)))[0] for _ in range(2))
    old = ((left * np.exp(-0.05 * np.arange(256))) @ right).astype(np.float32)
    new = old.astype(ml_dtypes.bfloat16)
    one, other = measured(new), measured(old)
    assert one.folded is not None
    assert other.folded is not None
    assert one.folded.rank_loss is not None
    assert one.folded.rank_loss > 100
    assert other.folded.rank_loss == 0

    assert compare_layer(one, other).rank_loss_shift is None


def test_alpha_is_compared_in_units_of_both_standard_errors() -> None:
    new, old = measured(weights(1) / np.sqrt(np.arange(1, 81, dtype=np.float32))), measured(weights(1))
    assert new.numbers is not None
    assert old.numbers is not None
    alpha, alpha0 = new.numbers.alpha, old.numbers.alpha
    sigma, sigma0 = new.numbers.alpha_sigma, old.numbers.alpha_sigma
    assert alpha is not None and alpha0 is not None and sigma is not None and sigma0 is not None

    change = compare_layer(new, old)

    assert change.alpha_shift == pytest.approx(alpha - alpha0)
    assert change.alpha_shift_sigmas == pytest.approx((alpha - alpha0) / math.hypot(sigma, sigma0))


def test_two_spectra_have_the_kolmogorov_smirnov_distance_of_their_shapes() -> None:
    one = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)

    assert esd_distance(one, 7 * one) == 0.0
    # Mean-normalised: (.4 .8 1.2 1.6) against (0 0 0 4): after .4 the shares are 1/4 and 3/4.
    assert esd_distance(one, np.array([0, 0, 0, 1], dtype=np.float32)) == 0.75
    assert esd_distance(one, np.zeros(4, dtype=np.float32)) is None
    assert esd_distance(one, np.zeros(0, dtype=np.float32)) is None


spectra = st.lists(st.floats(0.0078125, 1e6, width=32), min_size=1, max_size=50).map(
    lambda values: np.sort(np.array(values, dtype=np.float32))
)


@given(spectra, spectra)
def test_the_distance_of_spectra_is_a_symmetric_share(
    one: NDArray[np.float32], other: NDArray[np.float32]
) -> None:
    distance = esd_distance(one, other)

    assert distance is not None
    assert 0 <= distance <= 1
    assert distance == esd_distance(other, one)
    assert esd_distance(one, one) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.floats(-18, 18), st.integers(0, 2**32 - 1))
def test_the_relative_numbers_do_not_depend_on_the_unit_of_the_weights(decades: float, seed: int) -> None:
    old = weights(seed, (40, 30)).astype(np.float64)
    new = old + 0.3 * weights(seed + 1, (40, 30))
    unit = 10.0**decades

    one, other = exact(new, old), exact(unit * new, unit * old)

    assert other.relative_change == pytest.approx(one.relative_change, rel=1e-9)
    assert other.cosine == pytest.approx(one.cosine, rel=1e-9)
    assert aligned(changed(unit * new, unit * old)).cosine == pytest.approx(
        aligned(changed(new, old)).cosine, rel=1e-4
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("giant", [1e38, 2.0**127, 3.4e38])
def test_a_flipped_exponent_bit_gives_finite_numbers(giant: float) -> None:
    old = weights(1)
    new = old.copy()
    new[3, 4] = giant

    for change in (
        changed(new, old),
        changed(old, new),
        compare_layer(measured(new), measured(old), exact(new, old)),
    ):
        assert_finite(change)
    assert changed(new, old).max_abs_ratio == pytest.approx(giant / float(np.abs(old).max()), rel=1e-6)
    found = aligned(changed(new, old)).relative_change
    assert found is not None
    assert found > 1e30

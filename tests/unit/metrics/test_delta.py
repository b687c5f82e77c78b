"""Delta spectra: the change of a layer has the spectrum of its difference, as matrices or as factors."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.delta import DeltaNumbers, DeltaStatus, delta_numbers, low_rank_delta_numbers
from layerwatch.metrics.measurement import FitStatus, LayerKind, SpectralNumbers
from layerwatch.metrics.spectra import layer_eigenvalues, spectral_numbers

Matrix = NDArray[Any]


def random(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def compared(new: Matrix, old: Matrix, kind: LayerKind = LayerKind.LINEAR) -> DeltaNumbers:
    return delta_numbers(new, old, kind, "F32")


def is_empty(numbers: SpectralNumbers) -> bool:
    values = asdict(numbers)
    return numbers.fit_status is FitStatus.DEGENERATE and all(
        value is None
        for key, value in values.items()
        if key not in {"num_eigenvalues", "fit_status", "rank_loss"}
    )


@pytest.mark.parametrize("shape", [(60, 60), (50, 90), (90, 50)])
def test_the_spectrum_is_that_of_the_difference(shape: tuple[int, int]) -> None:
    old, change = random(*shape), 0.1 * random(*shape, seed=1)

    found = compared(old + change, old)

    # Singular values by SVD, squared; the Gram route keeps 1e-12 of the largest.
    expected = np.sort(np.square(np.linalg.svd(change, compute_uv=False)))
    assert found.status is DeltaStatus.OK
    assert found.spectrum.dtype == np.float32
    assert found.spectrum == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert found.numbers.stable_rank == pytest.approx(expected.sum() / expected[-1], rel=1e-9)
    assert found.relative_change == pytest.approx(np.linalg.norm(change) / np.linalg.norm(old), rel=1e-12)
    assert found.leading_share == pytest.approx(expected[-1] / expected.sum(), rel=1e-9)


def test_every_number_is_that_of_the_change_measured_as_a_layer() -> None:
    old, change = random(120, 80), random(120, 80, seed=1)
    whole = old + change

    expected = spectral_numbers(layer_eigenvalues(whole - old, LayerKind.LINEAR), "F32", 120, 80)

    assert compared(whole, old).numbers == expected


def test_a_convolution_is_pooled_like_its_own_spectrum_and_unfolded_for_directions() -> None:
    old, change = random(20, 12, 3, 3), random(20, 12, 3, 3, seed=1)

    found = compared(old + change, old, LayerKind.CONV)

    slices = [np.linalg.svd(change[:, :, row, column])[1] for row in range(3) for column in range(3)]
    unfolded = np.square(np.linalg.svd(change.reshape(20, 108), compute_uv=False))
    assert found.spectrum == pytest.approx(np.sort(np.square(np.concatenate(slices))), rel=1e-5)
    assert found.numbers.num_eigenvalues == 108
    assert found.leading_share == pytest.approx(unfolded[0] / unfolded.sum(), rel=1e-9)
    assert found.intruder_directions == 10


def test_a_change_of_rank_one_lies_in_one_direction() -> None:
    old = random(50, 40)

    found = compared(old + np.outer(random(50, seed=1), random(40, seed=2)), old)

    assert found.leading_share == pytest.approx(1.0, abs=1e-12)
    assert found.numbers.stable_rank == pytest.approx(1.0, abs=1e-12)


def test_intruders_are_counted_with_the_arguments_given_and_say_so() -> None:
    old = np.diag(np.linspace(2.0, 1.0, 64))
    direction = np.full(64, 64**-0.5)
    new = old + 20.0 * np.outer(direction, random(64, seed=3))

    default, strict = compared(new, old), delta_numbers(new, old, LayerKind.LINEAR, "F32", threshold=0.1)

    # The new direction has cosine 1/8 with each of the parent's, which are the axes.
    assert (default.intruders, default.intruder_directions, default.intruder_threshold) == (1, 10, 0.5)
    assert strict.intruders == 0
    assert strict.intruder_threshold == 0.1
    assert delta_numbers(new, old, LayerKind.LINEAR, "F32", directions=3).intruder_directions == 3


@pytest.mark.parametrize("shape", [(30, 20), (1, 20), (20, 1), (1, 1), (8, 4, 3, 3), (5,)])
@pytest.mark.parametrize("value", [None, 0.0])
def test_no_change_is_told_as_such(shape: tuple[int, ...], value: float | None) -> None:
    layer = random(*shape) if value is None else np.zeros(shape)
    kind = LayerKind.CONV if len(shape) == 4 else LayerKind.LINEAR

    found = compared(layer, layer.copy(), kind)

    assert found.status is DeltaStatus.UNCHANGED
    assert found.relative_change == 0.0
    assert (found.intruders, found.intruder_directions, found.leading_share) == (0, 0, None)
    assert is_empty(found.numbers)
    assert not found.spectrum.any()
    assert len(found.spectrum) == found.numbers.num_eigenvalues > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["new", "old", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_that_is_not_finite_gives_a_status_and_no_number(bad: float, side: str, dtype: type) -> None:
    new: Matrix = random(30, 20).astype(dtype)
    old: Matrix = random(30, 20, seed=1).astype(dtype)
    if side != "old":
        new[3, 4] = bad
    if side != "new":
        old[3, 4] = bad

    found = compared(new, old)

    assert found.status is DeltaStatus.NON_FINITE
    assert is_empty(found.numbers)
    assert found.numbers.rank_loss is None
    assert len(found.spectrum) == 0
    assert (found.relative_change, found.leading_share, found.intruders) == (None, None, None)


def test_float32_values_further_apart_than_float32_reaches_are_compared() -> None:
    new = np.full((4, 4), 3e38, dtype=np.float32)

    found = compared(new, -new)

    assert found.status is DeltaStatus.OK
    assert found.relative_change == pytest.approx(2.0)
    assert found.leading_share == pytest.approx(1.0)


def test_a_difference_beyond_float64_is_not_finite() -> None:
    new = np.full((4, 4), 1.5e308)

    assert compared(new, -new).status is DeltaStatus.NON_FINITE


def test_a_parent_of_zeros_has_neither_a_relative_change_nor_directions() -> None:
    found = compared(random(20, 30), np.zeros((20, 30)))

    assert found.status is DeltaStatus.OK
    assert (found.relative_change, found.intruders, found.intruder_directions) == (None, None, 0)
    assert found.leading_share is not None


def test_a_layer_that_became_zero_has_changed_by_all_it_had() -> None:
    found = compared(np.zeros((20, 30)), random(20, 30))

    assert found.relative_change == pytest.approx(1.0)
    assert (found.intruders, found.intruder_directions) == (0, 0)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (40,)])
def test_a_single_row_or_column_has_one_eigenvalue(shape: tuple[int, ...]) -> None:
    old, change = random(*shape), random(*shape, seed=1)

    found = compared(old + change, old)

    assert found.status is DeltaStatus.OK
    assert found.spectrum == pytest.approx([np.linalg.norm(change) ** 2], rel=1e-6)
    assert found.leading_share == 1.0
    assert found.intruder_directions == 1


@settings(max_examples=20)
@given(st.sampled_from([1e-30, 1e-6, 1e6, 1e30, 1e100]), st.sampled_from([(70, 60), (60, 90)]))
def test_scaling_both_sides_moves_only_what_has_a_unit(scale: float, shape: tuple[int, int]) -> None:
    old = random(*shape)
    new = old + 0.2 * random(*shape, seed=1)

    plain, scaled = compared(new, old), compared(scale * new, scale * old)

    assert scaled.relative_change == pytest.approx(plain.relative_change, rel=1e-9)
    assert scaled.leading_share == pytest.approx(plain.leading_share, rel=1e-9)
    assert scaled.numbers.stable_rank == pytest.approx(plain.numbers.stable_rank, rel=1e-9)
    assert scaled.numbers.alpha == pytest.approx(plain.numbers.alpha, rel=1e-6)
    assert plain.numbers.log_norm is not None
    assert scaled.numbers.log_norm == pytest.approx(plain.numbers.log_norm + 2 * np.log10(scale), abs=1e-9)
    assert scaled.intruders == plain.intruders
    assert np.isfinite(scaled.spectrum).all()


def test_an_empty_tensor_is_unchanged() -> None:
    found = compared(np.zeros((0, 5)), np.zeros((0, 5)))

    assert found.status is DeltaStatus.UNCHANGED
    assert len(found.spectrum) == 0


def test_layers_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(4, 3\)"):
        compared(np.ones((3, 4)), np.ones((4, 3)))


def test_arguments_out_of_range_are_refused_for_an_unchanged_layer_too() -> None:
    with pytest.raises(ValueError, match="directions"):
        delta_numbers(np.ones((3, 3)), np.ones((3, 3)), LayerKind.LINEAR, "F32", directions=0)


@pytest.mark.parametrize(("rows", "columns", "rank"), [(80, 60, 4), (60, 80, 1), (70, 70, 16), (40, 30, 50)])
def test_factors_give_the_numbers_of_their_product(rows: int, columns: int, rank: int) -> None:
    b, a = random(rows, rank), random(rank, columns, seed=1)
    parent = random(rows, columns, seed=2)
    product = 0.25 * b @ a

    found = low_rank_delta_numbers(b, a, 0.25, "F32", parent)
    dense = compared(product, np.zeros_like(product))
    against_parent = compared(parent + product, parent)

    kept = min(rank, rows, columns)
    exact = np.square(np.linalg.svd(product, compute_uv=False)[:kept][::-1])
    assert found.spectrum == pytest.approx(exact, rel=1e-6)
    for key, expected in asdict(dense.numbers).items():
        value = getattr(found.numbers, key)
        assert value == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected), key
    assert found.leading_share == pytest.approx(dense.leading_share, rel=1e-9)
    assert found.relative_change == pytest.approx(against_parent.relative_change, rel=1e-9)
    assert found.intruders == against_parent.intruders
    assert found.intruder_directions == against_parent.intruder_directions


def test_without_a_parent_the_product_is_never_formed() -> None:
    # The product would take 320 GB.
    side = 200_000
    b, a = np.full((side, 1), 0.5, dtype=np.float32), np.full((1, side), 0.25, dtype=np.float32)

    found = low_rank_delta_numbers(b, a, 2.0, "F32")

    # Rank one: sigma = scale ||b|| ||a|| = 2 * 0.5 * 0.25 * side, and side - 1 zeros are counted.
    assert found.spectrum == pytest.approx([(0.25 * side) ** 2])
    assert found.numbers.num_eigenvalues == side
    assert found.numbers.rank_loss == side - 1
    assert (found.relative_change, found.intruders, found.intruder_directions) == (None, None, 0)


@pytest.mark.parametrize(
    ("one", "other", "scale"), [(1e-30, 1e-30, 1.0), (1e30, 1e30, 1e-6), (1e150, 1e-150, 1.0)]
)
def test_tiny_and_huge_factors_keep_their_numbers(one: float, other: float, scale: float) -> None:
    b, a = random(90, 60), random(60, 80, seed=1)

    plain = low_rank_delta_numbers(b, a, 1.0, "F32")
    found = low_rank_delta_numbers(one * b, other * a, scale, "F32")

    assert plain.numbers.log_norm is not None
    assert found.numbers.log_norm == pytest.approx(
        plain.numbers.log_norm + 2 * np.log10(one * other * scale), abs=1e-9
    )
    assert found.numbers.stable_rank == pytest.approx(plain.numbers.stable_rank, rel=1e-9)
    assert found.leading_share == pytest.approx(plain.leading_share, rel=1e-9)


@pytest.mark.parametrize("which", ["b", "a", "scale"])
def test_an_adapter_that_was_never_trained_changes_nothing(which: str) -> None:
    # LoRA starts with B = 0.
    b, a = random(30, 4) * (which != "b"), random(4, 20) * (which != "a")

    found = low_rank_delta_numbers(b, a, 0.0 if which == "scale" else 2.0, "F32", random(30, 20))

    assert found.status is DeltaStatus.UNCHANGED
    assert (found.relative_change, found.intruders) == (0.0, 0)


@pytest.mark.parametrize("which", ["b", "a", "scale", "parent"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_adapter_that_is_not_finite_gives_a_status(which: str, bad: float) -> None:
    b, a, parent = random(30, 4), random(4, 20), random(30, 20)
    for name, values in (("b", b), ("a", a), ("parent", parent)):
        if which == name:
            values[0, 0] = bad

    found = low_rank_delta_numbers(b, a, bad if which == "scale" else 1.0, "F32", parent)

    assert found.status is DeltaStatus.NON_FINITE
    assert is_empty(found.numbers)


def test_a_product_beyond_float64_is_not_finite_where_it_must_be_formed() -> None:
    b, a = np.full((5, 1), 1e200), np.full((1, 5), 1e200)

    assert low_rank_delta_numbers(b, a, 1.0, "F32", np.ones((5, 5))).status is DeltaStatus.NON_FINITE
    alone = low_rank_delta_numbers(b, a, 1.0, "F32")
    assert alone.leading_share == 1.0
    assert is_empty(alone.numbers)


@pytest.mark.parametrize(
    ("b", "a", "parent"),
    [((5, 2), (3, 4), None), ((5,), (1, 4), None), ((5, 2), (2, 4), (4, 5)), ((5, 2), (2, 4), (5, 2, 3))],
)
def test_factors_that_do_not_fit_are_refused(
    b: tuple[int, ...], a: tuple[int, ...], parent: tuple[int, ...] | None
) -> None:
    with pytest.raises(ValueError, match=r"\("):
        low_rank_delta_numbers(
            np.ones(b), np.ones(a), 1.0, "F32", None if parent is None else np.ones(parent)
        )


def test_an_adapter_on_a_convolution_is_held_against_the_unfolded_parent() -> None:
    b, a, parent = random(16, 2), random(2, 72, seed=1), random(16, 8, 3, 3, seed=2)

    found = low_rank_delta_numbers(b, a, 5.0, "F32", parent)

    flat = parent.reshape(16, 72)
    assert found.intruders == compared(flat + 5.0 * b @ a, flat).intruders
    assert found.relative_change == pytest.approx(5.0 * np.linalg.norm(b @ a) / np.linalg.norm(parent))

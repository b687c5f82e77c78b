"""Measuring a model: one measurement per layer, and one broken tensor never stops the others."""

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

from layerwatch.metrics import elements
from layerwatch.metrics.change import Method
from layerwatch.metrics.errors import UnreadableReason
from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import FitStatus, LayerKind, Measurement
from layerwatch.metrics.openmodel import OpenModel
from layerwatch_testing.memoryreader import MemoryReader, opened, random_state

State = dict[str, NDArray[Any]]


def measured(model: OpenModel, baseline: OpenModel | None = None) -> dict[str, MeasuredLayer]:
    return {one.layer.name: one for one in measure_layers(model, lambda digest: False, baseline)}


def measurement_of(values: NDArray[Any], name: str = "fc.weight", **others: NDArray[Any]) -> Measurement:
    found = measured(opened({name: values} | others))[
        name.removesuffix(".weight") if values.ndim > 1 else name
    ]
    assert found.measurement is not None
    return found.measurement


def assert_finite(found: Measurement) -> None:
    for owner in (found, found.numbers, found.folded):
        for field in dataclasses.fields(owner) if owner is not None else ():
            value = getattr(owner, field.name)
            if isinstance(value, float):
                assert math.isfinite(value), field.name
            if isinstance(value, np.ndarray):
                assert np.isfinite(value).all(), field.name
                assert value.dtype == np.float32


def assert_without_spectrum(found: Measurement) -> None:
    for name in (
        "numbers",
        "folded",
        "spectrum",
        "folded_spectrum",
        "sketch",
        "row_norms",
        "column_norms",
        "kurtosis",
    ):
        assert getattr(found, name) is None, name


def test_a_layers_measurement_holds_its_numbers() -> None:
    values = random_state()["fc.weight"]
    values[3, 4] = -9.5
    values[0, :36] = 0.0

    found = measurement_of(values)

    assert (found.kind, found.shape, found.dtype) == (LayerKind.LINEAR, (64, 72), "F32")
    assert found.non_finite == 0
    assert found.max_abs == 9.5
    assert found.norm == pytest.approx(np.linalg.norm(values.astype(np.float64)), rel=1e-12)
    assert found.zero_share == 36 / (64 * 72)
    assert found.row_norms == pytest.approx(np.linalg.norm(values, axis=1), rel=1e-6)
    assert found.column_norms == pytest.approx(np.linalg.norm(values, axis=0), rel=1e-6)
    assert found.numbers is not None
    assert found.numbers.num_eigenvalues == 64
    assert found.numbers.fit_status is not FitStatus.DEGENERATE
    assert found.spectrum is not None
    assert found.spectrum == pytest.approx(np.sort(np.linalg.svd(values, compute_uv=False) ** 2), rel=1e-4)
    assert found.folded_spectrum is found.spectrum
    assert found.folded == found.numbers
    assert_finite(found)


def test_a_vectors_measurement_holds_its_hygiene_numbers_only() -> None:
    found = measurement_of(np.array([1.0, -2.0, 0.0, 2.0], dtype=np.float32), "fc.bias")

    assert (found.norm, found.max_abs, found.zero_share, found.non_finite) == (3.0, 2.0, 0.25, 0)
    assert_without_spectrum(found)


def test_vectors_come_first_and_each_group_in_file_order() -> None:
    found = list(measured(opened(random_state())))

    assert found == ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "fc.bias", "conv", "fc"]


def test_non_finite_weights_are_counted_and_nothing_else_is_computed() -> None:
    values = random_state()["fc.weight"]
    values[0, 0], values[5, 6], values[7, 8] = np.nan, np.inf, -np.inf
    values[1, :] = 0.0

    found = measurement_of(values)

    assert found.non_finite == 3
    assert math.isfinite(found.max_abs)
    assert math.isfinite(found.norm)
    assert found.zero_share == 72 / (64 * 72)
    assert_without_spectrum(found)


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_layers_are_measured_like_their_float32_values(kind: type) -> None:
    values: NDArray[Any] = random_state()["fc.weight"].astype(kind)

    found, expected = measurement_of(values), measurement_of(values.astype(np.float32))

    assert found.dtype != expected.dtype
    assert found.digest != expected.digest
    assert found.norm == expected.norm
    assert found.numbers is not None
    assert expected.numbers is not None
    assert found.numbers.alpha == expected.numbers.alpha


def test_a_tensor_that_cannot_be_read_is_a_problem_and_the_others_go_on() -> None:
    found = measured(opened(random_state(), broken={"fc.weight", "fc.bias"}))

    assert {name for name, one in found.items() if one.problem is not None} == {"fc", "fc.bias"}
    broken = found["fc"]
    assert broken.problem is not None
    assert broken.problem.reason is UnreadableReason.TRUNCATED
    assert broken.digest is None
    assert broken.measurement is None
    assert found["conv"].measurement is not None


def test_an_integer_layer_without_scale_is_a_problem() -> None:
    found = measured(opened({"q.weight": np.ones((8, 8), dtype=np.int8)}))["q"]

    assert found.problem is not None
    assert found.problem.reason is UnreadableReason.QUANTISED_WITHOUT_SCALE
    assert found.digest is None
    assert found.measurement is None


def test_memory_is_given_back_on_both_sides_for_every_layer_with_a_spectrum() -> None:
    reader, baseline_reader = MemoryReader(random_state(1)), MemoryReader(random_state(2))

    models = OpenModel(reader, "new"), OpenModel(baseline_reader, "baseline")
    found = list(measure_layers(models[0], lambda digest: False, models[1]))

    with_spectrum = sum(one.layer.has_spectrum for one in found)
    assert with_spectrum >= 2
    assert min(reader.released, baseline_reader.released) >= with_spectrum


def test_a_known_layer_is_hashed_and_not_measured_again() -> None:
    asked: list[str] = []

    def known(digest: str) -> bool:
        asked.append(digest)
        return True

    found = list(measure_layers(opened(random_state()), known))

    assert all(one.measurement is None and one.problem is None for one in found)
    assert asked == [one.digest for one in found]


@pytest.mark.parametrize("with_baseline", [False, True])
@pytest.mark.parametrize("answer", [False, True])
def test_known_is_asked_once_per_layer(with_baseline: bool, answer: bool) -> None:
    asked: list[str] = []

    def known(digest: str) -> bool:
        asked.append(digest)
        return answer

    baseline = opened(random_state(1)) if with_baseline else None
    found = list(measure_layers(opened(random_state()), known, baseline))

    assert len(asked) == len(found) == 7


def test_with_a_baseline_layers_are_compared_exactly_even_when_their_measurement_is_known() -> None:
    new, old = random_state(1), random_state(2)

    found = {one.layer.name: one for one in measure_layers(opened(new), lambda digest: True, opened(old))}

    exact = found["fc"].exact
    assert exact is not None
    assert exact.method is Method.EXACT
    expected = np.linalg.norm(new["fc.weight"] - old["fc.weight"]) / np.linalg.norm(old["fc.weight"])
    assert exact.relative_change == pytest.approx(expected, rel=1e-6)
    assert found["conv"].exact is not None
    # Of a vector, the factors between the elements.
    bias = found["fc.bias"].exact
    assert bias is not None
    assert bias.rescaling is not None
    ratios = new["fc.bias"] / old["fc.bias"]
    told = (ratios > 0.0) & (np.abs(old["fc.bias"]) > 0.1)
    # To the step in which they are kept.
    assert bias.rescaling.rows.values()[told] == pytest.approx(np.log(ratios[told]), abs=1.01e-4)
    assert found["fc"].measurement is None


def test_a_baseline_layer_of_another_shape_or_unreadable_or_missing_is_not_compared() -> None:
    new = random_state(1)
    reshaped = random_state(2) | {"fc.weight": np.ones((3, 72), dtype=np.float32)}
    without = {name: values for name, values in random_state(2).items() if name != "fc.weight"}

    assert measured(opened(new), opened(reshaped))["fc"].exact is None
    assert measured(opened(new), opened(random_state(2), broken={"fc.weight"}))["fc"].exact is None
    assert measured(opened(new), opened(without))["fc"].exact is None


def test_the_batch_norm_is_folded_into_what_is_compared_and_not_into_what_is_shown() -> None:
    state = random_state()
    found = measured(opened(state))["conv"].measurement
    unfolded = measurement_of(state["conv.weight"], "conv.weight")

    assert found is not None
    assert found.folded_by == "bn"
    assert found.numbers == unfolded.numbers
    assert unfolded.sketch is not None
    np.testing.assert_array_equal(found.raw_sketch, unfolded.sketch)
    assert unfolded.raw_sketch is None
    assert found.folded != found.numbers
    assert found.spectrum is not None
    assert found.folded_spectrum is not None
    assert not np.array_equal(found.spectrum, found.folded_spectrum)
    assert found.row_norms is not None
    factors = opened(state).factors(measured(opened(state))["conv"].layer)
    assert factors is not None
    expected = np.linalg.norm(state["conv.weight"].reshape(8, -1), axis=1) * factors
    assert found.row_norms == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("values", "kurtosis"),
    [
        # Half -1, half +1: the smallest kurtosis there is.
        (np.tile([-1.0, 1.0], (40, 20)), 1.0),
        # A uniform law has 9/5; 10,000 equidistant points are as good as one.
        (np.linspace(-1, 1, 10_000).reshape(100, 100), 1.8),
        # The same law beside a mean a million times its spread.
        (1e6 + np.linspace(-1, 1, 10_000).reshape(100, 100), 1.8),
    ],
)
def test_kurtosis_is_the_fourth_standardised_moment(values: NDArray[np.float64], kurtosis: float) -> None:
    assert measurement_of(values).kurtosis == pytest.approx(kurtosis, rel=1e-3)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3, 1e30])
def test_equal_weights_have_no_kurtosis(constant: float) -> None:
    assert measurement_of(np.full((60, 70), constant)).kurtosis is None
    assert measurement_of(np.full((60, 70), constant, dtype=np.float32)).kurtosis is None


def hostile_states() -> dict[str, State]:
    state = random_state()
    flipped, huge, subnormal = (state["conv.weight"].copy() for _ in range(3))
    flipped[0, 0, 0, 0] = 2.0**127
    huge[:] = 3e38
    subnormal[:] = 1e-45
    overflowing = state["fc.weight"].astype(np.float64)
    overflowing[0, 0] = 1.7e308
    return {
        "flipped exponent bit": state | {"conv.weight": flipped},
        "largest numbers": state | {"conv.weight": huge, "fc.weight": np.full((64, 72), -3e38, np.float32)},
        "subnormal numbers": state | {"conv.weight": subnormal},
        "overflowing float64": {"fc.weight": overflowing, "fc.bias": np.full(9, 1e300)},
        "tiny float64": {"fc.weight": np.full((64, 72), 1e-300), "fc.bias": np.full(9, 1e-300)},
        "NaN gain and variance": state
        | {"bn.weight": np.full(8, np.nan, np.float32), "bn.running_var": np.full(8, -np.inf, np.float32)},
        "huge gain": state | {"bn.weight": np.full(8, 3e38, np.float32)},
        "gain of another length": state | {"bn.weight": np.ones(3, np.float32)},
        "no elements": {"fc.weight": np.ones((0, 7), np.float32), "fc.bias": np.ones(0, np.float32)},
        "one element": {"fc.weight": np.ones((1, 1), np.float32), "fc.bias": np.ones(1, np.float32)},
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", hostile_states())
def test_hostile_values_are_measured_without_infinities_errors_or_warnings(name: str) -> None:
    for one in measured(opened(hostile_states()[name])).values():
        assert one.problem is None
        assert one.measurement is not None
        assert_finite(one.measurement)


def test_a_giant_float64_layer_keeps_its_norm() -> None:
    found = measurement_of(np.full((8, 8), 1e200))

    assert found.norm == pytest.approx(8e200)
    assert found.max_abs == 1e200


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.floats(-20, 15), st.integers(0, 2**32 - 1))
def test_scaling_a_float32_layer_scales_its_norms_and_nothing_else(
    rows: int, columns: int, decades: float, seed: int
) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, columns))
    one, other = (measurement_of((values * c).astype(np.float32)) for c in (1.0, 10.0**decades))

    assert other.norm == pytest.approx(one.norm * 10.0**decades, rel=1e-5)
    assert other.kurtosis == pytest.approx(one.kurtosis, rel=1e-4)
    assert one.numbers is not None
    assert other.numbers is not None
    assert other.numbers.stable_rank == pytest.approx(one.numbers.stable_rank, rel=1e-4)
    assert_finite(other)


def test_numbers_do_not_depend_on_how_a_layer_is_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(opened(random_state()))

    monkeypatch.setattr(elements, "_BLOCK_ELEMENTS", 100)
    for name, one in measured(opened(random_state())).items():
        expected = whole[name].measurement
        assert one.measurement is not None
        assert expected is not None
        assert one.measurement.norm == pytest.approx(expected.norm, rel=1e-12)
        if expected.kurtosis is not None:
            assert one.measurement.kurtosis == pytest.approx(expected.kurtosis, rel=1e-9)
            assert one.measurement.row_norms == pytest.approx(expected.row_norms, rel=1e-6)
            assert one.measurement.column_norms == pytest.approx(expected.column_norms, rel=1e-6)

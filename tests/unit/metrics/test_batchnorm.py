"""Batch norms: which layer each belongs to, and what folding does to a comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.batchnorm import (
    EPSILON,
    BatchNorm,
    find_batchnorms,
    fold_factors,
    statistics_are_empty,
)
from layerwatch.metrics.tensors import TensorInfo
from layerwatch_testing.models import State, examination_of, examine_states, scan, write_safetensors


def info(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, shape, "F32", 4 * int(np.prod(shape)))


def norm(name: str, channels: int, affine: bool = True) -> list[TensorInfo]:
    parts = ("weight", "bias", "running_mean", "running_var") if affine else ("running_mean", "running_var")
    return [info(f"{name}.{part}", channels) for part in parts]


def pairs(*tensors: TensorInfo) -> dict[str, str]:
    return {weight: found.name for weight, found in find_batchnorms(tensors).items()}


@pytest.mark.parametrize(
    ("layer", "batchnorm"),
    [
        ("conv1", "bn1"),
        ("layer1.0.conv2", "layer1.0.bn2"),
        ("block.conv_dw", "block.bn_dw"),
        ("stem.conv1", "stem.norm1"),
        ("fc1", "bn1"),
        ("head.linear2", "head.norm2"),
        ("stem.conv", "stem.bn"),
        ("stem.conv", "stem.norm"),
        ("features.0", "features.1"),
        ("layer2.0.downsample.0", "layer2.0.downsample.1"),
        ("0", "1"),
        ("reduce", "bn_reduce"),
        ("reduce", "reduce_bn"),
    ],
)
def test_a_layer_is_paired_by_each_naming_habit(layer: str, batchnorm: str) -> None:
    assert pairs(info(f"{layer}.weight", 16, 3, 3, 3), *norm(batchnorm, 16)) == {f"{layer}.weight": batchnorm}


def test_a_whole_residual_block_is_paired() -> None:
    found = pairs(
        info("b.conv1.weight", 16, 8, 3, 3),
        *norm("b.bn1", 16),
        info("b.conv2.weight", 16, 16, 3, 3),
        *norm("b.bn2", 16),
        info("b.downsample.0.weight", 16, 8, 1, 1),
        *norm("b.downsample.1", 16),
    )

    assert found == {
        "b.conv1.weight": "b.bn1",
        "b.conv2.weight": "b.bn2",
        "b.downsample.0.weight": "b.downsample.1",
    }


def test_a_batch_norm_without_gain_is_paired() -> None:
    tensors = [info("conv.weight", 4, 2, 3, 3), *norm("bn", 4, affine=False)]

    assert find_batchnorms(tensors) == {
        "conv.weight": BatchNorm("bn", None, "bn.running_mean", "bn.running_var")
    }


@pytest.mark.parametrize(
    "tensors",
    [
        # Another number of channels: a norm before the convolution, as in a pre-activation block.
        [info("conv1.weight", 32, 16, 3, 3), *norm("bn1", 16)],
        # A layer norm has no running statistics.
        [info("fc.weight", 16, 16), info("norm.weight", 16), info("norm.bias", 16)],
        # Half of the statistics is missing.
        [info("conv.weight", 16, 3, 3, 3), info("bn.weight", 16), info("bn.running_var", 16)],
        # Names that do not go together.
        [info("conv1.weight", 16, 3, 3, 3), *norm("bn2", 16)],
        # A vector is no layer.
        [info("conv1.weight", 16), *norm("bn1", 16)],
        # A damaged or hostile file: gain or mean of another length than the variance.
        [
            info("conv.weight", 16, 3, 3, 3),
            info("bn.weight", 7),
            info("bn.running_mean", 16),
            info("bn.running_var", 16),
        ],
        [info("conv.weight", 16, 3, 3, 3), info("bn.running_mean", 7), info("bn.running_var", 16)],
    ],
)
def test_what_does_not_belong_together_stays_unfolded(tensors: list[TensorInfo]) -> None:
    assert find_batchnorms(tensors) == {}


def test_one_batch_norm_is_folded_into_one_layer_only() -> None:
    found = pairs(info("conv.weight", 8, 3, 3, 3), info("fc.weight", 8, 8), *norm("bn", 8))

    assert found == {"conv.weight": "bn"}


BN = BatchNorm("bn", "bn.weight", "bn.running_mean", "bn.running_var")


def test_factors_are_what_the_batch_norm_multiplies_rows_with() -> None:
    gain, variance = np.array([2.0, -3.0, 0.0]), np.array([4.0, 0.25, 0.0])
    vectors = {"bn.weight": gain, "bn.running_mean": np.zeros(3), "bn.running_var": variance}

    # y = gain (x - mean) / sqrt(var + eps) + bias; a factor per output row, its sign left out.
    expected = np.abs(gain) / np.sqrt(variance + EPSILON)
    assert fold_factors(vectors, BN) == pytest.approx(expected, rel=1e-12)


@given(
    st.lists(
        st.tuples(st.floats(width=32), st.floats(width=32)),
        min_size=1,
        max_size=20,
    )
)
def test_factors_are_finite_whatever_the_vectors_hold(rows: list[tuple[float, float]]) -> None:
    gain, variance = np.array(rows).T
    vectors = {"bn.weight": gain, "bn.running_mean": variance, "bn.running_var": variance}

    factors = fold_factors(vectors, BN)

    assert np.isfinite(factors).all()
    assert (factors >= 0).all()


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), -1.0])
def test_a_damaged_variance_leaves_the_gain_alone(damage: float) -> None:
    vectors = {
        "bn.weight": np.array([2.0, 2.0]),
        "bn.running_mean": np.zeros(2),
        "bn.running_var": np.array([damage, 4.0]),
    }

    assert fold_factors(vectors, BN) == pytest.approx([2.0, 1.0], rel=1e-5)


def test_statistics_of_zeros_say_that_the_input_was_zero_in_training() -> None:
    zeros, ones = np.zeros(4), np.ones(4)

    # Real files hold 1e-43 where training drove a branch to zero.
    assert statistics_are_empty({"bn.running_mean": zeros + 1e-43, "bn.running_var": zeros}, BN)
    assert not statistics_are_empty({"bn.running_mean": zeros, "bn.running_var": ones}, BN)
    assert not statistics_are_empty({"bn.running_mean": ones, "bn.running_var": zeros}, BN)


def network(seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    generator = np.random.default_rng(seed)
    return {
        "conv1.weight": generator.standard_normal((16, 8, 3, 3)).astype(np.float32),
        "bn1.weight": generator.uniform(0.5, 1.5, 16).astype(np.float32),
        "bn1.bias": generator.standard_normal(16).astype(np.float32),
        "bn1.running_mean": generator.standard_normal(16).astype(np.float32),
        "bn1.running_var": generator.uniform(0.5, 2.0, 16).astype(np.float32),
    }


def rescaled(state: State, factors: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> State:
    """The same function: rows times c, variance times c^2, mean times c."""
    changed = dict(state)
    changed["conv1.weight"] = (state["conv1.weight"] * factors[:, None, None, None]).astype(np.float32)
    changed["bn1.running_var"] = (state["bn1.running_var"] * factors**2).astype(np.float32)
    changed["bn1.running_mean"] = (state["bn1.running_mean"] * factors).astype(np.float32)
    return changed


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "sketch"])
def test_a_rescaling_that_the_batch_norm_divides_out_is_no_change(tmp_path: Path, exact: bool) -> None:
    state = network(1)
    factors = np.random.default_rng(2).uniform(0.2, 5.0, 16)

    (layer,) = examine_states(tmp_path, rescaled(state, factors), state, exact).layers

    change = layer.change
    assert change is not None
    assert change.aligned is not None
    # The epsilon of 1e-5 beside variances of 0.02 and more: changes of 1e-4 remain.
    assert change.aligned.relative_change == pytest.approx(0.0, abs=2e-3)
    assert change.norm_ratio == pytest.approx(1.0, abs=2e-3)
    assert change.spectral_ratio == pytest.approx(1.0, abs=2e-3)
    assert change.stable_rank_ratio == pytest.approx(1.0, abs=2e-3)
    assert change.kurtosis_ratio == pytest.approx(1.0, abs=5e-3)
    assert change.esd_distance is not None
    assert change.esd_distance < 0.02


def test_the_same_rescaling_without_the_batch_norm_is_a_change(tmp_path: Path) -> None:
    state = network(1)
    factors = np.random.default_rng(2).uniform(0.2, 5.0, 16)
    changed = {**rescaled(state, factors), "bn1.running_var": state["bn1.running_var"]}

    (layer,) = examine_states(tmp_path, changed, state).layers

    assert layer.change is not None
    assert layer.change.aligned is not None
    assert layer.change.aligned.relative_change is not None
    assert layer.change.aligned.relative_change > 0.5


def test_folded_numbers_are_those_of_the_explicitly_folded_layer(tmp_path: Path) -> None:
    state = network(3)
    factors = np.abs(state["bn1.weight"]) / np.sqrt(state["bn1.running_var"] + EPSILON)
    by_hand = {"conv1.weight": (state["conv1.weight"] * factors[:, None, None, None]).astype(np.float64)}

    folded_scan = scan(write_safetensors(tmp_path / "folded.safetensors", state))
    explicit_scan = scan(write_safetensors(tmp_path / "explicit.safetensors", by_hand))
    (folded,) = examination_of(folded_scan).layers
    (explicit,) = examination_of(explicit_scan).layers

    assert folded.measurement is not None
    assert explicit.measurement is not None
    assert folded.measurement.folded_by == "bn1"
    assert explicit.measurement.folded_by is None
    assert folded.measurement.folded is not None
    assert explicit.measurement.numbers is not None
    for name in ("alpha", "log_norm", "stable_rank", "entropy", "log_spectral_norm"):
        assert getattr(folded.measurement.folded, name) == pytest.approx(
            getattr(explicit.measurement.numbers, name), rel=1e-5
        )
    assert folded.measurement.kurtosis == pytest.approx(explicit.measurement.kurtosis, rel=1e-5)
    # The numbers shown to the user are those of the stored layer.
    assert folded.measurement.numbers is not None
    assert folded.measurement.numbers.log_norm == pytest.approx(
        2 * np.log10(np.linalg.norm(state["conv1.weight"])), rel=1e-6
    )

"""An open model: its digests depend on what a measurement depends on, and on nothing else."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics import openmodel
from layerwatch.metrics.batchnorm import EPSILON
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.layers import Layer, Skipped
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.tensors import UnexaminedFile
from layerwatch_testing.memoryreader import MemoryReader, opened, random_state

State = dict[str, NDArray[Any]]


def layer_of(model: OpenModel, name: str) -> Layer:
    layer = model.layer_named(name)
    assert layer is not None
    return layer


def digest(state: State, name: str = "conv") -> str:
    model = opened(state)
    return model.read(layer_of(model, name)).digest


def test_equal_bytes_have_equal_digests_under_any_name_in_any_model() -> None:
    state = random_state()
    renamed = {name.replace("conv", "block.conv").replace("bn", "block.bn"): v for name, v in state.items()}

    assert digest(random_state()) == digest(state)
    assert digest(renamed, "block.conv") == digest(state)
    assert digest({"other.weight": state["fc.weight"]}, "other") == digest(state, "fc")


@pytest.mark.parametrize("tensor", ["conv.weight", "bn.weight", "bn.running_mean", "bn.running_var"])
def test_one_changed_bit_in_what_is_measured_changes_the_digest(tensor: str) -> None:
    state = random_state()
    changed = state[tensor].copy()
    changed.view(np.uint32).reshape(-1)[-1] ^= 1

    assert digest(state | {tensor: changed}) != digest(state)


@pytest.mark.parametrize("tensor", ["bn.bias", "fc.weight", "fc.bias"])
def test_what_is_not_folded_in_does_not_change_the_digest(tensor: str) -> None:
    state = random_state()

    assert digest(state | {tensor: state[tensor] + 1}) == digest(state)


def test_the_same_bytes_in_another_shape_type_or_kind_are_another_layer() -> None:
    values = random_state()["fc.weight"]
    as_stored = digest({"fc.weight": values}, "fc")

    assert digest({"fc.weight": values.reshape(72, 64)}, "fc") != as_stored
    # An embedding's matrix is measured as any other: tied weights are one measurement.
    assert digest({"emb.weight": values}, "emb") == as_stored
    kernel = values.reshape(64, 24, 3)
    assert digest({"conv.weight": kernel}, "conv") != digest({"fc.weight": values.reshape(2, 36, 64)}, "fc")
    halves = values.astype(np.float16)
    other_halves = {"fc.weight": halves.view(ml_dtypes.bfloat16)}
    assert digest(other_halves, "fc") != digest({"fc.weight": halves}, "fc")


def test_a_batch_norm_with_gain_is_told_from_one_without() -> None:
    state = random_state()
    without = {name: values for name, values in state.items() if name not in ("bn.weight", "bn.bias")}
    unfolded = {"conv.weight": state["conv.weight"]}

    assert len({digest(state), digest(without), digest(unfolded)}) == 3


def test_a_scale_is_part_of_the_digest() -> None:
    stored, scale = np.ones((6, 4), dtype=np.int8), np.full(6, 0.5, dtype=np.float32)

    def with_scale(values: NDArray[Any]) -> str:
        return digest({"q.weight": stored, "q.weight_scale": values}, "q")

    assert with_scale(scale) == with_scale(scale.copy())
    assert with_scale(scale) != with_scale(2 * scale)
    assert with_scale(scale) != digest({"q.weight": stored}, "q")


def test_the_digest_does_not_depend_on_the_memory_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    values = random_state()["fc.weight"]
    expected = digest({"fc.weight": values}, "fc")
    monkeypatch.setattr(openmodel, "_BLOCK_ELEMENTS", 100)

    assert digest({"fc.weight": np.asfortranarray(values)}, "fc") == expected


def test_only_the_vectors_of_batch_norms_are_loaded_on_opening() -> None:
    reader = MemoryReader(random_state())

    OpenModel(reader, "memory")

    assert sorted(reader.loaded) == ["bn.running_mean", "bn.running_var", "bn.weight"]


def test_factors_are_those_of_the_folded_batch_norm() -> None:
    state = random_state()
    model = opened(state)

    expected = state["bn.weight"].astype(float) / np.sqrt(state["bn.running_var"].astype(float) + EPSILON)
    assert model.factors(layer_of(model, "conv")) == pytest.approx(expected, rel=1e-12)
    assert model.factors(layer_of(model, "fc")) is None


def test_a_batch_norm_that_cannot_be_read_is_not_folded() -> None:
    model = opened(random_state(), broken={"bn.running_var"})
    conv = layer_of(model, "conv")

    assert model.factors(conv) is None
    assert model.statistics_are_empty(conv) is False
    assert model.read(conv).digest == digest({"conv.weight": random_state()["conv.weight"]})


def test_a_tensor_that_cannot_be_read_raises_when_its_turn_comes() -> None:
    model = opened(random_state(), broken={"fc.weight"})

    with pytest.raises(UnreadableError, match="7 bytes are missing"):
        model.read(layer_of(model, "fc"))


def test_empty_statistics_are_seen_through_the_layer() -> None:
    state = random_state()
    zeros = np.zeros(8, dtype=np.float32)
    empty = opened(state | {"bn.running_mean": zeros, "bn.running_var": zeros})

    assert empty.statistics_are_empty(layer_of(empty, "conv"))
    assert not opened(state).statistics_are_empty(layer_of(opened(state), "conv"))


def test_vectors_are_found_by_their_full_name_layers_by_their_short_one() -> None:
    model = opened(random_state())

    assert layer_of(model, "fc").tensor == "fc.weight"
    assert layer_of(model, "fc.bias").tensor == "fc.bias"
    assert model.layer_named("fc.weight") is None


def test_closing_a_model_closes_its_reader() -> None:
    reader = MemoryReader(random_state())

    OpenModel(reader, "memory").close()

    assert reader.closed


def test_what_the_reader_leaves_out_or_cannot_read_is_in_the_plan() -> None:
    reader = MemoryReader(random_state())
    reader.left_out = [("optimizer.pt", "training state")]
    reader.unexamined = [UnexaminedFile("m.gguf", UnreadableReason.UNKNOWN_FORMAT, "a GGUF file")]

    plan = OpenModel(reader, "memory").plan

    assert plan.skipped[-1] == Skipped("optimizer.pt", "training state")
    assert plan.unexamined == tuple(reader.unexamined)

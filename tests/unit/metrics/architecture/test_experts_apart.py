"""Stacked experts become one layer each, gate and up where they belong.

Expected values: what the forward pass of each model of transformers computes with the stack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.architecture.arranged import ArrangedReader
from layerwatch.metrics.experts import sibling
from layerwatch.metrics.tensors import TensorInfo
from layerwatch_testing.memoryreader import MemoryReader

Values = NDArray[Any]
EXPERTS, UNITS, WIDTH = 3, 12, 8
BLOCK = "model.layers.0.mlp"


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def arranged(state: dict[str, Values], config: dict[str, Any] | None = None) -> dict[str, Values]:
    reader = ArrangedReader(MemoryReader(state), "memory", config)
    listed = {one.name: one for one in reader.tensors()}
    found = {name: reader.load(name) for name in listed}
    assert {name: values.shape for name, values in found.items()} == {
        n: one.shape for n, one in listed.items()
    }
    return found


def test_gate_comes_first_in_transformers_5() -> None:
    fused, down = normal(0, EXPERTS, 2 * UNITS, WIDTH), normal(1, EXPERTS, WIDTH, UNITS)
    found = arranged({f"{BLOCK}.experts.gate_up_proj": fused, f"{BLOCK}.experts.down_proj": down})
    assert len(found) == 3 * EXPERTS
    inputs = normal(2, WIDTH)
    for number in range(EXPERTS):
        # modeling_mixtral.py: gate, up = linear(x, gate_up_proj[e]).chunk(2, dim=-1); linear(act(gate) * up, down_proj[e])
        gate, up = np.split(fused[number] @ inputs, 2)
        name = f"{BLOCK}.experts.{number}"
        np.testing.assert_allclose(found[f"{name}.gate_proj.weight"] @ inputs, gate, rtol=1e-5)
        np.testing.assert_allclose(found[f"{name}.up_proj.weight"] @ inputs, up, rtol=1e-5)
        np.testing.assert_array_equal(found[f"{name}.down_proj.weight"], down[number])
        assert sibling(f"{name}.down_proj") == (f"{BLOCK}.experts.*.down_proj", number)


def gpt_oss() -> dict[str, Values]:
    return {
        f"{BLOCK}.experts.gate_up_proj": normal(0, EXPERTS, WIDTH, 2 * UNITS),
        f"{BLOCK}.experts.gate_up_proj_bias": normal(1, EXPERTS, 2 * UNITS),
        f"{BLOCK}.experts.down_proj": normal(2, EXPERTS, UNITS, WIDTH),
        f"{BLOCK}.experts.down_proj_bias": normal(3, EXPERTS, WIDTH),
    }


@pytest.mark.parametrize("by_config", [True, False])
def test_gate_and_up_take_turns_in_gpt_oss(by_config: bool) -> None:
    state = gpt_oss()
    sinks = {} if by_config else {"model.layers.0.self_attn.sinks": normal(4, 4)}
    found = arranged(state | sinks, {"model_type": "gpt_oss"} if by_config else None)
    inputs, hidden = normal(5, WIDTH), normal(6, UNITS)
    for number in range(EXPERTS):
        # modeling_gpt_oss.py: x @ gate_up_proj[e] + bias[e]; gate = [..., ::2], up = [..., 1::2]; h @ down_proj[e] + bias
        both = inputs @ state[f"{BLOCK}.experts.gate_up_proj"][number]
        both = both + state[f"{BLOCK}.experts.gate_up_proj_bias"][number]
        out = hidden @ state[f"{BLOCK}.experts.down_proj"][number]
        out = out + state[f"{BLOCK}.experts.down_proj_bias"][number]
        name = f"{BLOCK}.experts.{number}"
        for module, given_in, expected in (
            ("gate_proj", inputs, both[::2]),
            ("up_proj", inputs, both[1::2]),
            ("down_proj", hidden, out),
        ):
            given_out = found[f"{name}.{module}.weight"] @ given_in + found[f"{name}.{module}.bias"]
            np.testing.assert_allclose(given_out, expected, rtol=1e-4, atol=1e-5)


def test_unpacked_experts_of_gpt_oss_are_the_same_as_those_in_full_precision() -> None:
    full = gpt_oss()
    # The packed form is stored (experts, outputs, inputs): fp4.py.
    packed = {
        name: values if name.endswith("_bias") else np.ascontiguousarray(values.swapaxes(1, 2))
        for name, values in full.items()
    }
    config = {"model_type": "gpt_oss"}
    one, other = arranged(full, config), arranged(packed, config)
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize(
    ("experts", "config"),
    [("model.layers.0.feed_forward.experts", None), (f"{BLOCK}.experts", {"model_type": "qwen3_vl_moe"})],
)
def test_gate_comes_first_in_llama_4_and_qwen_3_vl(experts: str, config: dict[str, Any] | None) -> None:
    fused, down = normal(0, EXPERTS, WIDTH, 2 * UNITS), normal(1, EXPERTS, UNITS, WIDTH)
    found = arranged({f"{experts}.gate_up_proj": fused, f"{experts}.down_proj": down}, config)
    np.testing.assert_array_equal(found[f"{experts}.1.gate_proj.weight"], fused[1, :, :UNITS].T)
    np.testing.assert_array_equal(found[f"{experts}.1.up_proj.weight"], fused[1, :, UNITS:].T)
    np.testing.assert_array_equal(found[f"{experts}.1.down_proj.weight"], down[1].T)


@pytest.mark.parametrize(
    "shapes",
    [
        # Transposed, and nobody says whether the rows take turns.
        {"gate_up_proj": (EXPERTS, WIDTH, 2 * UNITS), "down_proj": (EXPERTS, UNITS, WIDTH)},
        # A bias, and not known to be gpt-oss.
        {
            "gate_up_proj": (EXPERTS, 2 * UNITS, WIDTH),
            "gate_up_proj_bias": (EXPERTS, 2 * UNITS),
            "down_proj": (EXPERTS, WIDTH, UNITS),
        },
        {"gate_up_proj": (EXPERTS, 2 * UNITS, WIDTH)},
        {"gate_up_proj": (EXPERTS, 2 * UNITS, WIDTH), "down_proj": (EXPERTS, WIDTH, UNITS + 1)},
        {"gate_up_proj": (EXPERTS, 2 * UNITS, WIDTH), "down_proj": (EXPERTS + 1, WIDTH, UNITS)},
        {"down_proj": (5000, 1, 1)},
        {"down_proj": (0, 2, 2)},
        {"down_proj": (4, 4)},
    ],
)
def test_a_stack_whose_layout_is_not_certain_stays_whole(shapes: dict[str, tuple[int, ...]]) -> None:
    state = {f"{BLOCK}.experts.{name}": normal(0, *shape) for name, shape in shapes.items()}
    assert list(arranged(state)) == list(state)


def test_more_experts_than_any_model_has_stay_in_their_stacks() -> None:
    class Listed(MemoryReader):
        def tensors(self) -> list[TensorInfo]:
            return [
                TensorInfo(f"{number}.experts.down_proj", (4096, 1, 1), "F32", 16384) for number in range(65)
            ]

    reader = Listed({})
    assert list(ArrangedReader(reader, "memory").tensors()) == reader.tensors()


def test_whole_numbers_with_scales_stay_in_their_stack() -> None:
    name = f"{BLOCK}.experts.down_proj"
    state: dict[str, Values] = {
        name: np.ones((2, 4, 4), np.int8),
        f"{name}_scale": np.ones((2, 4, 1), np.float32),
    }
    assert list(arranged(state)) == list(state)


def test_mixtral_of_transformers_4_and_5_have_one_spelling() -> None:
    stacks = {which: normal(number, EXPERTS, UNITS, WIDTH) for number, which in enumerate(("w1", "w3"))}
    stacks["w2"] = normal(2, EXPERTS, WIDTH, UNITS)
    router = normal(3, EXPERTS, WIDTH)
    old = {
        f"model.layers.0.block_sparse_moe.experts.{number}.{which}.weight": stack[number]
        for which, stack in stacks.items()
        for number in range(EXPERTS)
    } | {"model.layers.0.block_sparse_moe.gate.weight": router}
    new = {
        f"{BLOCK}.experts.gate_up_proj": np.concatenate([stacks["w1"], stacks["w3"]], axis=1),
        f"{BLOCK}.experts.down_proj": stacks["w2"],
        f"{BLOCK}.gate.weight": router,
    }
    one, other = arranged(old), arranged(new)
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


def test_scales_of_mixtral_keep_their_weights() -> None:
    before = "model.layers.0.block_sparse_moe.experts.0.w1"
    found = arranged(
        {f"{before}.weight": np.ones((4, 4), np.int8), f"{before}.weight_scale": np.ones(4, np.float32)}
    )
    assert list(found) == [f"{BLOCK}.experts.0.gate_proj.weight", f"{BLOCK}.experts.0.gate_proj.weight_scale"]


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_experts_put_together_again_are_the_stack(
    experts: int, units: int, width: int, transposed: bool, in_turn: bool
) -> None:
    fused = np.arange(experts * 2 * units * width, dtype=np.float32).reshape(experts, 2 * units, width)
    down = np.arange(experts * units * width, dtype=np.float32).reshape(experts, width, units)
    if transposed:
        fused, down = fused.swapaxes(1, 2), down.swapaxes(1, 2)
    config = {"model_type": "gpt_oss" if in_turn else "llama4"}
    found = arranged({"mlp.experts.gate_up_proj": fused, "mlp.experts.down_proj": down}, config)
    for number in range(experts):
        gate, up = (found[f"mlp.experts.{number}.{which}_proj.weight"] for which in ("gate", "up"))
        whole = np.stack([gate, up], axis=1).reshape(-1, width) if in_turn else np.concatenate([gate, up])
        np.testing.assert_array_equal(whole, fused[number].T if transposed else fused[number])
        one = found[f"mlp.experts.{number}.down_proj.weight"]
        np.testing.assert_array_equal(one, down[number].T if transposed else down[number])

"""Layers that hold several matrices are taken apart, and only where their layout is certain.

Expected values: the reshapes that each model of transformers does in its forward pass, applied to the weights, or the
operator of torch that owns the layout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.architecture.arranged import ArrangedReader
from layerwatch.metrics.architecture.fused import ATTENTION, Layout
from layerwatch_testing.memoryreader import MemoryReader

Values = NDArray[Any]
HEADS, SIZE = 4, 8
WIDTH = HEADS * SIZE


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def arranged(state: dict[str, Values], config: dict[str, Any] | None = None) -> dict[str, Values]:
    reader = ArrangedReader(MemoryReader(state), "memory", config)
    listed = {one.name: one for one in reader.tensors()}
    found = {name: reader.load(name) for name in listed}
    for name, values in found.items():
        assert values.shape == listed[name].shape
        assert not values.flags.writeable
    return found


def test_phi3_is_taken_apart_by_its_output_projection() -> None:
    block = "model.layers.0"
    query, key, value = normal(0, 32, 24), normal(1, 16, 24), normal(2, 16, 24)
    gate, up = normal(3, 40, 24), normal(4, 40, 24)
    found = arranged(
        {
            f"{block}.self_attn.qkv_proj.weight": np.concatenate([query, key, value]),
            f"{block}.self_attn.o_proj.weight": normal(5, 24, 32),
            f"{block}.mlp.gate_up_proj.weight": np.concatenate([gate, up]),
            f"{block}.mlp.down_proj.weight": normal(6, 24, 40),
        }
    )
    assert list(found) == [
        *(f"{block}.self_attn.{name}_proj.weight" for name in "qkvo"),
        *(f"{block}.mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    ]
    expected = {
        "self_attn.q": query,
        "self_attn.k": key,
        "self_attn.v": value,
        "mlp.gate": gate,
        "mlp.up": up,
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(found[f"{block}.{name}_proj.weight"], values)


@pytest.mark.parametrize("model_type", ["gpt_neox", "bloom"])
def test_heads_in_turn_are_sorted(model_type: str) -> None:
    weight, bias = normal(0, 3 * WIDTH, WIDTH), normal(1, 3 * WIDTH)
    heads = {"n_head": HEADS} if model_type == "bloom" else {"num_attention_heads": HEADS}
    found = arranged(
        {"a.query_key_value.weight": weight, "a.query_key_value.bias": bias},
        {"model_type": model_type} | heads,
    )
    # modeling_gpt_neox.py: qkv.view(batch, length, heads, 3 * size).chunk(3, dim=-1), on outputs W x + b.
    inputs = normal(2, WIDTH)
    outputs = torch.from_numpy(weight @ inputs + bias).view(HEADS, 3 * SIZE).chunk(3, dim=-1)
    for name, expected in zip(ATTENTION, outputs, strict=True):
        given_out = found[f"a.{name}.weight"] @ inputs + found[f"a.{name}.bias"]
        np.testing.assert_allclose(given_out, expected.reshape(-1).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "groups"),
    [
        ({"new_decoder_architecture": True, "num_kv_heads": 2}, 2),
        ({"new_decoder_architecture": False, "multi_query": True}, 1),
        ({"new_decoder_architecture": False, "multi_query": False}, HEADS),
        ({"multi_query": True}, 1),
        ({"n_head_kv": 2}, 2),
    ],
)
def test_the_groups_of_falcon_are_sorted(config: dict[str, Any], groups: int) -> None:
    weight = normal(0, WIDTH + 2 * groups * SIZE, WIDTH)
    found = arranged(
        {"a.query_key_value.weight": weight}, {"model_type": "falcon", "num_attention_heads": HEADS} | config
    )
    # modeling_falcon.py, _split_heads: view(groups, heads / groups + 2, size); queries are all but the last two.
    grouped = weight.reshape(groups, HEADS // groups + 2, SIZE, WIDTH)
    np.testing.assert_array_equal(found["a.q_proj.weight"], grouped[:, :-2].reshape(WIDTH, WIDTH))
    np.testing.assert_array_equal(found["a.k_proj.weight"], grouped[:, -2].reshape(-1, WIDTH))
    np.testing.assert_array_equal(found["a.v_proj.weight"], grouped[:, -1].reshape(-1, WIDTH))


def test_torch_attention_is_taken_apart_as_torch_does() -> None:
    torch.manual_seed(0)
    attention = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    torch.nn.init.normal_(attention.in_proj_bias)
    state = {name: values.numpy() for name, values in attention.state_dict().items()}
    found = arranged({f"layer.{name}": values for name, values in state.items()})
    separate: dict[str, Any] = {
        f"{part}_proj_weight": torch.from_numpy(np.array(found[f"layer.{part}_proj.weight"]))
        for part in "qkv"
    }
    inputs = torch.randn(2, 5, WIDTH).transpose(0, 1)
    common: dict[str, Any] = {
        "embed_dim_to_check": WIDTH,
        "num_heads": HEADS,
        "in_proj_bias": torch.from_numpy(
            np.concatenate([found[f"layer.{part}_proj.bias"] for part in "qkv"])
        ),
        "bias_k": None,
        "bias_v": None,
        "add_zero_attn": False,
        "dropout_p": 0.0,
        "out_proj_weight": attention.out_proj.weight,
        "out_proj_bias": attention.out_proj.bias,
    }
    multi_head = torch.nn.functional.multi_head_attention_forward
    expected, _ = multi_head(inputs, inputs, inputs, in_proj_weight=attention.in_proj_weight, **common)
    given_out, _ = multi_head(
        inputs, inputs, inputs, in_proj_weight=None, use_separate_proj_weight=True, **separate, **common
    )
    torch.testing.assert_close(given_out, expected)


def gpt2() -> dict[str, Values]:
    return {
        "h.0.attn.bias": np.tri(8, dtype=np.float32)[None, None],
        "h.0.attn.c_attn.weight": normal(0, 16, 48),
        "h.0.attn.c_attn.bias": normal(1, 48),
        "h.0.attn.c_proj.weight": normal(2, 16, 16),
        "h.0.mlp.c_fc.weight": normal(3, 16, 64),
        "h.0.mlp.c_proj.weight": normal(4, 64, 16),
        "h.0.ln_1.weight": normal(5, 16),
        "wte.weight": normal(6, 40, 16),
    }


def test_gpt2_is_turned_over_and_taken_apart() -> None:
    state = gpt2()
    found = arranged(state)
    # pytorch_utils.Conv1D: x W + b; modeling_gpt2.py splits the outputs in three.
    inputs = normal(7, 16)
    outputs = np.split(inputs @ state["h.0.attn.c_attn.weight"] + state["h.0.attn.c_attn.bias"], 3)
    for part, expected in zip("qkv", outputs, strict=True):
        given_out = found[f"h.0.attn.{part}_proj.weight"] @ inputs + found[f"h.0.attn.{part}_proj.bias"]
        np.testing.assert_allclose(given_out, expected, rtol=1e-4, atol=1e-5)
    for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        np.testing.assert_array_equal(found[f"h.0.{name}.weight"], state[f"h.0.{name}.weight"].T)
    for name in ("h.0.attn.bias", "h.0.ln_1.weight", "wte.weight"):
        np.testing.assert_array_equal(found[name], state[name])


@pytest.mark.parametrize(
    ("state", "config"),
    [
        # Heads unknown.
        ({"a.query_key_value.weight": (96, 32)}, None),
        ({"a.query_key_value.weight": (96, 32)}, {"model_type": "gpt_neox"}),
        ({"a.query_key_value.weight": (96, 32)}, {"model_type": "gpt_neox", "num_attention_heads": 5}),
        ({"a.query_key_value.weight": (96, 32)}, {"model_type": "gpt_neox", "num_attention_heads": "4"}),
        # Laid out in yet another way, by models that are not known here.
        ({"a.query_key_value.weight": (96, 32)}, {"model_type": "chatglm", "num_attention_heads": 4}),
        # CodeGen: parts for several devices, in another order.
        ({"h.0.attn.qkv_proj.weight": (96, 32), "h.0.attn.out_proj.weight": (32, 32)}, None),
        # No output projection, or one that does not fit.
        ({"a.self_attn.qkv_proj.weight": (96, 32)}, None),
        ({"a.self_attn.qkv_proj.weight": (96, 32), "a.self_attn.o_proj.weight": (31, 32)}, None),
        ({"a.self_attn.qkv_proj.weight": (95, 32), "a.self_attn.o_proj.weight": (32, 32)}, None),
        ({"a.self_attn.qkv_proj.weight": (54, 32), "a.self_attn.o_proj.weight": (32, 32)}, None),
        # A linear c_attn may have its heads in turn.
        ({"h.0.attn.c_attn.weight": (96, 32), "h.0.attn.c_proj.weight": (32, 32)}, None),
        ({"h.0.attn.c_attn.weight": (32, 64), "h.0.attn.c_proj.weight": (32, 32)}, None),
        ({"h.0.attn.c_attn.weight": (32, 96)}, None),
        # Mamba.
        ({"mixer.in_proj.weight": (96, 32)}, None),
        ({"in_proj_weight": (90, 32)}, None),
        ({"mlp.gate_up_proj.weight": (96, 32)}, None),
        ({"mlp.gate_up_proj.weight": (96, 32), "mlp.down_proj.weight": (48, 32)}, None),
        # The bias is of another layer.
        ({"in_proj_weight": (96, 32), "in_proj_bias": (32,)}, None),
        # A part's name is taken.
        ({"in_proj_weight": (96, 32), "k_proj.weight": (32, 32)}, None),
        ({"in_proj_weight": (0, 0)}, None),
    ],
)
def test_what_is_not_certain_stays_whole(
    state: dict[str, tuple[int, ...]], config: dict[str, Any] | None
) -> None:
    tensors = {name: normal(0, *shape) for name, shape in state.items()}
    assert list(arranged(tensors, config)) == list(state)


@pytest.mark.parametrize(
    ("config", "apart"),
    [
        ({"model_type": "gpt_bigcode", "multi_query": True}, True),
        ({"model_type": "gpt_bigcode", "multi_query": False}, False),
        ({"model_type": "nano"}, False),
    ],
)
def test_a_linear_c_attn_is_taken_apart_for_one_key_of_all_heads(config: dict[str, Any], apart: bool) -> None:
    tensors = {"h.0.attn.c_attn.weight": normal(0, 48, 32), "h.0.attn.c_proj.weight": normal(1, 32, 32)}
    found = arranged(tensors, config)
    assert ("h.0.attn.k_proj.weight" in found) is apart
    if apart:
        np.testing.assert_array_equal(
            found["h.0.attn.k_proj.weight"], tensors["h.0.attn.c_attn.weight"][32:40]
        )


@pytest.mark.parametrize("shape", [(), (1,), (96,), (96, 1)])
def test_scales_go_with_their_rows(shape: tuple[int, ...]) -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (96, 32)).astype(np.int8)
    scale = np.asarray(np.abs(normal(1, *shape)), np.float32)
    found = arranged(
        {
            "a.self_attn.qkv_proj.weight": codes,
            "a.self_attn.qkv_proj.weight_scale": scale,
            "a.self_attn.o_proj.weight": normal(2, 32, 32),
        }
    )
    whole = codes * scale.reshape(-1, 1)
    parts = [
        found[f"a.self_attn.{part}_proj.weight"]
        * found[f"a.self_attn.{part}_proj.weight_scale"].reshape(-1, 1)
        for part in "qkv"
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_scale_of_another_shape_keeps_the_layer_whole() -> None:
    state: dict[str, Values] = {
        "a.self_attn.qkv_proj.weight": np.ones((96, 32), np.int8),
        "a.self_attn.qkv_proj.weight_scale": np.ones((3, 1), np.float32),
        "a.self_attn.o_proj.weight": normal(2, 32, 32),
    }
    assert list(arranged(state)) == list(state)


def test_parts_are_views_of_one_reading() -> None:
    whole = normal(0, 96, 32)
    reader = MemoryReader({"in_proj_weight": whole})
    parts = ArrangedReader(reader, "memory")
    for part in "qkv":
        assert np.shares_memory(parts.load(f"{part}_proj.weight"), whole)
    assert reader.loaded == ["in_proj_weight"]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, int]:
    runs = draw(st.integers(1, 5))
    shares = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    names = tuple(f"part{number}" for number in range(len(shares)))
    return Layout(names, tuple(share * runs for share in shares), runs), draw(st.integers(1, 6))


@given(layouts())
@settings(max_examples=200, deadline=None)
def test_parts_put_together_again_are_the_whole(drawn: tuple[Layout, int]) -> None:
    layout, columns = drawn
    whole = np.arange(sum(layout.sizes) * columns).reshape(-1, columns)
    parts = [take(whole) for _, _, take in layout.takes()]
    assert [len(part) for part in parts] == list(layout.sizes)
    runs = [part.reshape(layout.runs, -1, columns) for part in parts]
    np.testing.assert_array_equal(np.concatenate(runs, axis=1).reshape(-1, columns), whole)


_WORDS = st.sampled_from(
    (
        *(
            "qkv_proj",
            "o_proj",
            "query_key_value",
            "dense",
            "c_attn",
            "c_proj",
            "Wqkv",
            "out_proj",
            "in_proj",
        ),
        *("gate_up_proj", "down_proj", "experts.gate_up_proj", "experts.down_proj", "q_proj"),
        *("lora_A", "lora_B", "base_layer"),
    )
)
_SUFFIXES = st.sampled_from([".weight", ".bias", "", "_weight", "_bias", ".weight_scale", ".a.weight"])
_BEFORE = st.sampled_from(["", "self_attn.", "h.0.attn.", "h.0.mlp.", "model.layers.0.self_attn."])
_SHAPES = st.lists(st.sampled_from([0, 1, 2, 4, 6, 12]), max_size=4).map(tuple)
_CONFIGS = st.fixed_dictionaries(
    {
        "model_type": st.sampled_from(["gpt_neox", "falcon", "bloom", "gpt_oss", "llama4", 3, None]),
        "num_attention_heads": st.one_of(
            st.sampled_from([0, 1, 2, 3, -1, 10**30, True, "2", None, 2.0]), st.lists(st.integers())
        ),
        "num_key_value_heads": st.sampled_from([0, 1, 2, None, [], [1, 2]]),
        "text_config": st.one_of(st.none(), st.text(), st.dictionaries(st.text(), st.integers())),
    }
)


@given(
    st.dictionaries(st.tuples(_BEFORE, _WORDS, _SUFFIXES).map("".join), _SHAPES, max_size=8),
    _CONFIGS,
    st.one_of(
        st.none(),
        st.dictionaries(st.sampled_from(["lora_alpha", "alpha_pattern"]), st.integers() | st.text()),
    ),
)
@settings(max_examples=400, deadline=None)
def test_whatever_a_model_is_called_all_of_it_is_handed_out_once(
    shapes: dict[str, tuple[int, ...]], config: dict[str, Any], adapter: dict[str, Any] | None
) -> None:
    state = {name: normal(0, *shape) for name, shape in shapes.items()}
    reader = ArrangedReader(MemoryReader(state), "memory", config, adapter)
    listed = reader.tensors()
    assert len({one.name for one in listed}) == len(listed)
    for one in listed:
        assert reader.load(one.name).shape == one.shape
    added = {name for name, _ in reader.left_out}
    elements = sum(values.size for name, values in state.items() if name not in added)
    assert sum(reader.load(one.name).size for one in listed) == elements + _copies(listed)


def _copies(listed: Any) -> int:
    """Scales of one number, which each part of a layer gets."""
    scales: dict[str, int] = {}
    for one in listed:
        module, _, last = one.name.rpartition(".")
        before, _, part = module.rpartition(".")
        if (
            last == "weight_scale"
            and one.shape in {(), (1,), (1, 1), (1, 1, 1), (1, 1, 1, 1)}
            and part in ATTENTION
        ):
            scales[before] = scales.get(before, 0) + 1
    return sum(count - 1 for count in scales.values() if count == 3)

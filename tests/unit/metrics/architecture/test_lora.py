"""Low-rank changes beside their base layers are added as the network adds them.

Expected values: the forward pass of ``peft/tuners/lora/layer.py``: base(x) + scaling * B(A(x)).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from layerwatch.metrics.architecture.arranged import ArrangedReader
from layerwatch.metrics.openmodel import open_layers
from layerwatch_testing.memoryreader import MemoryReader

Values = NDArray[Any]
PEFT = {"peft_type": "LORA", "r": 2, "lora_alpha": 6}


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(target: str = "layers.0.q_proj", adapter: str = ".default") -> dict[str, Values]:
    return {
        f"{target}.base_layer.weight": normal(0, 6, 5),
        f"{target}.base_layer.bias": normal(1, 6),
        f"{target}.lora_A{adapter}.weight": normal(2, 2, 5),
        f"{target}.lora_B{adapter}.weight": normal(3, 6, 2),
    }


def forward(
    state: dict[str, Values], inputs: Values, scaling: float, target: str = "layers.0.q_proj"
) -> Values:
    base = state[f"{target}.base_layer.weight"] @ inputs
    a, b = (next(v for name, v in state.items() if f"{target}.lora_{side}" in name) for side in "AB")
    return np.asarray(base + scaling * (b @ (a @ inputs)))


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        (PEFT, 3.0),
        (PEFT | {"use_rslora": True}, 6 / 2**0.5),
        (PEFT | {"alpha_pattern": {"q_proj": 8}}, 4.0),
        (PEFT | {"alpha_pattern": {"k_proj": 8}}, 3.0),
        ({"lora_alpha": "much"}, 1.0),
        (None, 1.0),
    ],
)
@pytest.mark.parametrize("adapter", [".default", ""])
def test_a_change_is_added_with_its_scaling(
    config: dict[str, Any] | None, scaling: float, adapter: str
) -> None:
    state = linear(adapter=adapter)
    reader = ArrangedReader(MemoryReader(state), "memory", None, config)
    assert [one.name for one in reader.tensors()] == ["layers.0.q_proj.weight", "layers.0.q_proj.bias"]
    inputs = normal(9, 5)
    found = reader.load("layers.0.q_proj.weight")
    np.testing.assert_allclose(found @ inputs, forward(state, inputs, scaling), rtol=1e-4, atol=1e-5)
    assert not found.flags.writeable
    told = dict(reader.left_out)
    assert len(told) == 2
    for reason in told.values():
        assert f"scaled by {scaling:g}" in reason
        assert ("adapter_config.json" in reason) is (config is None)


def test_the_change_goes_into_each_part_of_a_fused_layer() -> None:
    target = "model.layers.0.self_attn.qkv_proj"
    state = {
        f"{target}.base_layer.weight": normal(0, 12, 4),
        f"{target}.lora_A.default.weight": normal(1, 2, 4),
        f"{target}.lora_B.default.weight": normal(2, 12, 2),
        "model.layers.0.self_attn.o_proj.weight": normal(3, 4, 4),
    }
    wrapped = {f"base_model.model.{name}": values for name, values in state.items()}
    reader = ArrangedReader(MemoryReader(wrapped), "memory", None, PEFT)
    names = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkvo"]
    assert [one.name for one in reader.tensors()] == names
    inputs = normal(9, 4)
    found = np.concatenate([reader.load(name) for name in names[:3]])
    np.testing.assert_allclose(found @ inputs, forward(state, inputs, 3.0, target), rtol=1e-4, atol=1e-5)


def test_other_modules_keep_what_peft_put_before_them_where_not_all_are_wrapped() -> None:
    state = {f"base_model.model.{name}": values for name, values in linear().items()} | {
        "head.weight": normal(5, 3, 3)
    }
    names = [one.name for one in ArrangedReader(MemoryReader(state), "memory").tensors()]
    assert names == [
        "base_model.model.layers.0.q_proj.weight",
        "base_model.model.layers.0.q_proj.bias",
        "head.weight",
    ]


def test_the_change_of_an_embedding_is_transposed() -> None:
    # layer.py, Embedding: base[i] + scaling * (A.T[i] @ B.T).
    a, b, base = normal(0, 2, 7), normal(1, 5, 2), normal(2, 7, 5)
    state = {
        "wte.base_layer.weight": base,
        "wte.lora_embedding_A.default": a,
        "wte.lora_embedding_B.default": b,
    }
    found = ArrangedReader(MemoryReader(state), "memory", None, PEFT).load("wte.weight")
    np.testing.assert_allclose(found[3], base[3] + 3 * (a.T[3] @ b.T), rtol=1e-4, atol=1e-5)


def test_the_change_of_a_convolution_has_its_kernel_in_a() -> None:
    a, b, base = normal(0, 2, 4, 3, 3), normal(1, 5, 2, 1, 1), normal(2, 5, 4, 3, 3)
    state = {"c.base_layer.weight": base, "c.lora_A.d.weight": a, "c.lora_B.d.weight": b}
    found = ArrangedReader(MemoryReader(state), "memory", None, PEFT).load("c.weight")
    expected = base + 3 * np.einsum("or,rikl->oikl", b[:, :, 0, 0], a)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_change_of_a_transposed_layer_is_transposed() -> None:
    a, b, base = normal(0, 2, 4), normal(1, 12, 2), normal(2, 4, 12)
    state = {"h.0.c_fc.base_layer.weight": base, "h.0.c_fc.lora_A.d.weight": a, "h.0.c_fc.lora_B.d.weight": b}
    found = ArrangedReader(MemoryReader(state), "memory", None, PEFT).load("h.0.c_fc.weight")
    np.testing.assert_allclose(found, base + 3 * (b @ a).T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("declared", [True, False, None])
def test_a_square_layer_of_gpt2_is_composed_only_where_its_orientation_is_declared(
    declared: bool | None,
) -> None:
    a, b, base = normal(0, 2, 4), normal(1, 4, 2), normal(2, 4, 4)
    state = {"h.c_proj.base_layer.weight": base, "h.c_proj.lora_A.d.weight": a, "h.c_proj.lora_B.d.weight": b}
    config = PEFT if declared is None else PEFT | {"fan_in_fan_out": declared}
    reader = ArrangedReader(MemoryReader(state), "memory", None, config)
    if declared is None:
        assert [one.name for one in reader.tensors()] == list(state)
    else:
        change = 3 * (b @ a)
        expected = base + (change.T if declared else change)
        np.testing.assert_allclose(reader.load("h.c_proj.weight"), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_is_added_in_single_precision() -> None:
    state = {name: values.astype(ml_dtypes.bfloat16) for name, values in linear().items()}
    reader = ArrangedReader(MemoryReader(state), "memory")
    found = reader.load("layers.0.q_proj.weight")
    wide = {name: values.astype(np.float32) for name, values in state.items()}
    inputs = normal(9, 5)
    np.testing.assert_allclose(found @ inputs, forward(wide, inputs, 1.0), rtol=1e-4, atol=1e-5)
    assert (found.dtype.name, reader.tensors()[0].dtype) == ("float32", "BF16")


@pytest.mark.parametrize(
    "others",
    [
        {"layers.0.q_proj.lora_A.second.weight": (2, 5), "layers.0.q_proj.lora_B.second.weight": (6, 2)},
        {"layers.0.q_proj.lora_magnitude_vector.default.weight": (6,)},
        {"layers.0.q_proj.weight": (6, 5)},
        {"layers.0.q_proj.base_layer.weight_scale": (6,)},
        {"layers.0.q_proj.lora_A.default.weight": (2, 4)},
        {"layers.0.q_proj.lora_B.default.weight": (6, 3)},
        {"layers.0.q_proj.lora_B.default.weight": (0, 2)},
        {"layers.0.q_proj.lora_A.default.weight": (5,)},
    ],
)
def test_what_cannot_be_added_with_certainty_stays_apart(others: dict[str, tuple[int, ...]]) -> None:
    state = linear() | {name: normal(4, *shape) for name, shape in others.items()}
    reader = ArrangedReader(MemoryReader(state), "memory")
    assert [one.name for one in reader.tensors()] == list(state)
    assert not reader.left_out


def test_an_adapter_in_a_file_of_its_own_stays_as_it_is() -> None:
    state = {name: values for name, values in linear().items() if "lora" in name}
    assert [one.name for one in ArrangedReader(MemoryReader(state), "memory", None, PEFT).tensors()] == list(
        state
    )


def test_the_configuration_beside_the_weights_is_used(tmp_path: Path) -> None:
    state = linear()
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(PEFT))
    model = open_layers(tmp_path / "model.safetensors")
    layer = model.layer_named("layers.0.q_proj")
    assert layer is not None
    inputs = normal(9, 5)
    np.testing.assert_allclose(
        model.values(layer) @ inputs, forward(state, inputs, 3.0), rtol=1e-4, atol=1e-5
    )
    assert any("scaled by 3" in one.reason for one in model.plan.skipped)
    model.close()

"""One network, stored in several ways: the same layers, digests, couplings, and nothing measured twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from layerwatch.metrics.api import compare_models, measure_model
from layerwatch.metrics.architecture.arranged import ArrangedReader
from layerwatch.metrics.couplings import find_couplings
from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.openmodel import OpenModel
from layerwatch_testing.coupled import State, couplings_of, transformer
from layerwatch_testing.memoryreader import MemoryReader


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def as_gpt2_stores(state: State) -> State:
    """The same network with its attention fused and every layer (inputs, outputs)."""
    kept = {name: values for name, values in state.items() if ".attn." not in name and ".mlp." not in name}
    for block in (0, 1):
        attention, feed_forward = f"h.{block}.attn", f"h.{block}.mlp"
        fused = np.concatenate([state[f"{attention}.{part}_proj.weight"] for part in "qkv"])
        kept[f"{attention}.c_attn.weight"] = fused.T
        kept[f"{attention}.c_proj.weight"] = state[f"{attention}.o_proj.weight"].T
        for name, own in (("c_fc", "fc1"), ("c_proj", "fc2")):
            kept[f"{feed_forward}.{name}.weight"] = state[f"{feed_forward}.{own}.weight"].T
            if f"{feed_forward}.{own}.bias" in state:
                kept[f"{feed_forward}.{name}.bias"] = state[f"{feed_forward}.{own}.bias"]
    return {name: np.ascontiguousarray(values) for name, values in kept.items()}


def test_layers_of_gpt2_are_in_step_as_those_stored_the_other_way() -> None:
    state = transformer()
    stored = ArrangedReader(MemoryReader(as_gpt2_stores(state)), "memory")
    found = {(one.kind, one.value) for one in find_couplings(OpenModel(stored, "memory"))}
    expected = {(one.kind, one.value) for one in couplings_of(state)}
    assert len(found) == len(expected)
    for (kind, value), (other_kind, other) in zip(sorted(found), sorted(expected), strict=True):
        assert kind == other_kind
        assert value == pytest.approx(other, rel=1e-4, abs=1e-3)


def test_a_network_in_four_forms_has_the_same_numbers(tmp_path: Path) -> None:
    width, units, heads = 64, 96, 4
    parts = {part: normal(number, width, width) for number, part in enumerate("qkvo")}
    gate, up, down = normal(4, units, width), normal(5, units, width), normal(6, width, units)
    block = "model.layers.0"
    attention = {f"{block}.self_attn.{part}_proj.weight": values for part, values in parts.items()}
    feed_forward = {
        f"{block}.mlp.gate_proj.weight": gate,
        f"{block}.mlp.up_proj.weight": up,
        f"{block}.mlp.down_proj.weight": down,
    }
    norm = {f"{block}.input_layernorm.weight": 1 + normal(7, width) / 8}
    plain = attention | feed_forward | norm
    fused = norm | {
        f"{block}.self_attn.qkv_proj.weight": np.concatenate([parts[part] for part in "qkv"]),
        f"{block}.self_attn.o_proj.weight": parts["o"],
        f"{block}.mlp.gate_up_proj.weight": np.concatenate([gate, up]),
        f"{block}.mlp.down_proj.weight": down,
    }
    save_file(plain, tmp_path / "plain.safetensors")
    save_file(fused, tmp_path / "fused.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    writer = gguf.GGUFWriter(tmp_path / "llama.gguf", "llama")
    writer.add_uint32("llama.attention.head_count", heads)
    for name, values in plain.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            # LlamaModel.permute of llama.cpp's converter.
            values = values.reshape(heads, 2, width // heads // 2, width).swapaxes(1, 2).reshape(width, width)
        writer.add_tensor(names.get_name(name, (".weight",)) or "", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = measure_model(tmp_path / "plain.safetensors")
    for file in ("fused.safetensors", "llama.gguf"):
        found = measure_model(tmp_path / file)
        assert {one.name: one.digest for one in found.layers} == {
            one.name: one.digest for one in expected.layers
        }
        assert {one.name for one in found.vectors} == {one.name for one in expected.vectors}
    comparison = compare_models(tmp_path / "llama.gguf", tmp_path / "plain.safetensors")
    assert not comparison.only_in_new
    assert not comparison.only_in_baseline
    assert str(comparison.judgement.verdict) == "pass"


def test_layers_with_the_same_bytes_are_measured_once() -> None:
    """As tied weights that are stored twice; callers keep measurements by digest."""
    shared = normal(0, 64, 32)
    state = {
        "encoder.lm_head.weight": shared,
        "decoder.lm_head.weight": shared.copy(),
        "other.weight": normal(1, 64, 32),
    }
    kept: set[str] = set()
    taken = 0
    for measured in measure_layers(OpenModel(MemoryReader(state), "memory"), kept.__contains__):
        if measured.measurement is not None:
            kept.add(measured.measurement.digest)
            taken += 1
        assert measured.problem is None
    assert taken == 2

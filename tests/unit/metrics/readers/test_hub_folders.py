"""Folders as model hubs hold them: several formats of one model, parts of several programs, names that mislead."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from layerwatch.metrics.api import compare_models
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.openmodel import open_layers
from layerwatch.metrics.quantised.declared import Configuration
from layerwatch_testing.models import write_safetensors

Weights = dict[str, NDArray[Any]]
WIDTH = 64
CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "vocab_size": 96,
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
_PARTS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "input_layernorm": "attn_norm"}


def llama(seed: int = 0) -> Weights:
    random = np.random.default_rng(seed)
    weights: Weights = {"model.embed_tokens.weight": random.standard_normal((96, WIDTH)).astype(np.float32)}
    for block in range(2):
        for part in _PARTS:
            shape = (WIDTH,) if "norm" in part else (WIDTH, WIDTH)
            name = f"model.layers.{block}.{part}.weight"
            weights[name] = (1.5 + 0.1 * random.standard_normal(shape)).astype(np.float32)
    return weights


def save(folder: Path, weights: Weights, config: Mapping[str, Any] = CONFIG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", weights)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def gguf_name(name: str) -> str:
    parts = name.removesuffix(".weight").split(".")
    shown = "token_embd" if "embed" in name else f"blk.{parts[2]}.{_PARTS['.'.join(parts[3:])]}"
    return f"{shown}.weight"


def add_gguf(path: Path, weights: Weights, architecture: str) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    for name, values in weights.items():
        writer.add_tensor(gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("architecture", ["llama", "gemma"])
def test_a_gguf_beside_safetensors_leaves_their_layers_as_they_are(tmp_path: Path, architecture: str) -> None:
    weights = llama()
    alone = save(tmp_path / "alone", weights)
    both = save(tmp_path / "both", weights)
    add_gguf(both / "model-f32.gguf", weights, architecture)

    one, other = open_layers(alone), open_layers(both)

    for layer in (*one.plan.layers, *one.plan.vectors):
        twin = other.layer_named(layer.name)
        assert twin is not None
        assert np.array_equal(one.values(layer), other.values(twin))


def test_an_onnx_that_names_a_weight_file_as_its_data_does_not_hide_it(tmp_path: Path) -> None:
    broken = {"fc.weight": np.ones((4, 4), np.float32), "nan.weight": np.full((4, 4), np.nan, np.float32)}
    save(tmp_path, broken)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(1, 4))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "model.safetensors"), ("offset", "0"), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    sides = [helper.make_tensor_value_info(side, TensorProto.FLOAT, [1, 4]) for side in "xy"]
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", sides[:1], sides[1:], [tensor])), tmp_path / "m.onnx"
    )

    assert "nan" in {layer.name for layer in open_layers(tmp_path).plan.layers}


def test_weights_beside_and_below_an_orbax_checkpoint_are_examined(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parents[3] / "_data" / "orbax" / "zarr.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    place = tmp_path / "zarr"
    write_safetensors(place / "model.safetensors", {"beside.weight": np.ones((4, 4), np.float32)})
    (place / "torch").mkdir()
    write_safetensors(place / "torch" / "x.safetensors", {"below.weight": np.ones((4, 4), np.float32)})

    names = " ".join(layer.name for layer in open_layers(place).plan.layers)

    assert "beside" in names
    assert "below" in names


def test_a_suffix_in_capitals_is_a_suffix(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "MODEL.SAFETENSORS", {"fc.weight": np.ones((4, 4), np.float32)})

    assert [layer.name for layer in open_layers(tmp_path).plan.layers] == ["fc"]


def add_quantised(path: Path, weights: Weights, kind: gguf.GGMLQuantizationType) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    for name, values in weights.items():
        stored = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_folder_of_ggufs_in_several_types_compares_with_its_parent_by_the_best(tmp_path: Path) -> None:
    weights = llama()
    (tmp_path / "ggufs").mkdir()
    for kind in (gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0):
        add_quantised(tmp_path / "ggufs" / f"tiny-{kind.name}.gguf", weights, kind)

    found = compare_models(tmp_path / "ggufs", save(tmp_path / "parent", weights))

    assert found.verdict is Verdict.PASS
    assert {layer.dtype for layer in found.layers} == {"Q8_0"}
    assert not found.report.findings
    assert [spot for spot in found.report.blind_spots if "tiny" in spot] == [
        "tiny-Q4_0.gguf: the same tensors as in other files, by name and shape; not examined."
    ]


def test_a_half_precision_variant_in_one_folder_of_a_pipeline_renames_no_layer(tmp_path: Path) -> None:
    for pipeline in ("before", "after"):
        for seed, part in enumerate(("unet", "vae")):
            save(tmp_path / pipeline / part, llama(seed))
    halves = {name: values.astype(np.float16) for name, values in llama(0).items()}
    write_safetensors(tmp_path / "after" / "unet" / "model.fp16.safetensors", halves)

    found = compare_models(tmp_path / "after", tmp_path / "before")

    assert found.verdict is Verdict.PASS
    assert not found.report.findings
    assert any("unet/model.fp16.safetensors" in spot for spot in found.report.blind_spots)


def gpt2() -> Weights:
    random = np.random.default_rng(1)
    shapes = {
        "attn.c_attn": (64, 192),
        "attn.c_proj": (64, 64),
        "mlp.c_fc": (64, 256),
        "mlp.c_proj": (256, 64),
    }
    return {
        f"h.{block}.{name}.weight": random.standard_normal(shape).astype(np.float32)
        for block in range(2)
        for name, shape in shapes.items()
    }


def test_gpt_2_in_int8_has_the_layers_of_its_parent(tmp_path: Path) -> None:
    """GPT-2 stores (in, out), and quantisers turn it."""
    weights, stored = gpt2(), dict[str, NDArray[Any]]()
    for name, values in weights.items():
        largest = np.abs(values).max(0)
        stored[name] = np.round(values.T / largest[:, None] * 127).astype(np.int8)
        stored[f"{name.removesuffix('weight')}SCB"] = largest
    config = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4}
    int8 = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}

    found = compare_models(save(tmp_path / "q", stored, config | int8), save(tmp_path / "p", weights, config))

    assert found.verdict is Verdict.PASS
    assert "h.1.attn.q_proj" in {layer.name for layer in found.layers}


@pytest.mark.parametrize(
    "parts",
    [
        {"indices": np.ones((1, 8, 64), np.int32), "centroids.weight": np.ones((1, 2048), np.float32)},
        {"dense_weights": np.ones((16, 64), np.int64), "row_offsets": np.arange(65, dtype=np.int32)},
    ],
    ids=["vptq", "spqr"],
)
def test_packed_layers_of_a_kind_that_is_not_undone_are_undecided(tmp_path: Path, parts: Weights) -> None:
    name = "model.layers.0.self_attn.q_proj"
    found = compare_models(
        *[save(tmp_path, {f"{name}.{part}": values for part, values in parts.items()})] * 2
    )

    assert found.verdict is Verdict.UNDECIDED


def test_a_folder_with_an_adapter_hides_no_missing_block(tmp_path: Path) -> None:
    weights = llama()
    save(tmp_path, weights, {**CONFIG, "num_hidden_layers": 3})
    (tmp_path / "adapter").mkdir()
    factors = {"a.lora_A.weight": (4, WIDTH), "a.lora_B.weight": (WIDTH, 4)}
    write_safetensors(
        tmp_path / "adapter" / "adapter_model.safetensors",
        {f"base_model.model.{name}": np.ones(shape, np.float32) for name, shape in factors.items()},
    )

    assert [str(one.kind) for one in open_layers(tmp_path).remarks()] == ["missing_blocks"]


def test_patterns_with_many_stars_take_no_time_to_speak_of() -> None:
    """Backtracking took 8 s for ten of them; compared with the same matches by plain pieces."""
    stars = ["*" + "a" * 500 + "b" + "*" * number for number in range(1, 11)]
    configuration = Configuration({"quantization_config": {"quant_method": "fp8", "ignore": stars}})

    assert not configuration.of("a" * 4000).excluded
    assert configuration.of("a" * 600 + "b").excluded

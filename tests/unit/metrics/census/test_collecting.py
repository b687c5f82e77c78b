"""What the storage of whole models contradicts: told from the files, and silent about healthy ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from layerwatch.metrics.census import collecting
from layerwatch.metrics.openmodel import OpenModel, open_layers
from layerwatch.metrics.readers.memory import MemoryReader
from quantisers import Stored, awq, fp8, gptq, heavy_tailed, int8, packed

REPOSITORY = Path(__file__).parents[4]
FIXTURES = sorted((REPOSITORY / "tests" / "_data" / "quantised").glob("*.safetensors"))
CHECKPOINTS = REPOSITORY.parent / "shared" / "checkpoints"
WEIGHT = heavy_tailed(64, 128)
GPTQ = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}


def opened(folder: Path, stored: Stored, config: Any = None) -> OpenModel:
    safetensors.numpy.save_file(stored, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return open_layers(folder)


def told(model: OpenModel) -> list[tuple[str, str]]:
    return [(one.layer, one.kind.value) for one in model.remarks()]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_what_the_libraries_stored_has_no_remark(path: Path) -> None:
    assert open_layers(path).remarks() == ()


def test_trained_networks_have_no_remark() -> None:
    files = [
        path for path in sorted(CHECKPOINTS.rglob("*")) if path.suffix in {".th", ".tar", ".jit", ".onnx"}
    ]
    if not files:
        pytest.skip(f"needs the trained networks of {CHECKPOINTS}")

    assert [open_layers(path).remarks() for path in files] == [()] * len(files)


@pytest.mark.parametrize("make", [gptq, awq, packed])
def test_scales_that_are_steps_of_hundreds_are_remarked(tmp_path: Path, make: Any) -> None:
    """ROCm/hip-ep #168: scales of down projections grew up to 548 with depth."""
    stored, _ = make(WEIGHT, group=32)
    role = next(name for name in stored if name.endswith(("scales", "weight_scale")))
    grown = stored | {role: np.full_like(stored[role], 548.0)}

    (remark,) = opened(tmp_path, grown).remarks()

    assert (remark.layer, remark.kind.value, remark.declared, remark.stored) == (
        "fc",
        "scales",
        "up to 100",
        "548",
    )


def test_remarks_of_names_and_of_values_are_told_with_their_layer(tmp_path: Path) -> None:
    healthy, _ = gptq(WEIGHT, group=32, name="a")
    second_version, _ = gptq(WEIGHT, group=32, version=2, name="b")
    missing, _ = gptq(WEIGHT, group=32, name="c")
    del missing["c.scales"]

    model = opened(tmp_path, healthy | second_version | missing, GPTQ)

    assert told(model) == [("b", "zero_point"), ("c", "missing_part")]


@pytest.mark.parametrize(
    ("stored", "part"),
    [
        (gptq(WEIGHT, group=32)[0], "fc.qweight"),
        (packed(WEIGHT, group=32)[0], "fc.weight_packed"),
        (int8(WEIGHT), "fc.weight"),
    ],
)
def test_parts_without_their_numbers_are_told_once(tmp_path: Path, stored: Stored, part: str) -> None:
    without = {name: values for name, values in stored.items() if name != part}

    (remark,) = opened(tmp_path, without).remarks()

    assert (remark.layer, remark.kind.value, remark.declared) == ("fc", "missing_part", part)


def test_a_layer_whose_parts_are_not_in_the_file_does_not_stop_the_others(tmp_path: Path) -> None:
    stored, _ = gptq(WEIGHT, group=32, name="a")
    wrong, _ = gptq(WEIGHT, group=32, version=2, name="b")
    model = opened(tmp_path, stored | wrong)
    safetensors.numpy.save_file(stored | wrong, tmp_path / "model.safetensors")

    assert told(model) == [("b", "zero_point")]


def test_only_so_many_remarks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: Stored = {}
    for number in range(4):
        stored |= gptq(WEIGHT, group=32, version=2, name=f"layers.{number}.fc")[0]
    monkeypatch.setattr(collecting, "MOST_REMARKS", 3)

    assert len(opened(tmp_path, stored).remarks()) == 3


def test_four_bits_in_bytes_are_no_contradiction(tmp_path: Path) -> None:
    """compressed-tensors int-quantized: W4A8 is stored in a byte per number."""
    weights = {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": True}
    config = {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        }
    }
    scale = np.abs(WEIGHT).max(1, keepdims=True) / 7
    stored: Stored = {
        "fc.weight": np.round(WEIGHT / scale).astype(np.int8),
        "fc.weight_scale": scale.astype(np.float32),
    }

    assert opened(tmp_path, stored, config).remarks() == ()


def test_a_model_that_is_stored_nowhere_has_no_remark() -> None:
    assert OpenModel(MemoryReader({"fc.weight": np.ones((4, 4), np.float32)}), "state").remarks() == ()


def test_reading_remarks_twice_gives_the_same(tmp_path: Path) -> None:
    model = opened(tmp_path, fp8(WEIGHT, name="a") | gptq(WEIGHT, version=2, group=32, name="b")[0])

    assert model.remarks() == model.remarks() != ()


def test_a_layer_is_told_under_the_names_under_which_it_is_examined(tmp_path: Path) -> None:
    """Mixtral's experts, and queries, keys and values that are stored as one matrix (Phi-3)."""
    expert, fused = "model.layers.0.block_sparse_moe.experts.0.w1", "model.layers.0.self_attn.qkv_proj"
    stored = gptq(WEIGHT, group=32, version=2, name=expert)[0]
    stored |= gptq(heavy_tailed(192, 64), group=32, version=2, name=fused)[0]
    stored["model.layers.0.self_attn.o_proj.weight"] = heavy_tailed(64, 64)
    config = {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 64}

    model = opened(tmp_path, stored, config)
    names = {layer.name for layer in model.plan.layers}

    assert {one.layer for one in model.remarks()} == names - {"model.layers.0.self_attn.o_proj"}
    assert len(names) == 5

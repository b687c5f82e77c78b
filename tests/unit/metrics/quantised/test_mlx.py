"""MLX's words and scales fix only a product: the configuration says the width, and the tensors count where they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.openmodel import open_layers
from layerwatch.metrics.quantised.schemes import find_quantised
from quantisers import Stored, pack
from storedlayers import facts, kinds_of, remarks_of, the_layer, values_of

RANDOM = np.random.default_rng(12)


def mlx(bits: int, group: int, *, rows: int = 8, columns: int = 256, name: str = "fc") -> tuple[Stored, Any]:
    """``w = scale * q + bias`` (documentation of ``mlx.core.quantize``), packed by Python's own whole numbers."""
    codes = RANDOM.integers(0, 2**bits, (rows, columns))
    scales = RANDOM.uniform(0.001, 0.002, (rows, columns // group)).astype(np.float16)
    biases = -RANDOM.uniform(0.001, 0.002, scales.shape).astype(np.float16)
    stored: Stored = {
        f"{name}.weight": pack(codes, bits).view(np.uint32),
        f"{name}.scales": scales,
        f"{name}.biases": biases,
    }
    wide = np.repeat(scales.astype(np.float64), group, 1), np.repeat(biases.astype(np.float64), group, 1)
    return stored, codes * wide[0] + wide[1]


def declared(bits: int, group: int, **others: Any) -> dict[str, Any]:
    return {"quantization": {"bits": bits, "group_size": group, **others}}


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_every_width_and_group_is_read_as_declared(bits: int, group: int) -> None:
    stored, expected = mlx(bits, group)

    layer = the_layer(stored, declared(bits, group))

    assert (layer.shape, layer.bits, layer.group_size, layer.remarks) == ((8, 256), bits, group, ())
    assert values_of(stored, declared(bits, group)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("bits", "group", "certain"), [(5, 64, True), (8, 128, True), (4, 64, False)])
def test_without_a_configuration_only_a_width_that_the_shapes_tell_is_read(
    bits: int, group: int, certain: bool
) -> None:
    stored, expected = mlx(bits, group)

    if certain:
        assert values_of(stored) == pytest.approx(expected, abs=1e-6)
        return
    with pytest.raises(UnreadableError, match="4 bits in groups of 64 or 8 bits in groups of 32") as caught:
        values_of(stored)
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR
    assert "config.json" in caught.value.detail


def test_the_rule_of_one_layer_comes_before_that_of_all() -> None:
    stored, expected = mlx(6, 32, name="model.down_proj")
    config = declared(4, 64, **{"model.down_proj": {"bits": 6, "group_size": 32}})

    assert values_of(stored, config) == pytest.approx(expected, abs=1e-6)
    assert remarks_of(stored, config) == []


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        (declared(4, 256), ["group_size"]),
        (declared(7, 128), ["bits"]),
        (declared(4, 128, fc=False), ["excluded"]),
        (declared(4, 128, mode="mxfp4"), ["format"]),
    ],
)
def test_a_declaration_that_contradicts_the_tensors_is_a_remark_and_the_tensors_count(
    config: dict[str, Any], kinds: list[str]
) -> None:
    stored, expected = mlx(4, 128)

    assert kinds_of(stored, config) == kinds
    assert values_of(stored, config) == pytest.approx(expected, abs=1e-6)


def test_a_declaration_wrong_in_a_way_that_leaves_two_readings_is_undecided() -> None:
    """4 bits in groups of 64 declared, words for 4 bits in groups of 32 or 2 bits in groups of 64."""
    stored, _ = mlx(4, 32)

    assert kinds_of(stored, declared(4, 64)) == ["group_size"]
    with pytest.raises(UnreadableError, match="4 bits in groups of 32 or 2 bits in groups of 64"):
        values_of(stored, declared(4, 64))


@pytest.mark.parametrize("missing", ["scales", "biases"])
def test_a_missing_part_is_named(missing: str) -> None:
    stored, _ = mlx(4, 64)
    del stored[f"fc.{missing}"]

    (remark,) = remarks_of(stored, declared(4, 64))

    assert (remark.kind, remark.declared) == ("missing_part", f"fc.{missing}")
    with pytest.raises(UnreadableError) as caught:
        values_of(stored, declared(4, 64))
    assert caught.value.reason is UnreadableReason.QUANTISED_WITHOUT_SCALE


@pytest.mark.parametrize("part", ["scales", "biases"])
def test_parts_that_do_not_fit_each_other_are_refused(part: str) -> None:
    stored, _ = mlx(4, 64)
    stored[f"fc.{part}"] = stored[f"fc.{part}"][:-1]

    assert kinds_of(stored, declared(4, 64)) == ["shapes"]
    with pytest.raises(UnreadableError, match="do not fit"):
        values_of(stored, declared(4, 64))


def test_words_that_nothing_declares_and_nothing_scales_are_not_of_mlx() -> None:
    table: Stored = {"rows.weight": np.zeros((4, 8), np.uint32), "fc.weight_scale": np.ones(4, np.float32)}

    assert find_quantised(facts(table)) == []


def test_nvfp4_scales_are_fp8_and_mxfp4_scales_powers_of_two() -> None:
    """OCP Microscaling Formats 1.0: code 0b0011 is 1.5, 0b1111 is -6; E8M0 127 is 1, 128 is 2; E4M3 1.5 has bits 0x3C."""
    words = np.full((1, 4), 0x333333F3, np.uint32)
    nvfp4: Stored = {
        "fc.weight": words,
        "fc.scales": np.array([[1.5, 0.5]]).astype(ml_dtypes.float8_e4m3fn).view(np.uint8),
    }
    mxfp4: Stored = {"fc.weight": words, "fc.scales": np.array([[128]], np.uint8)}

    ones = np.full(32, 1.5)
    ones[1::8] = -6.0
    assert values_of(nvfp4).tolist() == [(ones * np.repeat([1.5, 0.5], 16)).tolist()]
    assert values_of(mxfp4).tolist() == [(ones * 2).tolist()]
    assert kinds_of(mxfp4, declared(4, 32, mode="nvfp4")) == ["format"]
    with pytest.raises(UnreadableError, match="global scale"):
        values_of(nvfp4 | {"fc.global_scale": np.ones((), np.float32)})


def test_a_model_of_mlx_is_examined_under_the_names_of_its_parent(tmp_path: Path) -> None:
    stored, expected = mlx(4, 64, rows=64, columns=128, name="model.layers.0.mlp.up_proj")
    tensors = stored | {"model.norm.weight": np.ones(128, np.float16)}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(declared(4, 64)))

    model = open_layers(tmp_path)
    try:
        (layer,) = model.plan.layers
        assert (layer.name, layer.shape, layer.dtype) == ("model.layers.0.mlp.up_proj", (64, 128), "I4")
        assert model.read(layer).values() == pytest.approx(expected, abs=1e-6)
    finally:
        model.close()


def test_a_model_of_mlx_without_its_configuration_is_undecided(tmp_path: Path) -> None:
    stored, _ = mlx(4, 64, rows=64, columns=128)
    safetensors.numpy.save_file(dict(stored), tmp_path / "model.safetensors")

    model = open_layers(tmp_path)
    try:
        (layer,) = model.plan.layers
        with pytest.raises(UnreadableError, match=r"config\.json"):
            model.read(layer)
    finally:
        model.close()

"""Quantised layers of whole models: put together from their tensors, read as the configuration says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.openmodel import OpenModel, open_layers
from quantisers import Stored, awq, gptq, heavy_tailed, int8, packed

WEIGHT = heavy_tailed(64, 128)
GPTQ = {
    "quantization_config": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "checkpoint_format": "gptq_v2",
    }
}


def opened(folder: Path, stored: Stored, config: Any = None) -> OpenModel:
    safetensors.numpy.save_file(stored, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return open_layers(folder)


def test_a_layer_of_several_tensors_is_one_layer_under_its_own_name(tmp_path: Path) -> None:
    stored, expected = gptq(WEIGHT, group=32, version=2, name="model.up_proj")
    norm = {"model.norm.weight": np.ones(128, np.float32)}

    model = opened(tmp_path, stored | norm, GPTQ)

    (layer,) = model.plan.layers
    assert (layer.name, layer.kind.value, layer.shape, layer.dtype) == (
        "model.up_proj",
        "linear",
        (64, 128),
        "I4",
    )
    assert np.array_equal(model.read(layer).values(), expected)
    assert np.array_equal(model.values(layer), expected)
    assert sorted(one.name for one in model.plan.skipped) == [
        "model.norm.weight",
        "model.up_proj.g_idx",
        "model.up_proj.qzeros",
        "model.up_proj.scales",
    ]
    assert [one.name for one in model.plan.vectors] == ["model.norm.weight"]


def test_the_digest_covers_all_parts_and_how_they_are_read(tmp_path: Path) -> None:
    stored, _ = gptq(WEIGHT, group=32, version=2)
    digests = set()
    for place, (tensors, config) in enumerate(
        [
            (stored, GPTQ),
            (stored, None),
            (stored | {"fc.scales": stored["fc.scales"] * np.float16(2)}, GPTQ),
            (stored | {"fc.qzeros": stored["fc.qzeros"] ^ 1}, GPTQ),
        ]
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        model = opened(folder, tensors, config)
        digests.add(model.read(model.plan.layers[0]).digest)

    assert len(digests) == 4


@pytest.mark.parametrize("make", [gptq, awq, packed])
def test_every_packing_of_a_layer_has_the_name_and_shape_of_its_parent(tmp_path: Path, make: Any) -> None:
    model = opened(tmp_path, make(WEIGHT, group=32, name="embed_tokens")[0])

    (layer,) = model.plan.layers
    assert (layer.name, layer.shape, layer.kind.value) == ("embed_tokens", (64, 128), "embedding")


def test_int8_of_bitsandbytes_is_scaled_by_its_rows(tmp_path: Path) -> None:
    model = opened(tmp_path, int8(WEIGHT))

    (layer,) = model.plan.layers
    assert layer.dtype == "I8"
    assert model.values(layer) == pytest.approx(WEIGHT, abs=float(np.abs(WEIGHT).max()) / 127)


def test_a_layer_without_its_scales_ends_with_the_reason(tmp_path: Path) -> None:
    stored, _ = gptq(WEIGHT, group=32)
    del stored["fc.scales"]
    model = opened(tmp_path, stored)

    with pytest.raises(UnreadableError) as caught:
        model.read(model.plan.layers[0]).values()
    assert caught.value.reason is UnreadableReason.QUANTISED_WITHOUT_SCALE


def test_two_layers_never_end_under_one_name(tmp_path: Path) -> None:
    stored = gptq(WEIGHT, group=32)[0] | packed(WEIGHT, group=32)[0] | {"fc.weight": WEIGHT}

    names = [layer.name for layer in opened(tmp_path, stored).plan.layers]

    assert len(names) == len(set(names)) == 3

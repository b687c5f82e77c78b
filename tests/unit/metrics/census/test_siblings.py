"""Layers stored unlike those of their role in other blocks."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from layerwatch.metrics.census.remark import StorageRemark
from layerwatch.metrics.openmodel import open_layers
from quantisers import Stored, gptq, heavy_tailed

WEIGHT = heavy_tailed(64, 64)
QUANTISATION: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
ROLES = ("self_attn.q_proj", "mlp.down_proj")


def layer_names(blocks: int) -> list[str]:
    return [f"model.layers.{number}.{role}" for number in range(blocks) for role in ROLES]


def remarks(
    folder: Path, blocks: int, full: Collection[str], quantisation: dict[str, Any] | None
) -> tuple[StorageRemark, ...]:
    stored: Stored = {"model.embed_tokens.weight": WEIGHT, "lm_head.weight": WEIGHT}
    for name in layer_names(blocks):
        stored |= {f"{name}.weight": WEIGHT} if name in full else gptq(WEIGHT, group=32, name=name)[0]
    safetensors.numpy.save_file(stored, folder / "model.safetensors")
    if quantisation is not None:
        (folder / "config.json").write_text(json.dumps({"quantization_config": quantisation}))
    return open_layers(folder).remarks()


def told(found: tuple[StorageRemark, ...]) -> list[tuple[str, str, str]]:
    return [(one.layer, one.kind.value, one.declared) for one in found]


def test_roles_that_are_alike_in_every_block_are_silent(tmp_path: Path) -> None:
    queries = {name for name in layer_names(4) if name.endswith("q_proj")}

    assert remarks(tmp_path, 4, queries, QUANTISATION) == ()


@pytest.mark.parametrize("blocks", [2, 4])
def test_a_layer_left_out_against_the_configuration_is_named(tmp_path: Path, blocks: int) -> None:
    found = remarks(tmp_path, blocks, {"model.layers.1.mlp.down_proj"}, QUANTISATION)

    assert told(found) == [("model.layers.1.mlp.down_proj", "left_unquantised", "quantised")]
    assert f"{blocks - 1} of the {blocks} layers of its role are quantised" in found[0].detail


def test_without_a_configuration_the_majority_of_the_siblings_decides(tmp_path: Path) -> None:
    found = remarks(tmp_path, 3, {"model.layers.1.mlp.down_proj"}, None)

    assert told(found) == [("model.layers.1.mlp.down_proj", "left_unquantised", "")]


def test_without_a_configuration_one_against_one_is_silent(tmp_path: Path) -> None:
    assert remarks(tmp_path, 2, {"model.layers.1.mlp.down_proj"}, None) == ()


@pytest.mark.parametrize("quantisation", [QUANTISATION, None])
def test_a_layer_quantised_among_full_siblings_is_named(
    tmp_path: Path, quantisation: dict[str, Any] | None
) -> None:
    full = {f"model.layers.{number}.mlp.down_proj" for number in (0, 1, 3)}

    found = remarks(tmp_path, 4, full, quantisation)

    assert told(found) == [("model.layers.2.mlp.down_proj", "quantised_alone", "")]


@pytest.mark.parametrize(
    "rule",
    [
        {"modules_to_not_convert": ["model.layers.1.mlp.down_proj"]},
        {"modules_to_not_convert": ["layers.1"]},
        {"ignore": ["re:.*layers.1.*"]},
        # Not understood: it may be about any layer with these parts.
        {"ignore": [r"re:model\.layers\.(0|1)\.mlp\..*"]},
        {"dynamic": {r"-:.*\.1\..*": {}}},
        {"extra_config": {"model.layers.1.mlp.down_proj": {"bits": 16}}},
        {"own_rules": {"model.layers.1.mlp": "full"}},
        {"own_rules": [r".*\.layers\.[01]\..*"]},
    ],
)
def test_what_the_configuration_has_a_rule_for_is_silent(tmp_path: Path, rule: dict[str, Any]) -> None:
    found = remarks(tmp_path, 4, {"model.layers.1.mlp.down_proj"}, QUANTISATION | rule)

    # Where whole blocks are excluded, the quantised layers in them are told for themselves.
    assert [one for one in found if one.kind.value != "excluded"] == []


@pytest.mark.parametrize(
    "other",
    [
        {"modules_to_not_convert": ["model.layers.2.mlp.down_proj", "lm_head"]},
        {"ignore": ["re:.*layers.2.*"]},
        {"meta": {"quantizer": ["gptqmodel:2.2.0"], "uri": "https://example.org/gptqmodel"}},
        {"own_rules": {"model.layers.2.mlp": "full"}},
    ],
)
def test_rules_about_other_layers_excuse_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    found = remarks(tmp_path, 4, {"model.layers.1.mlp.down_proj"}, QUANTISATION | other)

    told_of = [one.layer for one in found if one.kind.value == "left_unquantised"]
    assert told_of == ["model.layers.1.mlp.down_proj"]


def groups(**other: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"]} | other},
    }


@pytest.mark.parametrize(
    ("quantisation", "is_told"),
    [
        (QUANTISATION, True),
        (groups(weights={"num_bits": 4}), True),
        (groups(weights=None, input_activations={"num_bits": 8}), False),
        (groups(weights={"num_bits": 4}) | {"format": "dense"}, False),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, True),
        ({"quant_method": "bitsandbytes"}, False),
        ({"quant_method": "of_tomorrow", "bits": 4}, False),
        (QUANTISATION | {"modules_to_not_convert": ["model", "lm_head"]}, False),
        (None, False),
    ],
)
def test_declared_weights_of_which_none_is_quantised_are_told(
    tmp_path: Path, quantisation: dict[str, Any] | None, is_told: bool
) -> None:
    found = remarks(tmp_path, 2, layer_names(2), quantisation)

    assert [one.kind.value for one in found] == ["nothing_quantised"] * is_told
    assert all(one.layer == "" for one in found)


def test_an_adapter_beside_the_configuration_of_its_model_is_silent(tmp_path: Path) -> None:
    stored = {
        "model.layers.0.q_proj.lora_A.weight": WEIGHT[:4],
        "model.layers.0.q_proj.lora_B.weight": WEIGHT[:, :4],
    }
    safetensors.numpy.save_file(
        {name: one.copy() for name, one in stored.items()}, tmp_path / "a.safetensors"
    )
    config = {"quantization_config": QUANTISATION, "num_hidden_layers": 2, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert open_layers(tmp_path).remarks() == ()

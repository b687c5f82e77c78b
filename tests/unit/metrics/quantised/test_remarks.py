"""What contradicts what, and what cannot be undone: a remark or a reason, never a crash and never silence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.quantised.declared import matches
from layerwatch.metrics.quantised.schemes import find_quantised, load
from quantisers import Stored, awq, fp8, gptq, heavy_tailed, int8, packed
from storedlayers import facts, getter, kinds_of, relative_error, remarks_of, the_layer, values_of

WEIGHT = heavy_tailed(64, 256)
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}


def group_config(**weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": groups,
            "ignore": ["lm_head"],
        }
    }


HEALTHY: list[tuple[Stored, dict[str, Any] | None]] = [
    (gptq(WEIGHT, group=32)[0], GPTQ),
    (gptq(WEIGHT, group=32, version=2)[0], GPTQ | {"checkpoint_format": "gptq_v2"}),
    (gptq(WEIGHT, group=32, symmetric=False)[0], {"quantization_config": GPTQ | {"sym": False}}),
    (gptq(WEIGHT, group=256)[0], GPTQ | {"group_size": -1}),
    (awq(WEIGHT, group=32)[0], AWQ),
    (awq(WEIGHT, group=256)[0], AWQ | {"group_size": -1}),
    (packed(WEIGHT, group=32)[0], group_config(num_bits=4, type="int", strategy="group", group_size=32)),
    (packed(WEIGHT, group=256)[0], group_config(num_bits=4, type="int", strategy="channel")),
    (fp8(WEIGHT), group_config(num_bits=8, type="float", strategy="channel")),
    (fp8(heavy_tailed(200, 300), block=128), {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    (int8(WEIGHT), {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    (int8(WEIGHT), None),
]


@pytest.mark.parametrize("place", range(len(HEALTHY)))
def test_a_healthy_layer_under_its_own_configuration_has_no_remark(place: int) -> None:
    stored, config = HEALTHY[place]

    assert remarks_of(stored, config) == []


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("written", "declared"), [(2, "gptq"), (1, "gptq_v2")])
def test_zero_points_of_the_other_version_are_remarked_and_spoil_the_values(
    written: int, declared: str, symmetric: bool
) -> None:
    """vllm #38966: zeros of version 2 under ``checkpoint_format: gptq``. Band: 0.36, field report 7.5."""
    weight = heavy_tailed(256, 256)
    stored, healthy = gptq(weight, group=64, version=written, symmetric=symmetric)
    config = GPTQ | {"group_size": 64, "sym": symmetric, "checkpoint_format": declared}

    (remark,) = remarks_of(stored, config)

    assert remark.kind.value == "zero_point"
    assert "off by one step" in remark.detail
    assert relative_error(values_of(stored, config), weight) > 2 * relative_error(healthy, weight)


def test_two_bits_stored_by_the_other_version_are_remarked_too() -> None:
    stored, _ = gptq(WEIGHT, bits=2, group=32, version=2)

    assert kinds_of(stored, GPTQ | {"bits": 2}) == ["zero_point"]


def test_awq_fields_in_plain_order_give_another_matrix() -> None:
    """Nothing but the parent shows this (field report 7.3): every number is plausible. Band: 1.23, field 7.5."""
    stored, healthy = awq(WEIGHT, group=32, order=range(8))

    found = values_of(stored, AWQ)

    assert remarks_of(stored, AWQ) == []
    assert relative_error(found, healthy) > 1.0


@pytest.mark.parametrize(
    ("stored", "config"),
    [
        (gptq(WEIGHT, group=32)[0], GPTQ | {"group_size": 128}),
        (gptq(WEIGHT, group=32)[0], GPTQ | {"group_size": -1}),
        (awq(WEIGHT, group=32)[0], AWQ | {"group_size": 64}),
        (packed(WEIGHT, group=32)[0], group_config(num_bits=4, type="int", strategy="group", group_size=128)),
        (packed(WEIGHT, group=32)[0], group_config(num_bits=4, type="int", strategy="channel")),
        (fp8(heavy_tailed(256, 256), block=64), {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    ],
)
def test_a_declared_group_size_that_the_scales_do_not_have_is_remarked(stored: Stored, config: Any) -> None:
    assert "group_size" in kinds_of(stored, config)
    assert np.isfinite(values_of(stored, config)).all()


def test_scales_for_groups_of_another_size_give_another_matrix() -> None:
    """Twice as many scales as the numbers were rounded with: only the parent shows it. Band: 0.22, field 7.5."""
    weight = heavy_tailed(256, 256)
    wide, healthy = gptq(weight, group=64)
    narrow, _ = gptq(weight, group=32)
    spoiled = wide | {"fc.qzeros": narrow["fc.qzeros"], "fc.scales": narrow["fc.scales"]}
    del spoiled["fc.g_idx"]

    assert relative_error(values_of(spoiled, GPTQ), weight) > 1.5 * relative_error(healthy, weight)


@pytest.mark.parametrize(
    ("stored", "part"),
    [
        (gptq(WEIGHT, group=32)[0], "fc.scales"),
        (gptq(WEIGHT, group=32)[0], "fc.qzeros"),
        (awq(WEIGHT, group=32)[0], "fc.scales"),
        (awq(WEIGHT, group=32)[0], "fc.qzeros"),
        (packed(WEIGHT, group=32)[0], "fc.weight_scale"),
        (int8(WEIGHT), "fc.SCB"),
    ],
)
def test_a_missing_scale_is_remarked_and_the_layer_is_refused(stored: Stored, part: str) -> None:
    without = {name: values for name, values in stored.items() if name != part}

    layer = the_layer(without)
    with pytest.raises(UnreadableError) as caught:
        values_of(without)

    assert [(one.kind.value, one.declared) for one in layer.remarks] == [("missing_part", part)]
    assert caught.value.reason is UnreadableReason.QUANTISED_WITHOUT_SCALE
    assert caught.value.path == "model"
    assert part.rpartition(".")[2] in caught.value.detail


def test_fp8_without_a_scale_is_missed_where_its_siblings_have_one() -> None:
    alone = {"a.weight": fp8(WEIGHT)["fc.weight"]}
    assert find_quantised(facts(alone)) == []

    beside = alone | fp8(WEIGHT, name="b")
    layers = {one.name: one for one in find_quantised(facts(beside))}
    assert [one.kind.value for one in layers["a"].remarks] == ["missing_part"]
    assert layers["b"].remarks == ()

    (declared,) = find_quantised(facts(alone), {"quant_method": "fp8"})
    assert [one.kind.value for one in declared.remarks] == ["missing_part"]
    assert find_quantised(facts(alone), {"quant_method": "fp8", "modules_to_not_convert": ["a"]}) == []


@pytest.mark.parametrize(
    ("stored", "config", "kinds"),
    [
        (gptq(WEIGHT, group=32)[0], AWQ, ["format"]),
        (awq(WEIGHT, group=32)[0], GPTQ, ["format"]),
        (awq(WEIGHT, group=32)[0], AWQ | {"version": "gemv"}, ["format"]),
        (gptq(WEIGHT, group=32)[0], GPTQ | {"bits": 8}, ["bits"]),
        (packed(WEIGHT, group=32)[0], group_config(num_bits=8, type="int"), ["bits"]),
        (fp8(WEIGHT), group_config(num_bits=8, type="int", strategy="channel"), ["format"]),
        (int8(WEIGHT), {"quant_method": "bitsandbytes", "load_in_4bit": True}, ["bits"]),
        (
            gptq(WEIGHT, group=32, name="lm_head")[0],
            GPTQ | {"modules_to_not_convert": ["lm_head"]},
            ["excluded"],
        ),
        (
            packed(WEIGHT, group=32, name="lm_head")[0],
            group_config(num_bits=4, type="int", strategy="group", group_size=32),
            ["excluded"],
        ),
    ],
)
def test_a_configuration_that_says_otherwise_is_remarked(
    stored: Stored, config: Any, kinds: list[str]
) -> None:
    assert kinds_of(stored, config) == kinds


def test_rules_per_layer_are_not_held_against_the_tensors() -> None:
    stored, _ = gptq(WEIGHT, bits=8, group=64)

    assert remarks_of(stored, GPTQ | {"dynamic": {"+:.*fc.*": {"bits": 8, "group_size": 64}}}) == []


def test_an_order_of_inputs_that_is_declared_absent_is_remarked() -> None:
    order = np.random.default_rng(0).permutation(256).tolist()
    stored, expected = gptq(WEIGHT, group=32, order=order)

    assert kinds_of(stored, GPTQ) == ["group_index"]
    assert kinds_of(stored, GPTQ | {"desc_act": True}) == []
    assert np.array_equal(values_of(stored, GPTQ), expected)


def test_an_index_that_names_no_group_is_remarked_and_refused() -> None:
    stored, _ = gptq(WEIGHT, group=32)
    stored["fc.g_idx"] = stored["fc.g_idx"] + 1

    assert kinds_of(stored, GPTQ) == ["group_index"]
    with pytest.raises(UnreadableError, match="g_idx names groups 1 to 8, there are 8"):
        values_of(stored, GPTQ)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("make", [gptq, awq, packed])
def test_scales_that_are_no_factors_are_remarked(make: Any, bad: float) -> None:
    stored, _ = make(WEIGHT, group=32)
    role = next(name for name in stored if name.endswith(("scales", "weight_scale")))
    stored[role] = stored[role].copy()
    stored[role][2, 3] = bad

    assert kinds_of(stored) == ["scales"]


@pytest.mark.parametrize("block", [None, 128])
def test_fp8_scales_stored_as_their_inverse_are_remarked(block: int | None) -> None:
    stored = fp8(heavy_tailed(256, 256), block=block)
    name = next(name for name in stored if "scale" in name)

    assert kinds_of(stored) == []
    assert kinds_of(stored | {name: 1 / stored[name]}) == ["scales"]


def test_a_table_that_is_not_the_one_of_its_type_is_remarked() -> None:
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [2, 64]}
    stored: Stored = {
        "fc.weight": np.zeros((64, 1), np.uint8),
        "fc.weight.absmax": np.ones(2, np.float32),
        "fc.weight.quant_map": np.linspace(-1, 1, 16, dtype=np.float32),
        "fc.weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }

    assert kinds_of(stored) == ["codebook"]
    assert kinds_of(
        stored, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}
    ) == [
        "format",
        "codebook",
    ]


@pytest.mark.parametrize(
    "state",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"shape": [2, 64], "blocksize": 63}',
        b'{"shape": [0, 64], "blocksize": 64}',
        b'{"shape": [1099511627776, 64], "blocksize": 64}',
        b'{"shape": [4, 64], "blocksize": 64}',
        b'{"shape": [2, 64], "blocksize": 64, "nested_offset": 1e999}',
        b"[" * 60000,
    ],
)
def test_an_unusable_quantisation_state_is_refused(state: bytes) -> None:
    stored: Stored = {
        "fc.weight": np.zeros((64, 1), np.uint8),
        "fc.weight.absmax": np.ones(2, np.float32),
        "fc.weight.quant_map": np.zeros(16, np.float32),
        "fc.weight.quant_state.bitsandbytes__nf4": np.frombuffer(state, np.uint8),
    }

    with pytest.raises(UnreadableError):
        values_of(stored)


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ({"fc.B": ((16, 256), "I32"), "fc.s": ((2, 128), "F16")}, "Marlin"),
        (
            {
                "fc.qweight": ((32, 512), "I16"),
                "fc.qzeros": ((8, 128), "F16"),
                "fc.scales": ((8, 128), "F16"),
            },
            "gemv_fast",
        ),
        ({"fc.trellis": ((8, 8, 64), "I16"), "fc.suh": ((128,), "F16"), "fc.svh": ((128,), "F16")}, "exl3"),
        (
            {
                "fc.codes": ((8, 8, 1), "I16"),
                "fc.codebooks": ((1, 256, 1, 8), "F16"),
                "fc.scales": ((8, 1, 1, 1), "F16"),
            },
            "AQLM",
        ),
        ({"fc.compressed": ((64,), "F16"), "fc.bitmask": ((8, 2), "U8")}, "bit mask"),
    ],
)
def test_storage_that_is_not_undone_is_named_without_being_read(tensors: Any, word: str) -> None:
    (layer,) = find_quantised(tensors)
    with pytest.raises(UnreadableError, match=word) as caught:
        load(layer, getter({}), "model")

    assert layer.name == "fc"
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR


def test_widths_in_planes_are_refused() -> None:
    stored, _ = gptq(WEIGHT, bits=3, group=32)
    config = GPTQ | {"bits": 3, "checkpoint_format": "gptq_p"}

    assert "format" in [one.kind.value for one in the_layer(stored, config).remarks]
    with pytest.raises(UnreadableError, match="planes"):
        values_of(stored, config)


def test_tile_orders_of_old_bitsandbytes_are_refused() -> None:
    with pytest.raises(UnreadableError, match="tile order 2"):
        values_of(int8(WEIGHT) | {"fc.weight_format": np.array(2, np.uint8)})


def test_unsigned_numbers_without_a_zero_point_are_refused() -> None:
    stored: Stored = {"fc.weight": np.ones((4, 8), np.uint8), "fc.weight_scale": np.ones(4, np.float32)}

    with pytest.raises(UnreadableError, match="zero point"):
        values_of(stored)
    zero = np.full((4, 1), 128, np.uint8)
    assert np.all(values_of(stored | {"fc.weight_zero_point": zero}) == -127)


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("lm_head", "lm_head", True),
        ("lm_head", "model.lm_head", False),
        ("re:.*lm_head", "model.lm_head", True),
        ("re:.*mlp\\.gate$", "model.layers.0.mlp.gate", True),
        ("re:.*mlp\\.gate$", "model.layers.0.mlp.gate_proj", False),
        ("re:^vision", "vision_tower.proj", True),
        ("re:vision", "language.vision", False),
        ("model.*.mlp", "model.layers.0.mlp", True),
        ("re:(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", False),
        ("re:" + ".*a" * 100, "a" * 3000 + "b", True),
        ("re:" + ".*a" * 100 + "$", "a" * 3000 + "b", False),
    ],
)
def test_patterns_are_understood_without_running_expressions(pattern: str, name: str, found: bool) -> None:
    assert matches(pattern, name) is found

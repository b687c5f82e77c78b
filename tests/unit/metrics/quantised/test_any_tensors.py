"""Whatever a file names and holds: an array of the stated shape, or a typed error."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.quantised.schemes import check, find_quantised, load
from quantisers import awq, fp8, gptq, heavy_tailed, int8, packed
from storedlayers import Stored, facts, getter

TYPES = (
    np.uint8,
    np.int8,
    np.int16,
    np.int32,
    np.uint32,
    np.int64,
    np.float16,
    np.float32,
    ml_dtypes.float8_e4m3fn,
)
NAMES = [
    *("qweight", "qzeros", "scales", "g_idx", "weight", "weight_scale", "weight_scale_inv", "weight_scale_2"),
    *("weight_zero_point", "SCB", "weight_format", "weight_packed", "weight_shape", "weight_global_scale"),
    *("weight_g_idx", "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map"),
    *("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4", "weight_blocks"),
    *("weight_scales", "B", "s", "meta", "codes", "codebooks", "biases", "_weight_qdata", "_weight_scale"),
    *("_weight_zero_point", "_weight_act_pre_scale", "_weight_scale_and_zero"),
]
SMALL = heavy_tailed(16, 32)
SEEDS: tuple[Stored, ...] = (
    gptq(SMALL, group=16)[0],
    gptq(SMALL, bits=3, group=16)[0],
    awq(SMALL, group=16)[0],
    packed(SMALL, group=16)[0],
    fp8(SMALL),
    fp8(SMALL, block=16),
    int8(SMALL),
    {
        "fc.weight": np.zeros((16, 8), np.uint32),
        "fc.scales": np.ones((16, 2), np.float16),
        "fc.biases": np.ones((16, 2), np.float16),
    },
    {"fc.weight": np.zeros((16, 8), np.uint32), "fc.scales": np.ones((16, 2), np.uint8)},
    {
        "fc._weight_qdata": np.zeros((16, 32), np.int8),
        "fc._weight_scale": np.ones((2, 16), np.float16),
        "fc._weight_zero_point": np.ones((2, 16), np.float16),
    },
    {
        "fc._weight_qdata": np.zeros((16, 32), np.int8),
        "fc._weight_scale": np.ones((16, 2), np.float16),
        "fc._weight_zero_point": np.ones((16, 2), np.int8),
    },
    {
        "fc.weight": np.zeros((256, 1), np.uint8),
        "fc.weight.absmax": np.ones(8, np.uint8),
        "fc.weight.quant_map": np.zeros(16, np.float32),
        "fc.weight.nested_absmax": np.ones(1, np.float32),
        "fc.weight.nested_quant_map": np.zeros(256, np.float32),
        "fc.weight.quant_state.bitsandbytes__nf4": np.frombuffer(
            json.dumps({"shape": [16, 32], "blocksize": 64, "nested_blocksize": 256}).encode(), np.uint8
        ),
    },
)

shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 16, 32, 64]), max_size=4).map(tuple)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    *("quantization_config", "quant_method", "bits", "group_size", "sym", "desc_act", "checkpoint_format"),
    *(
        "quantization",
        "mode",
        "config_groups",
        "ignore",
        "modules_to_not_convert",
        "weight_block_size",
        "dynamic",
        "load_in_4bit",
    ),
]
METHODS = ["gptq", "awq", "compressed-tensors", "fp8", "gptq_v2", "gptq_p", "bitsandbytes"]
configs = st.none() | st.dictionaries(st.sampled_from(KEYS), anything | st.sampled_from(METHODS), max_size=6)


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    shape = draw(shapes)
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    seed = draw(st.integers(0, 3))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    raw = np.random.default_rng(seed).integers(0, 256 if seed else 2, count, dtype=np.uint8)
    values: NDArray[Any] = raw.view(dtype).reshape(shape)
    return values


@st.composite
def mutated(draw: st.DrawFn) -> Stored:
    stored = dict(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(stored)))
        what = draw(st.integers(0, 3))
        if what == 0 and len(stored) > 1:
            del stored[name]
        elif what == 1:
            stored[name] = draw(arrays())
        elif what == 2 and stored[name].ndim:
            stored[name] = stored[name][: draw(st.integers(0, len(stored[name])))]
        else:
            raw = bytearray(stored[name].tobytes())
            if raw:
                raw[draw(st.integers(0, len(raw) - 1))] ^= draw(st.integers(1, 255))
            stored[name] = np.frombuffer(bytes(raw), stored[name].dtype).reshape(stored[name].shape)
    return stored


def examined(stored: Stored, config: Any) -> None:
    for layer in find_quantised(facts(stored), config, getter(stored)):
        assert set(layer.parts.values()) <= stored.keys()
        check(layer, getter(stored), config)
        try:
            values = load(layer, getter(stored), "model")
        except UnreadableError as error:
            assert error.path in {"model", ""}
            continue
        assert values.dtype == np.float32
        assert values.nbytes <= 64 * sum(part.nbytes for part in stored.values())
        if layer.shape is not None:
            assert values.shape == layer.shape


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from([f"fc.{name}" for name in NAMES]), arrays(), max_size=6), configs)
def test_tensors_of_any_shape_and_type_never_crash(stored: Stored, config: Any) -> None:
    examined(stored, config)


@settings(max_examples=400)
@given(mutated(), configs)
def test_a_valid_layer_with_changes_never_crashes(stored: Stored, config: Any) -> None:
    examined(stored, config)

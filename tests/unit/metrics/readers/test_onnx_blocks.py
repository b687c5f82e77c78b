"""ONNX Runtime's block-quantised matrices against what ONNX Runtime computes with them (``tests/_data/onnx``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.openmodel import open_layers
from layerwatch.metrics.readers.onnx import OnnxFile
from layerwatch.metrics.tensors import Array
from storedlayers import relative_error

FILES = Path(__file__).parents[3] / "_data" / "onnx"
BITS = {
    "blocks-4bit": "QINT4",
    "matmulnbits-2bit": "QUINT2",
    "matmulnbits-4bit": "QUINT4",
    "matmulnbits-4bit-half": "QUINT4",
    "matmulnbits-4bit-zero-points": "QUINT4",
    "matmulnbits-8bit": "QUINT8",
}
BANDS = {"QUINT2": (0.3, 0.7), "QUINT4": (0.06, 0.16), "QINT4": (0.06, 0.16), "QUINT8": (0.002, 0.012)}
"""Of the error of healthy rounding: field report, section 7.5, for a heavier tail and blocks of 32 and 64."""

RANDOM = np.random.default_rng(31)


def test_there_is_a_file_for_each_of_these() -> None:
    assert {path.stem for path in FILES.glob("*.onnx")} == BITS.keys()


@pytest.mark.parametrize("name", sorted(BITS))
def test_a_matrix_is_what_the_runtime_multiplies_with(name: str) -> None:
    with np.load(FILES / f"{name}.npz") as kept:
        expected, weight = kept["expected"], kept["weight"]

    model = open_layers(FILES / f"{name}.onnx")
    try:
        (layer,) = model.plan.layers
        values = model.read(layer).values()
    finally:
        model.close()

    assert (layer.name, layer.tensor, layer.shape) == ("up_proj", "up_proj.weight", expected.shape)
    assert layer.dtype == BITS[name]
    # Answers in half precision are rounded to 11 bits.
    assert values == pytest.approx(expected, rel=2**-10 if "half" in name else 1e-5, abs=1e-7)
    low, high = BANDS[BITS[name]]
    assert low < relative_error(values, weight) < high


def bits_model(
    quantised: Array,
    scales: Array,
    attributes: dict[str, Any],
    zeros: Array | None = None,
    extra: Array | None = None,
) -> onnx.ModelProto:
    tensors: dict[str, Array] = {"w_Q4": quantised, "w_scales": scales}
    inputs = ["x", "w_Q4", "w_scales"]
    for name, given_values in (("w_zero_points", zeros), ("order", extra)):
        inputs.append(name if given_values is not None else "")
        if given_values is not None:
            tensors[name] = given_values
    node = helper.make_node("MatMulNBits", inputs, ["y"], name="fc", domain="com.microsoft", **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    kept = [numpy_helper.from_array(np.ascontiguousarray(one), name) for name, one in tensors.items()]
    graph = helper.make_graph([node], "g", values[:1], values[1:], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def opened(folder: Path, content: onnx.ModelProto) -> OnnxFile:
    (folder / "m.onnx").write_bytes(content.SerializeToString())
    return OnnxFile(folder / "m.onnx")


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("floating", [False, True])
def test_numbers_are_less_their_zero_point_times_their_scale(
    tmp_path: Path, flat: bool, floating: bool
) -> None:
    """``ContribOperators.md`` of ONNX Runtime: (N, blocks, bytes), the first number in the low bits, 3 blocks of 16."""
    numbers = RANDOM.integers(0, 16, (5, 3, 16))
    stored = (numbers[..., ::2] | numbers[..., 1::2] << 4).astype(np.uint8)
    scales = RANDOM.uniform(0.1, 0.2, (5, 3)).astype(np.float32)
    whole = RANDOM.integers(0, 16, (5, 3))
    padded = np.pad(whole, ((0, 0), (0, 1)))
    zeros: Any = (padded[:, ::2] | padded[:, 1::2] << 4).astype(np.uint8)
    if floating:
        zeros = whole.astype(np.float32) + np.float32(0.25)
    expected = (numbers - (zeros if floating else whole)[..., None]) * scales[..., None]
    if flat:
        scales, zeros = scales.reshape(-1), zeros.reshape(-1)

    reader = opened(
        tmp_path, bits_model(stored, scales, {"N": 5, "K": 40, "bits": 4, "block_size": 16}, zeros)
    )

    (info,) = reader.tensors()
    assert (info.name, info.shape, info.dtype, info.size_bytes) == ("w", (5, 40), "QUINT4", 120)
    assert reader.load("w") == pytest.approx(expected.reshape(5, 48)[:, :40], rel=1e-6)
    assert sorted(name for name, _ in reader.left_out) == ["w_scales", "w_zero_points"]


GOOD: dict[str, int] = {"N": 4, "K": 32, "bits": 4, "block_size": 32}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"block_size": 0}, "blocks of 0"),
        ({"block_size": -32}, "blocks of -32"),
        ({"bits": 3}, "3 bits"),
        ({"bits": 2**40}, "bits"),
        ({"N": 5}, "scales"),
        ({"N": -4, "K": -32}, "not undone"),
        ({"N": 2**62, "K": 2**62}, "scales"),
        ({"K": 64}, "scales"),
        ({"block_size": 16}, "scales"),
    ],
)
def test_declarations_that_the_bytes_do_not_bear_out_are_refused(
    tmp_path: Path, attributes: dict[str, int], said: str
) -> None:
    content = bits_model(np.ones((4, 1, 16), np.uint8), np.ones((4, 1), np.float32), {**GOOD, **attributes})
    reader = opened(tmp_path, content)

    with pytest.raises(UnreadableError, match=said) as caught:
        reader.load(reader.tensors()[0].name)
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR


def test_inputs_in_another_order_and_zero_points_of_another_count_are_refused(tmp_path: Path) -> None:
    stored, scales = np.ones((4, 1, 16), np.uint8), np.ones((4, 1), np.float32)
    ordered = opened(tmp_path, bits_model(stored, scales, GOOD, extra=np.zeros(32, np.int32)))
    with pytest.raises(UnreadableError, match="g_idx"):
        ordered.load("w")
    counted = opened(tmp_path, bits_model(stored, scales, GOOD, np.zeros(7, np.uint8)))
    with pytest.raises(UnreadableError, match="no zero points"):
        counted.load("w")


def test_four_bit_floats_of_bitsandbytes_are_undecided(tmp_path: Path) -> None:
    content = bits_model(np.ones(64, np.uint8), np.ones(4, np.float32), {"N": 4, "K": 32, "block_size": 32})
    content.graph.node[0].op_type = "MatMulBnb4"
    (tmp_path / "m.onnx").write_bytes(content.SerializeToString())

    model = open_layers(tmp_path / "m.onnx")
    try:
        (layer,) = model.plan.layers
        assert layer.shape == (4, 32)
        with pytest.raises(UnreadableError, match="bitsandbytes"):
            model.read(layer)
    finally:
        model.close()


def test_a_packed_matrix_of_one_dimension_is_no_vector(tmp_path: Path) -> None:
    reader = opened(tmp_path, bits_model(np.ones(8, np.uint8), np.ones(4, np.float32), GOOD))

    assert [info.shape for info in reader.tensors()] == [(1, 8)]
    with pytest.raises(UnreadableError):
        reader.load("w")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([0, 1, 16, 31, 32, 64]),
    st.sampled_from([0, 1, 4, 5]),
    st.fixed_dictionaries(
        {
            name: st.integers(-(2**63), 2**63 - 1) | st.sampled_from([*range(-1, 9), 16, 32, 64])
            for name in ("N", "K", "bits", "block_size")
        }
    ),
)
def test_any_declaration_ends_in_values_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, size: int, scales: int, attributes: dict[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("declared")
    content = bits_model(np.ones(size, np.uint8), np.ones(scales, np.float32), attributes)
    reader = opened(folder, content)
    for info in reader.tensors():
        try:
            values = reader.load(info.name)
        except UnreadableError:
            continue
        assert values.shape == info.shape


def test_a_convolution_of_dynamic_quantisation_is_undone(tmp_path: Path) -> None:
    """ONNX Runtime's ``quantize_dynamic``: ``ConvInteger``, ``Cast``, and ``Mul`` by both scales."""
    kernel = RANDOM.integers(-128, 128, (6, 2, 3), dtype=np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("ConvInteger", ["xq", "conv.weight_quantized", "xz", "wz"], ["p"]),
        helper.make_node("Cast", ["p"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "ws"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    tensors: dict[str, Array] = {
        "conv.weight_quantized": kernel,
        "ws": np.array(0.02, np.float32),
        "wz": np.array(5, np.int8),
    }
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    kept = [numpy_helper.from_array(one, name) for name, one in tensors.items()]
    content = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], kept))

    reader = opened(tmp_path, content)

    (info,) = reader.tensors()
    assert (info.name, info.dtype) == ("conv.weight", "QINT8")
    assert reader.load("conv.weight") == pytest.approx((kernel.astype(float) - 5) * 0.02, rel=1e-6)

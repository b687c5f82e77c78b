"""ONNX files, against the package that owns the format and torch's exporter conventions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.onnx import OnnxFile
from layerwatch.metrics.readers.onnxvalues import ELEMENT_TYPES, external_files
from layerwatch.metrics.tensors import Array

CHECKPOINTS = Path(__file__).resolve().parents[5] / "shared" / "checkpoints" / "silero"
SILERO = pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason=f"{CHECKPOINTS} is not there")

RANDOM = np.random.default_rng(9)


def weights(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def named(name: str, values: Array) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def model(
    nodes: Sequence[onnx.NodeProto] = (),
    tensors: Sequence[TensorProto] = (),
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    opset: int = 21,
) -> onnx.ModelProto:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    graph = helper.make_graph(list(nodes), "g", [*map(value, inputs)], [*map(value, outputs)], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def open_(folder: Path, content: onnx.ModelProto | bytes) -> OnnxFile:
    path = folder / "m.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return OnnxFile(path)


def refusal(folder: Path, content: onnx.ModelProto | bytes) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        open_(folder, content)
    assert caught.value.path == str(folder / "m.onnx")
    return caught.value


def shapes(reader: OnnxFile) -> dict[str, tuple[int, ...]]:
    return {info.name: info.shape for info in reader.tensors()}


def test_the_table_of_element_types_is_that_of_the_library() -> None:
    known = {number for name, number in TensorProto.DataType.items() if name != "UNDEFINED"}
    assert set(ELEMENT_TYPES) == known
    for code, kind in ELEMENT_TYPES.items():
        if kind.numpy is not None:
            assert kind.numpy == helper.tensor_dtype_to_np_dtype(code), kind.name


PLAIN = [
    *(
        np.float32,
        np.float16,
        np.float64,
        np.int8,
        np.uint8,
        np.int16,
        np.uint16,
        np.int32,
        np.uint32,
        np.int64,
    ),
    *(np.uint64, np.bool_, np.complex64, np.complex128, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
    *(ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz, ml_dtypes.float8_e8m0fnu),
    *(ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float4_e2m1fn, ml_dtypes.int2, ml_dtypes.uint2),
]


def of_type(dtype: type, shape: tuple[int, ...]) -> Array:
    numbers = (
        RANDOM.integers(0, 2, shape) if dtype in (np.bool_, ml_dtypes.uint2) else RANDOM.integers(1, 7, shape)
    )
    if dtype is ml_dtypes.int2:
        numbers = RANDOM.integers(-2, 2, shape)
    elif np.dtype(dtype).kind in "ifc" or dtype is ml_dtypes.int4:
        numbers = numbers - 4
    return numbers.astype(dtype)


@pytest.mark.parametrize("dtype", PLAIN, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("shape", [(3, 5), (7,), (2, 0)])
def test_raw_values_of_every_type_are_those_that_the_library_reads(
    tmp_path: Path, dtype: type, shape: tuple[int, ...]
) -> None:
    tensor = named("w", of_type(dtype, shape))
    assert tensor.HasField("raw_data")
    reader = open_(tmp_path, model(tensors=[tensor]))

    (info,) = reader.tensors()
    loaded = reader.load("w")

    assert info.shape == loaded.shape == shape
    assert info.size_bytes == len(tensor.raw_data)
    expected = numpy_helper.to_array(tensor)
    assert loaded.dtype == expected.dtype
    assert np.array_equal(loaded, expected)
    assert not loaded.flags.writeable


@pytest.mark.parametrize("dtype", PLAIN, ids=lambda dtype: dtype.__name__)
def test_typed_values_of_every_type_are_those_that_the_library_reads(tmp_path: Path, dtype: type) -> None:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = of_type(dtype, (9, 3))
    if code in (TensorProto.FLOAT8E8M0, TensorProto.UINT2, TensorProto.INT2):
        # The helper writes these in raw form only: bytes as numbers, as the comments of onnx.proto say.
        tensor = TensorProto(name="w", data_type=code, dims=[9, 3])
        tensor.int32_data.extend(np.frombuffer(named("w", values).raw_data, np.uint8).tolist())
    else:
        tensor = helper.make_tensor("w", code, (9, 3), values.reshape(-1).tolist())
    assert not tensor.HasField("raw_data")

    loaded = open_(tmp_path, model(tensors=[tensor])).load("w")

    assert np.array_equal(loaded, numpy_helper.to_array(tensor))
    assert np.array_equal(loaded, values)


def test_extreme_whole_numbers_survive_their_variable_length(tmp_path: Path) -> None:
    signed = [-(2**63), -1, 0, 127, 128, 2**63 - 1]
    unsigned = [0, 2**64 - 1, 2**63]
    reader = open_(
        tmp_path,
        model(
            tensors=[
                helper.make_tensor("s", TensorProto.INT64, (6, 1), signed),
                helper.make_tensor("u", TensorProto.UINT64, (3, 1), unsigned),
                helper.make_tensor("b", TensorProto.INT8, (2, 1), [-128, 127]),
            ]
        ),
    )
    assert reader.load("s").ravel().tolist() == signed
    assert reader.load("u").ravel().tolist() == unsigned
    assert reader.load("b").ravel().tolist() == [-128, 127]


def test_many_typed_numbers_are_decoded_in_blocks(tmp_path: Path) -> None:
    values = RANDOM.integers(-(2**40), 2**40, 700_000)
    tensor = helper.make_tensor("w", TensorProto.INT64, (700, 1000), values)
    loaded = open_(tmp_path, model(tensors=[tensor])).load("w")
    assert np.array_equal(loaded.reshape(-1), values)


def test_text_is_left_out_and_six_bit_floats_are_refused_when_loaded(tmp_path: Path) -> None:
    six = TensorProto(name="f6", data_type=27, dims=[4, 1], raw_data=bytes(3))
    text = TensorProto(name="words", data_type=TensorProto.STRING, dims=[2], string_data=[b"a", b"b"])
    reader = open_(tmp_path, model(tensors=[six, text]))
    assert shapes(reader) == {"f6": (4, 1)}
    assert ("words", "text: holds no numbers") in reader.left_out
    with pytest.raises(UnreadableError, match="no numpy counterpart") as caught:
        reader.load("f6")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_DTYPE


# Matrices: what a graph computes with x as a row (or column) says which way round its weights are.


@pytest.mark.parametrize(
    ("nodes", "turned"),
    [
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], True),
        ([helper.make_node("MatMul", ["w", "x"], ["y"])], False),
        ([helper.make_node("Gemm", ["x", "w"], ["y"])], True),
        ([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], False),
        ([helper.make_node("Gemm", ["w", "x"], ["y"], transA=1)], True),
        ([helper.make_node("Gemm", ["w", "x"], ["y"])], False),
        ([helper.make_node("Gather", ["w", "x"], ["y"])], False),
        ([helper.make_node("Identity", ["w"], ["v"]), helper.make_node("MatMul", ["x", "v"], ["y"])], True),
        (
            [
                helper.make_node("Transpose", ["w"], ["v"], perm=[1, 0]),
                helper.make_node("MatMul", ["x", "v"], ["y"]),
            ],
            False,
        ),
        (
            [helper.make_node("Gather", ["w", "x"], ["v"]), helper.make_node("MatMul", ["v", "w"], ["y"])],
            False,
        ),
    ],
)
def test_a_matrix_is_handed_out_as_out_by_in(
    tmp_path: Path, nodes: list[onnx.NodeProto], turned: bool
) -> None:
    values = weights(3, 5)
    reader = open_(tmp_path, model(nodes, [named("w", values)]))
    assert shapes(reader) == {"w": (5, 3) if turned else (3, 5)}
    assert np.array_equal(reader.load("w"), values.T if turned else values)


def test_stacked_matrices_are_turned_one_by_one(tmp_path: Path) -> None:
    values = weights(4, 3, 5)
    reader = open_(tmp_path, model([helper.make_node("MatMul", ["x", "w"], ["y"])], [named("w", values)]))
    assert shapes(reader) == {"w": (4, 5, 3)}
    assert np.array_equal(reader.load("w"), np.transpose(values, (0, 2, 1)))


class Network(torch.nn.Module):
    """Layers that torch exports in four ways: Conv, MatMul behind a made-up name, Gemm, Gather."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 6)
        self.encoder = torch.nn.ModuleDict({"fc1": torch.nn.Linear(6, 8), "fc2": torch.nn.Linear(8, 6)})
        self.conv = torch.nn.Conv1d(6, 4, 3)
        self.out = torch.nn.Linear(6, 6, bias=False)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder["fc2"](torch.relu(self.encoder["fc1"](self.embedding(tokens))))
        result: torch.Tensor = self.head(self.conv(self.out(hidden).transpose(1, 2)).amax(2))
        return result


@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_has_the_names_shapes_and_values_of_the_trained_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network().eval()
    path = tmp_path / "exported.onnx"
    torch.onnx.export(
        network, (torch.zeros(1, 5, dtype=torch.int64),), str(path), dynamo=False, opset_version=17
    )
    assert b"onnx::MatMul" in path.read_bytes()

    reader = OnnxFile(path)

    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    assert shapes(reader) == {name: values.shape for name, values in state.items()}
    for name, values in state.items():
        assert np.array_equal(reader.load(name), values), name


# Quantised weights. Expected values: onnx's own evaluation of the graph.


def evaluated(content: onnx.ModelProto, **inputs: Array) -> Array:
    results: Any = ReferenceEvaluator(content).run(None, inputs)
    return np.asarray(results[0])


INT8 = RANDOM.integers(-128, 128, (6, 8), dtype=np.int8)
SCALES = RANDOM.uniform(0.01, 0.1, 8).astype(np.float32)


@pytest.mark.parametrize(
    ("stored", "scale", "zero", "attributes", "dtype"),
    [
        (INT8, np.float32(0.05), None, {}, "QINT8"),
        (INT8, np.float32(0.05), np.int8(3), {}, "QINT8"),
        (INT8.view(np.uint8), np.float32(0.05), np.uint8(131), {}, "QUINT8"),
        (INT8, SCALES, INT8[1], {}, "QINT8"),
        (INT8, SCALES[:6], INT8[:, 1], {"axis": 0}, "QINT8"),
        (INT8, SCALES[:6], INT8[:, 1], {"axis": -2}, "QINT8"),
        (INT8.astype(np.int16) * 200, SCALES, None, {"axis": 1}, "QINT16"),
        (INT8.astype(np.int32) * 2**17, np.float32(0.05), None, {}, "QINT32"),
        (INT8, SCALES.astype(np.float16), None, {"axis": 1}, "QINT8"),
        (
            (INT8 >> 4).astype(ml_dtypes.int4),
            RANDOM.uniform(0.01, 0.1, (6, 2)).astype(np.float32),
            (INT8[:, :2] >> 4).astype(ml_dtypes.int4),
            {"axis": 1, "block_size": 4},
            "QINT4",
        ),
        (
            (INT8.view(np.uint8) >> 4).astype(ml_dtypes.uint4),
            RANDOM.uniform(0.01, 0.1, (3, 8)).astype(np.float32),
            None,
            {"axis": 0, "block_size": 2},
            "QUINT4",
        ),
        (weights(6, 8).astype(ml_dtypes.float8_e4m3fn), np.float32(0.5), None, {}, "F8_E4M3"),
        (weights(6, 8).astype(ml_dtypes.float8_e5m2), SCALES, None, {"axis": 1}, "F8_E5M2"),
    ],
)
def test_a_dequantised_initialiser_is_handed_out_as_the_graph_computes_it(
    tmp_path: Path, stored: Array, scale: Any, zero: Any, attributes: dict[str, Any], dtype: str
) -> None:
    tensors = [named("w_quantized", stored), named("w_scale", np.asarray(scale))]
    names = ["w_quantized", "w_scale"]
    if zero is not None:
        tensors.append(named("w_zero_point", np.asarray(zero)))
        names.append("w_zero_point")
    content = model([helper.make_node("DequantizeLinear", names, ["y"], **attributes)], tensors, inputs=())
    rounded_to = np.asarray(scale).dtype
    expected = evaluated(content).astype(np.float32)

    reader = open_(tmp_path, content)

    (info,) = reader.tensors()
    assert (info.name, info.shape, info.dtype) == ("w", stored.shape, dtype)
    loaded = reader.load("w")
    assert loaded.dtype == np.float32
    # The graph rounds to the type of the scale, we do not.
    assert loaded == pytest.approx(expected, rel=2**-10 if rounded_to == np.float16 else 1e-6)
    assert [name for name, _ in reader.left_out] == names[1:]


def test_a_last_block_may_be_shorter(tmp_path: Path) -> None:
    scale = RANDOM.uniform(0.1, 1, (6, 3)).astype(np.float32)
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["y"], axis=1, block_size=3)]
    reader = open_(tmp_path, model(nodes, [named("w", INT8), named("s", scale)]))
    # Operators of ONNX, DequantizeLinear: element j of the axis belongs to block j // block_size.
    columns = np.array([column // 3 for column in range(8)])
    assert reader.load("w") == pytest.approx(INT8 * scale[:, columns])


def test_a_dequantised_matrix_is_turned_round_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"], axis=1),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    content = model(nodes, [named("w", INT8), named("s", SCALES)])
    reader = open_(tmp_path, content)
    assert shapes(reader) == {"w": (8, 6)}
    # The layer's matrix is what turns unit vectors into its columns.
    expected = evaluated(content, x=np.eye(6, dtype=np.float32))
    loaded = reader.load("w")
    assert loaded == pytest.approx(expected.T, rel=1e-6)


def test_the_weights_of_integer_operators_are_undone(tmp_path: Path) -> None:
    zero, one = np.uint8(0), np.float32(1)
    small = [named(n, np.asarray(v)) for n, v in (("xs", one), ("xz", zero), ("ys", one), ("yz", zero))]
    linear = helper.make_node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    tensors = [*small, named("w", INT8), named("ws", SCALES), named("wz", INT8[2])]
    reader = open_(tmp_path, model([linear], tensors))
    expected = (INT8.astype(np.float32) - INT8[2]) * SCALES
    assert reader.load("w") == pytest.approx(expected.T)

    kernel = RANDOM.integers(-128, 128, (8, 2, 3), dtype=np.int8)
    conv = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    wz = np.zeros(8, np.int8)
    tensors = [*small, named("w", kernel), named("ws", SCALES), named("wz", wz)]
    reader = open_(tmp_path, model([conv], tensors))
    assert reader.load("w") == pytest.approx(kernel * SCALES.reshape(8, 1, 1))


def test_dynamic_quantisation_is_undone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "w", "xz", "wz"], ["p"]),
        helper.make_node("Cast", ["p"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "ws"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    tensors = [
        named("w", INT8),
        named("ws", np.array([0.02], np.float32)),
        named("wz", np.array(5, np.int8)),
    ]
    content = model(nodes, tensors, opset=17)
    reader = open_(tmp_path, content)
    assert shapes(reader) == {"w": (8, 6)}
    loaded = reader.load("w")
    # 255 steps of the input's own quantisation: unit vectors are exact.
    expected = evaluated(content, x=np.eye(6, dtype=np.float32))
    assert loaded == pytest.approx(expected.T, rel=1e-5)


@pytest.mark.parametrize("scale", [weights(3), weights(6, 8), weights(2, 2)])
def test_a_scale_that_does_not_fit_makes_the_tensor_unreadable(tmp_path: Path, scale: Array) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["y"])]
    reader = open_(tmp_path, model(nodes, [named("w", INT8), named("s", scale)]))
    with pytest.raises(UnreadableError, match="fits neither") as caught:
        reader.load("w")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR
    assert caught.value.tensor == "w"


def test_a_tensor_that_is_undone_in_two_ways_is_unreadable(tmp_path: Path) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["w", s], [f"y{s}"]) for s in ("s", "t")]
    tensors = [named("w", INT8), named("s", np.asarray(np.float32(1))), named("t", np.asarray(np.float32(2)))]
    reader = open_(tmp_path, model(nodes, tensors))
    with pytest.raises(UnreadableError, match="2 different ways"):
        reader.load("w")


def test_integers_whose_scale_is_computed_stay_integers(tmp_path: Path) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["w", "x"], ["y"])]
    reader = open_(tmp_path, model(nodes, [named("w", INT8)]))
    assert reader.tensors()[0].dtype == "I8"
    assert np.array_equal(reader.load("w"), INT8)


# Where tensors are: constants, branches, functions, attributes.


def test_constants_that_hold_weights_are_listed_and_others_counted(tmp_path: Path) -> None:
    values = weights(3, 4)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=named("ignored", values)),
        helper.make_node("Constant", [], ["fc.bias"], value=named("", weights(1))),
        helper.make_node("Constant", [], ["shape"], value=named("", np.array([1, 2, 3]))),
        helper.make_node("Constant", [], ["one"], value=named("", np.asarray(np.float32(1)))),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    reader = open_(tmp_path, model(nodes))
    assert shapes(reader) == {"w": (4, 3), "fc.bias": (1,)}
    assert np.array_equal(reader.load("w"), values.T)
    assert [name for name, _ in reader.left_out] == ["2 constants"]


def branch(name: str, tensors: list[TensorProto], used: str = "w") -> onnx.GraphProto:
    output = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("MatMul", ["x", used], ["o"])], name, [], [output], tensors)


def test_tensors_of_branches_with_the_same_name_are_told_apart(tmp_path: Path) -> None:
    first, second, outer = weights(2, 3), weights(2, 4), weights(2, 5)
    nodes = [
        helper.make_node(
            "If",
            ["c"],
            ["y"],
            name="switch",
            then_branch=branch("t", [named("w", first)]),
            else_branch=branch("e", [named("w", second)]),
        ),
        helper.make_node(
            "If", ["c"], ["z"], then_branch=branch("u", [], "outer"), else_branch=branch("v", [], "x")
        ),
    ]
    reader = open_(tmp_path, model(nodes, [named("outer", outer)]))
    # The branch of an inner graph decides which way round the tensor of the outer one is.
    assert shapes(reader) == {
        "outer": (5, 2),
        "switch.then_branch.w": (3, 2),
        "switch.else_branch.w": (4, 2),
    }
    assert np.array_equal(reader.load("switch.else_branch.w"), second.T)


def test_functions_and_sparse_tensors_are_listed(tmp_path: Path) -> None:
    values = weights(3, 4)
    body = [helper.make_node("Constant", [], ["w"], value=named("", values))]
    function = helper.make_function("own", "Layer", ["x"], ["w"], body, [helper.make_opsetid("", 21)])
    sparse = helper.make_sparse_tensor(named("s", weights(2)), named("i", np.array([1, 5])), [3, 3])
    content = model(tensors=[])
    content.functions.append(function)
    content.graph.sparse_initializer.append(sparse)
    reader = open_(tmp_path, content)
    assert shapes(reader) == {"s": (3, 3), "w": (3, 4)}
    assert np.array_equal(reader.load("w"), values)
    with pytest.raises(UnreadableError, match="sparse") as caught:
        reader.load("s")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR


def test_coefficients_in_attributes_make_the_file_undecided(tmp_path: Path) -> None:
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], name="lr", domain="ai.onnx.ml", coefficients=[0.5] * 40
    )
    error = refusal(tmp_path, model([node]))
    assert error.reason is UnreadableReason.UNSUPPORTED_TENSOR
    reader = open_(tmp_path, model([node], [named("w", weights(2, 2))]))
    assert [(one.name, one.reason) for one in reader.unexamined] == [
        ("m.onnx", UnreadableReason.UNSUPPORTED_TENSOR)
    ]
    assert "lr.coefficients" in reader.unexamined[0].detail


def test_training_state_is_left_out(tmp_path: Path) -> None:
    content = model(tensors=[named("w", weights(2, 2))])
    content.training_info.add().algorithm.initializer.append(named("moment", weights(2, 2)))
    reader = open_(tmp_path, content)
    assert shapes(reader) == {"w": (2, 2)}
    assert reader.left_out == [("training_info", "training state: not examined")]


# External data.


def save_external(folder: Path, **values: Array) -> Path:
    path = folder / "m.onnx"
    content = model(tensors=[named(name, array) for name, array in values.items()])
    onnx.save_model(
        content,
        path,
        save_as_external_data=True,
        location="m.onnx.data",
        size_threshold=0,
        convert_attribute=True,
    )
    return path


def redirect(path: Path, **entries: str) -> None:
    """Change what the file says about the external data of its first tensor."""
    content = onnx.load(path, load_external_data=False)
    for entry in content.graph.initializer[0].external_data:
        entry.value = entries.pop(entry.key, entry.value)
    for key, value in entries.items():
        content.graph.initializer[0].external_data.add(key=key, value=value)
    path.write_bytes(content.SerializeToString())


def test_external_data_is_read_where_the_library_put_it(tmp_path: Path) -> None:
    values = {"a": weights(300, 200), "b": weights(7), "c": of_type(ml_dtypes.int4, (3, 5))}
    path = save_external(tmp_path, **values)
    reader = OnnxFile(path)
    assert list(reader.external_files) == [tmp_path / "m.onnx.data"]
    assert external_files(path) == (tmp_path / "m.onnx.data",)
    assert not reader.unexamined
    for name, expected in values.items():
        assert np.array_equal(reader.load(name), expected)
    reader.release()
    assert np.array_equal(reader.load("a"), values["a"])
    reader.close()


def test_two_tensors_may_share_external_bytes_but_not_overlap(tmp_path: Path) -> None:
    values = weights(300, 200)
    path = save_external(tmp_path, a=values, b=values)
    second = onnx.load(path, load_external_data=False).graph.initializer[1].external_data
    shared = next(entry.value for entry in second if entry.key == "offset")
    redirect(path, offset=shared)
    assert np.array_equal(OnnxFile(path).load("a"), values)
    redirect(path, offset=str(int(shared) - 4096))
    with pytest.raises(UnreadableError, match="inside that of 'a'") as caught:
        OnnxFile(path)
    assert caught.value.reason is UnreadableReason.BAD_HEADER


@pytest.mark.parametrize(
    ("entries", "reason", "words"),
    [
        ({"location": "../m.onnx.data"}, "bad_header", "own folder"),
        ({"location": "sub/../../m.onnx.data"}, "bad_header", "own folder"),
        ({"location": "/etc/passwd"}, "bad_header", "own folder"),
        ({"location": "..\\m.onnx.data"}, "bad_header", "own folder"),
        ({"location": "c:m.onnx.data"}, "bad_header", "own folder"),
        ({"location": ""}, "bad_header", "own folder"),
        ({"location": "."}, "bad_header", "own folder"),
        ({"location": "link"}, "bad_header", "leads out"),
        ({"location": "gone"}, "missing_shard", "copy the rest"),
        ({"location": "folder"}, "io_error", "regular"),
        ({"offset": "-1"}, "bad_header", "offset"),
        ({"offset": "1e3"}, "bad_header", "offset"),
        ({"offset": "9" * 30}, "bad_header", "offset"),
        ({"offset": "4096"}, "truncated", "copy that file again"),
        ({"length": "23"}, "bad_header", "claims 23"),
        ({"length": "0"}, "bad_header", "claims 0"),
    ],
)
def test_external_data_that_is_not_where_it_belongs_is_refused(
    tmp_path: Path, entries: dict[str, str], reason: str, words: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = save_external(folder, a=weights(2, 3))
    (tmp_path / "m.onnx.data").write_bytes(bytes(4096))
    (folder / "link").symlink_to(tmp_path / "m.onnx.data")
    (folder / "folder").mkdir()
    redirect(path, **entries)
    with pytest.raises(UnreadableError, match=words) as caught:
        OnnxFile(path)
    assert caught.value.reason == reason
    assert caught.value.tensor == "a"


def test_external_data_in_a_folder_below_and_in_the_hubs_cache_is_read(tmp_path: Path) -> None:
    values = weights(2, 3)
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1234"
    blobs = tmp_path / "models--a--b" / "blobs"
    for folder in (snapshot / "onnx", blobs):
        folder.mkdir(parents=True)
    path = save_external(snapshot / "onnx", a=values)
    (snapshot / "onnx" / "m.onnx.data").rename(blobs / "ab12")
    (snapshot / "onnx" / "m.onnx.data").symlink_to(os.path.relpath(blobs / "ab12", snapshot / "onnx"))
    assert np.array_equal(OnnxFile(path).load("a"), values)


def test_external_data_under_a_name_that_no_fingerprint_counts_makes_the_model_undecided(
    tmp_path: Path,
) -> None:
    path = save_external(tmp_path, a=weights(2, 3))
    (tmp_path / "m.onnx.data").rename(tmp_path / "a.weight")
    redirect(path, location="a.weight")
    (unexamined,) = OnnxFile(path).unexamined
    assert unexamined.name == "a.weight"
    assert ".onnx.data" in unexamined.detail


def test_an_external_file_that_changes_is_refused(tmp_path: Path) -> None:
    path = save_external(tmp_path, a=weights(2, 3))
    reader = OnnxFile(path)
    (tmp_path / "m.onnx.data").write_bytes(bytes(5000))
    with pytest.raises(UnreadableError) as caught:
        reader.load("a")
    assert caught.value.reason is UnreadableReason.CHANGED_WHILE_READING


def test_no_values_are_read_before_they_are_asked_for(tmp_path: Path) -> None:
    """A sparse external file of 64 GiB: opening it costs nothing."""
    path = save_external(tmp_path, a=weights(2, 3))
    content = onnx.load(path, load_external_data=False)
    content.graph.initializer[0].dims[:] = [2**17, 2**17]
    path.write_bytes(content.SerializeToString())
    redirect(path, offset="0", length=str(2**36))
    os.truncate(tmp_path / "m.onnx.data", 2**36)
    reader = OnnxFile(path)
    assert reader.tensors()[0].size_bytes == 2**36
    assert reader.load("a")[2**17 - 1, 0] == 0


# Damage.


def raw_model(*tensors: TensorProto) -> onnx.ModelProto:
    return model(tensors=tensors)


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (
            raw_model(TensorProto(name="w", data_type=1, dims=[2], raw_data=bytes(4))),
            "truncated",
            "takes 8 bytes",
        ),
        (
            raw_model(TensorProto(name="w", data_type=1, dims=[2], raw_data=bytes(9))),
            "bad_header",
            "takes 8 bytes",
        ),
        (raw_model(TensorProto(name="w", data_type=1, dims=[2])), "truncated", "it has 0"),
        (
            raw_model(TensorProto(name="w", data_type=1, dims=[-2], raw_data=bytes(8))),
            "bad_header",
            "negative",
        ),
        (raw_model(TensorProto(name="w", data_type=1, dims=[2**62, 2**62])), "bad_header", "more elements"),
        (raw_model(TensorProto(name="w", data_type=1, dims=[1] * 65)), "bad_header", "64 dimensions"),
        (
            raw_model(TensorProto(name="w", data_type=1, dims=[1], raw_data=bytes(4), float_data=[1.0])),
            "bad_header",
            "more than one place",
        ),
        (
            raw_model(TensorProto(name="w", data_type=1, dims=[1], int32_data=[1])),
            "bad_header",
            "another type",
        ),
        (
            raw_model(TensorProto(name="w", data_type=7, dims=[3], int64_data=[1])),
            "truncated",
            "takes 3 bytes",
        ),
        (
            raw_model(TensorProto(name="w", data_type=7, dims=[1], int64_data=[1] * 20)),
            "bad_header",
            "has 20",
        ),
        (raw_model(*[named("w", weights(2, 2))] * 2), "bad_header", "two tensors of this name"),
        (raw_model(), "no_tensors", "no weights"),
        (onnx.ModelProto(ir_version=8), "bad_header", "no graph"),
        (model(tensors=[named("w", weights(2, 2))]).SerializeToString() * 2, "bad_header", "graph twice"),
        (model(tensors=[named("w", weights(2, 2))]).SerializeToString()[:-40], "truncated", "cut off"),
        (b"\x08\x0b\x0b\x0b", "bad_header", "wire type"),
        (b"\x00\x00", "bad_header", "field number"),
        (b"\x08" + b"\xff" * 12, "truncated", "cut off or too long"),
        (raw_model(named("w" * 5000, weights(2))), "bad_header", "5000 bytes"),
        (b"\x08\x08" * 1_000_001, "too_large", "1000000 fields"),
    ],
)
def test_a_broken_file_is_refused(
    tmp_path: Path, content: onnx.ModelProto | bytes, reason: str, words: str
) -> None:
    error = refusal(tmp_path, content)
    assert words in error.detail
    assert error.reason == reason


def test_a_typed_field_with_too_few_numbers_is_refused_when_loaded(tmp_path: Path) -> None:
    reader = open_(tmp_path, raw_model(TensorProto(name="w", data_type=7, dims=[3], int64_data=[1, 2**40])))
    with pytest.raises(UnreadableError, match="does not hold 3 whole numbers"):
        reader.load("w")


def test_graphs_nested_too_deep_are_refused(tmp_path: Path) -> None:
    inner = branch("b", [named("w", weights(2, 2))])
    for _ in range(30):
        node = helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=branch("e", [], "x"))
        output = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
        inner = helper.make_graph([node], "g", [], [output])
    error = refusal(tmp_path, helper.make_model(inner))
    assert error.reason is UnreadableReason.TOO_DEEP


def test_nodes_that_pass_values_on_in_a_maze_end(tmp_path: Path) -> None:
    """Each of 8 stages reads the one before 64 times; following every way would be 64**8 steps."""
    nodes = [
        helper.make_node("Identity", [f"v{stage}_0" if stage else "w"], [f"v{stage + 1}_{place}"])
        for stage in range(8)
        for place in range(64)
    ]
    nodes += [
        helper.make_node("Identity", [f"v1_{place}"], [f"u{place}_{n}"])
        for place in range(64)
        for n in range(64)
    ]
    reader = open_(tmp_path, model(nodes, [named("w", weights(2, 3))]))
    assert shapes(reader) == {"w": (2, 3)}


# Fuzzing.

FUZZ = settings(max_examples=400, deadline=None)
EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def valid(folder: Path) -> bytes:
    """One small file with everything the reader looks at; its external data lies beside it."""
    (folder / "d").write_bytes(weights(3, 4).tobytes())
    outside = TensorProto(name="o", data_type=1, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "d"), ("offset", "0"), ("length", "48")):
        outside.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["v"], axis=1),
        helper.make_node("MatMul", ["x", "v"], ["t"]),
        helper.make_node("Gemm", ["t", "a"], ["u"], transB=1),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("t", [named("w", weights(2, 3))])),
        helper.make_node("Constant", [], ["k"], value=named("", weights(2, 2))),
    ]
    tensors = [
        *(outside, named("a", weights(2, 3)), named("q", INT8), named("s", SCALES), named("z", INT8[0])),
        *(
            helper.make_tensor("n", TensorProto.INT8, (2, 2), [1, -2, 3, -4]),
            named("i4", of_type(ml_dtypes.int4, (3, 3))),
        ),
        helper.make_tensor("f", TensorProto.FLOAT, (2, 2), [1, 2, 3, 4]),
    ]
    content = model(nodes, tensors)
    content.graph.sparse_initializer.append(
        helper.make_sparse_tensor(named("sp", weights(2)), named("i", np.array([1, 5])), [3, 3])
    )
    raw: bytes = content.SerializeToString()
    assert len(open_(folder, raw).tensors()) == 9
    return raw


def examine(folder: Path, content: bytes) -> None:
    path = folder / "m.onnx"
    path.write_bytes(content)
    try:
        reader = OnnxFile(path)
    except UnreadableError as error:
        assert error.path == str(path)
        assert error.detail
        return
    for info in reader.tensors():
        try:
            assert reader.load(info.name).shape == info.shape
        except UnreadableError as error:
            assert error.tensor == info.name
    reader.close()


@FUZZ
@given(content=st.binary(min_size=1, max_size=300))
def test_random_bytes_end_well(folder: Path, content: bytes) -> None:
    examine(folder, content)
    examine(folder, b"\x08\x08\x3a" + bytes([min(127, len(content))]) + content)


@FUZZ
@given(edits=EDITS, keep=st.floats(0.01, 1) | st.just(1.0))
def test_mutations_of_a_valid_file_end_well(
    folder: Path, valid: bytes, edits: list[tuple[float, bytes]], keep: float
) -> None:
    content = bytearray(valid)
    for where, new in edits:
        position = int(where * len(content))
        content[position : position + len(new)] = new
    examine(folder, bytes(content[: max(1, int(keep * len(content)))]))


def test_every_byte_of_a_valid_file_may_be_wrong(folder: Path, valid: bytes) -> None:
    for position in range(len(valid)):
        for flipped in (valid[position] ^ 1, valid[position] ^ 0x80, 0, 0xFF):
            examine(folder, valid[:position] + bytes([flipped]) + valid[position + 1 :])


# Published networks. Origin: ``checkpoints/README.md`` in the shared directory.


@SILERO
@pytest.mark.parametrize("name", ["v5_silero_vad.onnx", "v5_silero_vad_half.onnx"])
def test_a_published_network_is_read_as_the_library_reads_it(name: str) -> None:
    expected: dict[str, Array] = {}

    def collect(graph: onnx.GraphProto) -> None:
        expected.update({tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer})
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    collect(attribute.g)
                elif node.op_type == "Constant" and attribute.HasField("t"):
                    expected[node.output[0]] = numpy_helper.to_array(attribute.t)

    collect(onnx.load(CHECKPOINTS / name).graph)
    expected = {
        key: value
        for key, value in expected.items()
        if key.endswith(("buffer", "weight", "bias", "ih", "hh"))
    }

    reader = OnnxFile(CHECKPOINTS / name)

    assert shapes(reader) == {key: value.shape for key, value in expected.items()}
    for key, value in expected.items():
        assert np.array_equal(reader.load(key), value), key


@SILERO
@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning")
def test_two_releases_of_a_network_hold_the_tensors_of_its_script_under_other_names() -> None:
    script = torch.jit.load(str(CHECKPOINTS / "v5_silero_vad.jit")).state_dict()  # type: ignore[no-untyped-call]
    variants = {
        "v5_silero_vad.onnx": {
            "_model.": "If_0_then_branch__Inline_0__",
            "_model_8k.": "If_0_else_branch__Inline_0__",
        },
        "v5_silero_vad_half.onnx": {"_model.": ""},
    }
    for file, prefixes in variants.items():
        reader = OnnxFile(CHECKPOINTS / file)
        expected = {
            new + key.removeprefix(old): values.numpy()
            for key, values in script.items()
            for old, new in prefixes.items()
            if key.startswith(old)
        }
        assert set(shapes(reader)) == set(expected)
        assert all(reader.load(key).tobytes() == values.tobytes() for key, values in expected.items())

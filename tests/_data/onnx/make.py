"""Writes the files beside it: networks as ONNX Runtime's quantisers store them, and what ONNX Runtime computes with them.

    pip install onnxruntime==1.31.1 onnx==1.23.2 onnx-ir==1.1.0
    python tests/_data/onnx/make.py

``NAME.onnx`` is the quantised network, ``NAME.npz`` holds ``weight`` before quantisation, shape (out, in), and
``expected``: the answers of the quantised network to unit vectors, which are the columns of its matrix.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
OUT, IN = 24, 160


def original() -> Any:
    return (np.random.default_rng(7).standard_t(4, (OUT, IN)) * 0.02).astype(np.float32)


def network(half: bool) -> onnx.ModelProto:
    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    weight = numpy_helper.from_array(np.ascontiguousarray(original().T.astype(dtype)), "up_proj.weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "up_proj.weight"], ["y"], name="/up_proj/MatMul")],
        "network",
        [helper.make_tensor_value_info("x", kind, ["n", IN])],
        [helper.make_tensor_value_info("y", kind, ["n", OUT])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def quantised(bits: int, block: int, *, symmetric: bool, half: bool, qdq: bool) -> Any:
    quantisers = import_module("onnxruntime.quantization.matmul_nbits_quantizer")
    formats = import_module("onnxruntime.quantization.quant_utils").QuantFormat
    config = quantisers.DefaultWeightOnlyQuantConfig(
        block_size=block,
        is_symmetric=symmetric,
        bits=bits,
        quant_format=formats.QDQ if qdq else formats.QOperator,
    )
    quantiser = quantisers.MatMulNBitsQuantizer(network(half), algo_config=config)
    quantiser.process()
    return quantiser.model.model


def main() -> None:
    onnxruntime = import_module("onnxruntime")
    for name, bits, block, symmetric, half, qdq in (
        ("matmulnbits-4bit", 4, 32, True, False, False),
        ("matmulnbits-4bit-zero-points", 4, 64, False, False, False),
        ("matmulnbits-4bit-half", 4, 32, False, True, False),
        ("matmulnbits-8bit", 8, 64, False, False, False),
        ("matmulnbits-2bit", 2, 32, False, False, False),
        ("blocks-4bit", 4, 32, True, False, True),
    ):
        model = quantised(bits, block, symmetric=symmetric, half=half, qdq=qdq)
        onnx.save(model, HERE / f"{name}.onnx")
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        units = np.eye(IN, dtype=np.float16 if half else np.float32)
        expected = session.run(None, {"x": units})[0].T.astype(np.float32)
        np.savez_compressed(HERE / f"{name}.npz", weight=original(), expected=expected)


if __name__ == "__main__":
    main()

"""Tensors that are in memory already, as a reader sees them."""

from __future__ import annotations

import array
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.readers.memory import InputError, InputReason, MemoryReader
from layerwatch_testing.models import write_safetensors


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(4, 8, 3), bn=nn.BatchNorm2d(8), fc=nn.Linear(16, 12)))


def digests(reader: Any) -> dict[str, str]:
    model = OpenModel(reader, "model")
    return {layer.name: model.read(layer).digest for layer in (*model.plan.layers, *model.plan.vectors)}


def saved(model: object, folder: Path) -> Any:
    torch.save(model, folder / "model.pt")
    return open_model(folder / "model.pt")


CHECKPOINTS: dict[str, Any] = {
    "a state dict": lambda: convnet().state_dict(),
    "a state dict of a wrapped module": lambda: nn.DataParallel(convnet()).state_dict(),
    "a module": convnet,
    "a wrapped module": lambda: nn.DataParallel(convnet()),
    "a training checkpoint": lambda: {
        "epoch": 3,
        "losses": [0.5, 0.25],
        "optimizer": torch.optim.Adam(convnet().parameters()).state_dict(),
        "state_dict": nn.DataParallel(convnet()).state_dict(),
        "ema": convnet().state_dict(),
        "generator_rng_state": torch.arange(8),
    },
    "a checkpoint with a module in it": lambda: {"model": convnet(), "note": "third try"},
    "lists of tensors": lambda: {"layers": [torch.ones(2, 3), torch.zeros(3, 2)]},
    "keys that are no text": lambda: {0: torch.ones(2, 3), (1, 2): torch.ones(3, 4)},
}


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_model_in_memory_has_the_tensors_of_its_saved_file(what: str, tmp_path: Path) -> None:
    model = CHECKPOINTS[what]()

    reader, file = MemoryReader(model), saved(model, tmp_path)

    assert reader.tensors() == file.tensors()
    assert dict(reader.left_out) == dict(file.left_out)
    assert digests(reader) == digests(file)


STORED_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int64: "I64",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}


@pytest.mark.parametrize("dtype", STORED_TYPES, ids=str)
def test_a_torch_tensor_of_any_type_is_handed_out_without_a_copy(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    reader = MemoryReader({"w": tensor})

    values = reader.load("w")

    assert reader.tensors()[0].dtype == STORED_TYPES[dtype]
    assert reader.tensors()[0].size_bytes == tensor.nbytes == values.nbytes
    assert values.__array_interface__["data"][0] == tensor.data_ptr()
    assert np.array_equal(values.astype(np.complex64), tensor.to(torch.complex64).numpy())


NUMPY_TYPES = [
    *(np.float64, np.float32, np.float16, np.int8, np.uint8, np.int64, np.bool_, np.complex64),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e8m0fnu),
    *(ml_dtypes.int4, ml_dtypes.float6_e2m3fn, ml_dtypes.float8_e3m4),
]


@pytest.mark.parametrize("dtype", NUMPY_TYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_a_numpy_array_of_any_type_is_handed_out_read_only_and_without_a_copy(dtype: Any) -> None:
    given = np.array([[0, 1, 2], [1, 2, 4]]).astype(dtype)
    reader = MemoryReader({"w": given})

    values = reader.load("w")

    assert values.dtype == given.dtype
    assert np.shares_memory(values, given)
    assert not values.flags.writeable
    assert given.flags.writeable


def strided_arrays() -> dict[str, NDArray[Any]]:
    plain = np.arange(24, dtype=np.float32).reshape(4, 6)
    return {
        "transposed": plain.T,
        "every second column": plain[:, ::2],
        "reversed rows": plain[::-1],
        "Fortran order": np.asfortranarray(plain),
        "one row for all": np.broadcast_to(plain[0], (5, 6)),
        "bfloat16 transposed": plain.astype(ml_dtypes.bfloat16).T,
    }


@pytest.mark.parametrize("what", strided_arrays())
def test_elements_that_do_not_lie_in_row_order_are_put_in_it(what: str, tmp_path: Path) -> None:
    given = strided_arrays()[what]
    reader = MemoryReader({"w": given})

    values = reader.load("w")

    assert np.array_equal(values, given)
    assert values.flags.c_contiguous
    file = open_model(write_safetensors(tmp_path / "w.safetensors", {"w": np.ascontiguousarray(given)}))
    assert digests(reader) == digests(file)


def test_a_strided_torch_tensor_is_put_in_row_order() -> None:
    tensor = torch.arange(24, dtype=torch.bfloat16).reshape(4, 6).T[::2]

    values = MemoryReader({"w": tensor}).load("w")

    assert values.flags.c_contiguous
    assert np.array_equal(values.astype(np.float32), tensor.float().numpy())


def test_a_tensor_that_is_stored_negated_has_its_real_values() -> None:
    negated = torch.tensor([[1 + 2j, 3 + 4j]]).conj().imag
    assert negated.is_neg()

    assert MemoryReader({"w": negated}).load("w").tolist() == [[-2.0, -4.0]]


def test_a_parameter_that_wants_a_gradient_is_read_and_left_as_it_is() -> None:
    parameter = nn.Parameter(torch.ones(2, 3))

    values = MemoryReader({"w": parameter}).load("w")

    assert values.tolist() == [[1.0] * 3] * 2
    assert parameter.requires_grad


def test_tied_weights_are_listed_under_both_names_with_one_digest() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(20, 8)
            self.lm_head = nn.Linear(8, 20, bias=False)
            self.lm_head.weight = self.embed_tokens.weight

    reader = MemoryReader(Tied())

    assert [info.name for info in reader.tensors()] == ["embed_tokens.weight", "lm_head.weight"]
    assert np.shares_memory(reader.load("embed_tokens.weight"), reader.load("lm_head.weight"))


def test_a_prefix_that_not_all_names_have_is_a_part_of_the_model() -> None:
    tensors = {"module.fc.weight": torch.ones(2, 2), "head.weight": torch.ones(2, 2)}

    assert [info.name for info in MemoryReader(tensors).tensors()] == list(tensors)


def test_numbers_of_another_byte_order_are_turned() -> None:
    given = np.arange(6.0).reshape(2, 3)
    reader = MemoryReader({"w": given.astype(">f4")})

    assert reader.tensors()[0].dtype == "F32"
    assert reader.load("w").dtype == np.dtype("<f4")
    assert np.array_equal(reader.load("w"), given)


def test_long_doubles_are_rounded_to_float64() -> None:
    reader = MemoryReader({"w": np.ones((2, 3), dtype=np.longdouble)})

    assert reader.tensors()[0].dtype == "F64"
    assert reader.load("w").dtype == np.float64


def test_a_numpy_matrix_is_an_array() -> None:
    assert type(MemoryReader({"w": np.matrix([[1.0, 2.0]])}).load("w")) is np.ndarray


def test_a_number_without_dimensions_keeps_its_shape() -> None:
    reader = MemoryReader({"w": torch.ones(2, 2), "steps": torch.tensor(7), "scale": np.float32(0.5)})

    assert reader.load("steps").shape == ()
    assert reader.load("scale").shape == ()


UNREADABLE: dict[str, Any] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed sparse": lambda: torch.eye(3).to_sparse_csr(),
    "meta": lambda: torch.empty(3, 3, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3, 3), 0.1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_tensor_without_plain_values_is_refused_when_it_is_loaded_and_harms_no_other(what: str) -> None:
    reader = MemoryReader({"odd.weight": UNREADABLE[what](), "fc.weight": torch.ones(2, 2)})

    with pytest.raises(UnreadableError) as caught:
        reader.load("odd.weight")

    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR
    assert caught.value.tensor == "odd.weight"
    assert reader.load("fc.weight").sum() == 4


def test_a_tensor_subclass_that_refuses_to_become_an_array_is_refused_with_its_own_words() -> None:
    class Guarded(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.Tensor.cpu:
                raise NotImplementedError("guarded weights stay where they are")
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]

    reader = MemoryReader({"w": torch.ones(2, 2).as_subclass(Guarded)})

    with pytest.raises(UnreadableError, match=r"a Guarded .*guarded weights stay where they are"):
        reader.load("w")


def test_a_lazy_parameter_makes_the_model_undecided() -> None:
    reader = MemoryReader(nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3)))

    assert [one.name for one in reader.unexamined] == ["1.weight", "1.bias"]
    assert "run the module once" in reader.unexamined[0].detail
    assert [info.name for info in reader.tensors()] == ["0.weight", "0.bias"]


NO_ARRAYS: dict[str, Any] = {
    "a list": [[1.0, 2.0], [3.0, 4.0]],
    "a flat list": [1, 2, 3],
    "a frame": pd.DataFrame([[1.0, 2.0]]),
    "a buffer": memoryview(b"abcd"),
    "an array of the array module": array.array("f", [1.0, 2.0]),
}


@pytest.mark.parametrize("what", NO_ARRAYS)
def test_what_only_resembles_an_array_is_refused_with_what_to_pass(what: str) -> None:
    with pytest.raises(InputError, match=r"numpy\.asarray") as caught:
        MemoryReader({"fc.bias": np.ones(3), "fc.weight": NO_ARRAYS[what]})

    assert caught.value.reason is InputReason.NOT_AN_ARRAY
    assert caught.value.name == "fc.weight"


@pytest.mark.parametrize(
    "given",
    [
        np.array([["a", "b"]]),
        np.array([[1, None]], dtype=object),
        np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]),
        np.zeros((2, 2), dtype=[("x", "f4"), ("y", "f4")]),
        np.zeros((2, 2), dtype="datetime64[s]"),
    ],
    ids=lambda given: str(given.dtype),
)
def test_an_array_of_something_else_than_plain_numbers_is_refused(given: Any) -> None:
    with pytest.raises(InputError) as caught:
        MemoryReader({"w": given})

    assert caught.value.reason is InputReason.NOT_NUMERIC


@pytest.mark.parametrize("model", [np.ones((2, 2)), torch.ones(2, 2), [torch.ones(2, 2)], 7, None, nn.Linear])
def test_what_is_no_model_is_refused_with_what_to_pass(model: object) -> None:
    with pytest.raises(InputError, match=r"pass the path .* numpy\.ndarray") as caught:
        MemoryReader(model)

    assert caught.value.reason is InputReason.NOT_A_MODEL


@pytest.mark.parametrize("model", [{}, {"epoch": 3}, nn.ReLU(), {"a": {"b": {}}}])
def test_a_model_without_tensors_is_refused(model: object) -> None:
    with pytest.raises(UnreadableError) as caught:
        MemoryReader(model)

    assert caught.value.reason is UnreadableReason.NO_TENSORS


def test_a_foreign_object_beside_the_weights_is_left_out_by_name() -> None:
    reader = MemoryReader({"fc.weight": torch.ones(2, 2), "config": Path("x")})

    assert [name for name, _ in reader.left_out] == ["config"]
    assert "Path" in dict(reader.left_out)["config"]


def test_a_container_inside_itself_ends() -> None:
    model: dict[str, Any] = {"fc.weight": torch.ones(2, 2)}
    model["again"] = model

    assert [info.name for info in MemoryReader(model).tensors()] == ["fc.weight"]


def test_absurd_nesting_is_refused() -> None:
    model: dict[str, Any] = {"w": torch.ones(2, 2)}
    for _ in range(2000):
        model = {"deeper": model}

    with pytest.raises(UnreadableError) as caught:
        MemoryReader(model)

    assert caught.value.reason is UnreadableReason.TOO_DEEP


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_tensor_on_a_gpu_is_moved_when_it_is_loaded() -> None:
    tensor = torch.arange(6, dtype=torch.bfloat16, device="cuda").reshape(2, 3)
    reader = MemoryReader({"w": tensor})

    assert np.array_equal(reader.load("w").astype(np.float32), tensor.float().cpu().numpy())
    assert tensor.is_cuda

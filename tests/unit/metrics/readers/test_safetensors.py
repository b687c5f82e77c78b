"""safetensors files: every stored type as the reference implementation writes it, and every way to be broken."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from forge import entry, write_safetensors
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.readers.dtypes import SAFETENSORS_TYPES


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        open_model(path)
    assert caught.value.path == str(path)
    return caught.value


@pytest.mark.parametrize(
    ("torch_type", "name", "numpy_type"),
    [
        (torch.bool, "BOOL", np.bool_),
        (torch.uint8, "U8", np.uint8),
        (torch.int8, "I8", np.int8),
        (torch.uint16, "U16", np.uint16),
        (torch.int16, "I16", np.int16),
        (torch.uint32, "U32", np.uint32),
        (torch.int32, "I32", np.int32),
        (torch.uint64, "U64", np.uint64),
        (torch.int64, "I64", np.int64),
        (torch.float16, "F16", np.float16),
        (torch.bfloat16, "BF16", ml_dtypes.bfloat16),
        (torch.float32, "F32", np.float32),
        (torch.float64, "F64", np.float64),
        (torch.complex64, "C64", np.complex64),
        (torch.float8_e4m3fn, "F8_E4M3", ml_dtypes.float8_e4m3fn),
        (torch.float8_e5m2, "F8_E5M2", ml_dtypes.float8_e5m2),
        (torch.float8_e8m0fnu, "F8_E8M0", ml_dtypes.float8_e8m0fnu),
        (torch.float8_e4m3fnuz, "F8_E4M3FNUZ", ml_dtypes.float8_e4m3fnuz),
        (torch.float8_e5m2fnuz, "F8_E5M2FNUZ", ml_dtypes.float8_e5m2fnuz),
    ],
)
def test_every_type_of_the_format_is_read_as_torch_wrote_it(
    tmp_path: Path, torch_type: torch.dtype, name: str, numpy_type: Any
) -> None:
    tensor = torch.tensor([[1.0, 2.0, 0.5], [4.0, 0.25, 1.0]]).to(torch_type)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"w": tensor}, path)
    reader = open_model(path)
    (info,) = reader.tensors()
    assert (info.name, info.shape, info.dtype, info.size_bytes) == ("w", (2, 3), name, 6 * tensor.itemsize)
    loaded = reader.load("w")
    assert loaded.dtype == np.dtype(numpy_type)
    # torch converts to a wider type by itself, so the two paths to these numbers share no code.
    wide = torch.complex128 if torch_type.is_complex else torch.float64
    assert np.array_equal(loaded.astype(np.complex128), tensor.to(wide).numpy().astype(np.complex128))


def test_the_type_table_covers_the_whole_format() -> None:
    assert len(SAFETENSORS_TYPES) == 22  # enum Dtype of safetensors 0.8


@pytest.mark.parametrize(("dtype", "size"), [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6), ("F3_FUTURE", 5)])
def test_a_type_without_numpy_counterpart_is_listed_and_refused_on_load(
    tmp_path: Path, dtype: str, size: int
) -> None:
    header = {"packed": entry(dtype, [8], 0, size), "plain": entry("F32", [1], size, size + 4)}
    reader = open_model(write_safetensors(tmp_path / "m.safetensors", header, bytes(size + 4)))
    assert [(info.name, info.dtype, info.size_bytes) for info in reader.tensors()] == [
        ("packed", dtype, size),
        ("plain", "F32", 4),
    ]
    with pytest.raises(UnreadableError, match=dtype) as caught:
        reader.load("packed")
    assert (caught.value.reason, caught.value.tensor) == (UnreadableReason.UNSUPPORTED_DTYPE, "packed")
    assert reader.load("plain").tolist() == [0.0]


def test_arrays_are_read_only_views_that_outlive_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({"w": np.arange(1000, dtype=np.float32)}, path)
    reader = open_model(path)
    loaded = reader.load("w")
    assert loaded.base is not None
    assert not loaded.flags.writeable
    reader.close()
    del reader
    assert loaded.sum() == 499500


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"s": torch.tensor(7), "e": torch.empty(0, 5), "m": torch.zeros(2)}, path)
    reader = open_model(path)
    assert reader.load("s").shape == ()
    assert int(reader.load("s")) == 7
    assert reader.load("e").shape == (0, 5)
    assert not reader.load("e").flags.writeable


def test_a_file_written_to_while_it_is_read_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(8)}, path)
    reader = open_model(path)
    with path.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(UnreadableError) as caught:
        reader.load("w")
    assert caught.value.reason is UnreadableReason.CHANGED_WHILE_READING
    assert caught.value.transient


def test_a_truncated_file_is_refused_with_the_missing_byte_count(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(100), "b": np.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-123])
    error = refusal(path)
    assert error.reason is UnreadableReason.TRUNCATED
    assert "123 bytes are missing" in error.detail


F1 = entry("F32", [1], 0, 4)
BROKEN: dict[str, tuple[Any, bytes, UnreadableReason, str]] = {
    "no tensors": ({}, b"", UnreadableReason.NO_TENSORS, "no tensor"),
    "metadata alone": ({"__metadata__": {"a": "b"}}, b"", UnreadableReason.NO_TENSORS, "no tensor"),
    "metadata not text": (
        {"__metadata__": {"a": 1}, "w": F1},
        bytes(4),
        UnreadableReason.BAD_HEADER,
        "strings",
    ),
    "not JSON": (b"{w}", b"", UnreadableReason.BAD_HEADER, "not JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", UnreadableReason.BAD_HEADER, "UTF-8"),
    "an array": (b"[]", b"", UnreadableReason.BAD_HEADER, "not an object"),
    "a constant": (b'{"w": NaN}', b"", UnreadableReason.BAD_HEADER, "NaN"),
    "a huge number": (b'{"w": ' + b"9" * 5000 + b"}", b"", UnreadableReason.BAD_HEADER, "not JSON"),
    "a key twice": (b'{"w": 1, "w": 2}', b"", UnreadableReason.BAD_HEADER, "twice"),
    "an inner key twice": (
        b'{"w": {"dtype": "F32", "dtype": "I8", "shape": [1], "data_offsets": [0, 4]}}',
        bytes(4),
        UnreadableReason.BAD_HEADER,
        "twice",
    ),
    "a lone surrogate": (
        b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        bytes(4),
        UnreadableReason.BAD_HEADER,
        "Unicode",
    ),
    "deep lists": (b'{"w": ' + b"[" * 10000 + b"]" * 10000 + b"}", b"", UnreadableReason.TOO_DEEP, "deeper"),
    "deep objects": (b'{"w":' * 10000 + b"1" + b"}" * 10000, b"", UnreadableReason.TOO_DEEP, "deeper"),
    "deep and cut": (b"[" * 10000, b"", UnreadableReason.TOO_DEEP, "deeper"),
    "an entry too few": ({"w": {"dtype": "F32"}}, b"", UnreadableReason.BAD_HEADER, "exactly"),
    "an entry too many": ({"w": F1 | {"x": 1}}, bytes(4), UnreadableReason.BAD_HEADER, "exactly"),
    "dtype no text": ({"w": F1 | {"dtype": 1}}, bytes(4), UnreadableReason.BAD_HEADER, "dtype"),
    "dtype no Unicode text": (
        b'{"w": {"dtype": "\\ud800", "shape": [1], "data_offsets": [0, 4]}}',
        bytes(4),
        UnreadableReason.BAD_HEADER,
        "dtype",
    ),
    "a very long name": ({"w" * 4097: F1}, bytes(4), UnreadableReason.TOO_LARGE, "4097 characters"),
    "negative dimension": ({"w": entry("F32", [-1], 0, 4)}, bytes(4), UnreadableReason.BAD_HEADER, "shape"),
    "fractional dimension": (
        {"w": entry("F32", [1.0], 0, 4)},
        bytes(4),
        UnreadableReason.BAD_HEADER,
        "shape",
    ),
    "boolean dimension": ({"w": entry("F32", [True], 0, 4)}, bytes(4), UnreadableReason.BAD_HEADER, "shape"),
    "overflowing shape": (
        {"w": entry("F32", [2**32, 2**32], 0, 0)},
        b"",
        UnreadableReason.BAD_HEADER,
        "more elements",
    ),
    "empty but overflowing shape": (
        {"w": entry("F32", [0, 2**62, 2**62], 0, 0)},
        b"",
        UnreadableReason.BAD_HEADER,
        "more elements",
    ),
    "too many dimensions": (
        {"w": entry("F32", [1] * 65, 0, 4)},
        bytes(4),
        UnreadableReason.BAD_HEADER,
        "shape",
    ),
    "size lies": ({"w": entry("F32", [2], 0, 4)}, bytes(4), UnreadableReason.BAD_HEADER, "takes 8 bytes"),
    "half a byte": ({"w": entry("F4", [1], 0, 1)}, bytes(1), UnreadableReason.BAD_HEADER, "0.5 bytes"),
    "offsets swapped": (
        {"w": entry("F32", [1], 4, 0)},
        bytes(4),
        UnreadableReason.BAD_HEADER,
        "begin <= end",
    ),
    "one offset": (
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
        bytes(4),
        UnreadableReason.BAD_HEADER,
        "two whole numbers",
    ),
    "overlap": (
        {"a": F1, "b": entry("F32", [1], 2, 6)},
        bytes(6),
        UnreadableReason.BAD_HEADER,
        "overlaps",
    ),
    "hole": ({"a": F1, "b": entry("F32", [1], 8, 12)}, bytes(12), UnreadableReason.BAD_HEADER, "hole"),
    "hole in front": ({"a": entry("F32", [1], 4, 8)}, bytes(8), UnreadableReason.BAD_HEADER, "hole"),
    "bytes left over": ({"w": F1}, bytes(7), UnreadableReason.BAD_HEADER, "3 bytes at the end"),
    "beyond the end": ({"w": F1}, b"\0", UnreadableReason.TRUNCATED, "3 bytes are missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_header_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    header, data, reason, words = BROKEN[case]
    error = refusal(write_safetensors(tmp_path / "m.safetensors", header, data))
    assert error.reason is reason
    assert words in error.detail


def test_the_longest_name_that_is_accepted_is_read(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "m.safetensors", {"w" * 4096: F1}, bytes(4))
    assert [info.name for info in open_model(path).tensors()] == ["w" * 4096]


def test_a_header_length_beyond_the_file_is_refused(tmp_path: Path) -> None:
    error = refusal(write_safetensors(tmp_path / "m.safetensors", {"w": F1}, bytes(4), length=5000))
    assert error.reason is UnreadableReason.BAD_HEADER
    assert "bytes are missing" in error.detail


@pytest.mark.parametrize("length", [100_000_001, 2**63, 2**64 - 1])
def test_a_header_length_above_the_limit_of_the_format_is_refused(tmp_path: Path, length: int) -> None:
    error = refusal(write_safetensors(tmp_path / "m.safetensors", {"w": F1}, bytes(4), length=length))
    assert error.reason is UnreadableReason.TOO_LARGE


def test_an_empty_and_a_tiny_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"")
    assert refusal(path).reason is UnreadableReason.EMPTY_FILE
    path.write_bytes(b"abc")
    assert refusal(path).reason is UnreadableReason.TRUNCATED


def test_the_order_of_the_header_is_kept(tmp_path: Path) -> None:
    header = {"z": entry("U8", [1], 1, 2), "a": entry("U8", [1], 0, 1), "m": entry("U8", [0], 1, 1)}
    reader = open_model(write_safetensors(tmp_path / "m.safetensors", header, b"\1\2"))
    assert [info.name for info in reader.tensors()] == ["z", "a", "m"]
    assert reader.load("z").tolist() == [2]


ARRAYS = st.sampled_from(
    [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint16, np.bool_]
).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))


@settings(max_examples=150, deadline=None)
@given(tensors=st.dictionaries(st.text(min_size=1, max_size=20), ARRAYS, min_size=1, max_size=6))
def test_whatever_safetensors_writes_is_read_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any]
) -> None:
    tensors.pop("__metadata__", None)
    named = {
        f"layer.{name}": np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()
    }
    if not named:
        return
    path = tmp_path_factory.mktemp("roundtrip") / "m.safetensors"
    safetensors.numpy.save_file(named, path)
    reader = open_model(path)
    assert {info.name for info in reader.tensors()} == set(named)
    for info in reader.tensors():
        array = named[info.name]
        assert info.shape == array.shape
        assert info.size_bytes == math.prod(array.shape) * array.itemsize
        assert reader.load(info.name).tobytes() == array.tobytes()

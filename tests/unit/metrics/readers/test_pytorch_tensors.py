"""Single tensors in torch checkpoints, both containers, against torch itself."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forge import VALUES, dict_pickle, tensor_opcodes, write_legacy, write_zip
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.tensors import Array

CONTAINERS = [pytest.param(True, id="zip"), pytest.param(False, id="legacy")]

TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
"""Types with a storage class of their own."""

NEWER_TYPES = {
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
}
"""Types saved through untyped storages."""


def saved(tmp_path: Path, value: Any, zipped: bool = True, name: str = "model.pt", **options: Any) -> Path:
    path = tmp_path / name
    torch.save(value, path, _use_new_zipfile_serialization=zipped, **options)
    return path


def as_numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().to(torch.float64).numpy()


@pytest.mark.parametrize("zipped", CONTAINERS)
@pytest.mark.parametrize("dtype", TYPES | NEWER_TYPES, ids=str)
def test_every_type_is_read_as_torch_wrote_it(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    tensor = torch.tensor([[1.0, 2.0, 0.5], [4.0, 0.25, 1.0]]).to(dtype)
    reader = open_model(saved(tmp_path, {"w": tensor}, zipped))
    (info,) = reader.tensors()
    expected = ("w", (2, 3), (TYPES | NEWER_TYPES)[dtype], 6 * tensor.itemsize)
    assert (info.name, info.shape, info.dtype, info.size_bytes) == expected
    assert np.array_equal(reader.load("w").astype(np.float64), as_numpy(tensor))
    assert reader.format == "pytorch"


@pytest.mark.parametrize("zipped", CONTAINERS)
def test_views_transposes_and_shared_storages_are_read_as_saved(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "base": base,
        "row": base[2],
        "transposed": base.T,
        "stepped": base[1::2, ::3],
        "tied": base,
        "expanded": torch.ones(1).expand(3, 4),
        "channels_last": torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 7),
        "parameter": torch.nn.Parameter(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))),
    }
    reader = open_model(saved(tmp_path, state, zipped))
    assert [info.name for info in reader.tensors()] == list(state)
    for name, tensor in state.items():
        loaded = reader.load(name)
        assert loaded.shape == tuple(tensor.shape)
        assert np.array_equal(loaded, tensor.detach().numpy()), name
        assert not loaded.flags.writeable
    assert reader.load("transposed").strides == (4, 24)


@pytest.mark.parametrize("zipped", CONTAINERS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path: Path, zipped: bool, protocol: int) -> None:
    tensor = torch.arange(10.0)
    reader = open_model(saved(tmp_path, {"a": {"b": [tensor]}}, zipped, pickle_protocol=protocol))
    assert reader.load("a.b.0").tolist() == tensor.tolist()


def test_arrays_outlive_the_reader(tmp_path: Path) -> None:
    reader = open_model(saved(tmp_path, {"w": torch.arange(1000.0)}))
    loaded = reader.load("w")
    reader.close()
    del reader
    assert loaded.sum() == 499500


def test_compressed_storages_are_read_too(tmp_path: Path) -> None:
    root = dict_pickle({"w": tensor_opcodes()})
    reader = open_model(write_zip(tmp_path / "m.pt", root, compression=zipfile.ZIP_DEFLATED))
    assert np.array_equal(reader.load("w"), VALUES)


def test_a_file_saved_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path, {"w": torch.arange(10.0)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert open_model(path).load("w").sum() == 45


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "shape", "dtype"),
    [
        (lambda: torch.eye(3).to_sparse(), (3, 3), "F32"),
        (lambda: torch.eye(3, dtype=torch.float64).to_sparse_csr(), (3, 3), "F64"),
        (lambda: torch.ones(2, dtype=torch.complex64), (2,), "C64"),
        (lambda: torch.ones(2, dtype=torch.complex128).conj(), (2,), "C128"),
        (lambda: torch.empty(3, 4, device="meta"), (3, 4), "F32"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), (), "UNKNOWN"),
    ],
    ids=["sparse", "csr", "complex", "conjugated", "meta", "nested"],
)
def test_exotic_tensors_are_listed_and_refused_on_load(
    tmp_path: Path, make: Any, shape: tuple[int, ...], dtype: str
) -> None:
    reader = open_model(saved(tmp_path, {"plain": torch.ones(2), "exotic": make()}))
    assert [(info.name, info.shape, info.dtype) for info in reader.tensors()][1] == ("exotic", shape, dtype)
    with pytest.raises(UnreadableError) as caught:
        reader.load("exotic")
    assert (caught.value.reason, caught.value.tensor) == (UnreadableReason.UNSUPPORTED_TENSOR, "exotic")
    assert caught.value.detail
    assert reader.load("plain").tolist() == [1.0, 1.0]


LIES: dict[str, tuple[dict[str, Any], UnreadableReason, str]] = {
    "shape beyond the storage": ({"shape": (3, 3)}, UnreadableReason.BAD_PICKLE, "12 bytes beyond"),
    "offset beyond the storage": ({"offset": 1}, UnreadableReason.BAD_PICKLE, "4 bytes beyond"),
    "stride beyond the storage": ({"strides": (4, 1)}, UnreadableReason.BAD_PICKLE, "4 bytes beyond"),
    "huge stride": ({"strides": (2**62, 1)}, UnreadableReason.BAD_PICKLE, "beyond"),
    "negative stride": ({"strides": (-3, 1)}, UnreadableReason.BAD_PICKLE, "-3"),
    "negative offset": ({"offset": -1}, UnreadableReason.BAD_PICKLE, "-1"),
    "negative size": ({"shape": (-2, 3)}, UnreadableReason.BAD_PICKLE, "-2"),
    "a size of text": ({"shape": ("2", 3)}, UnreadableReason.BAD_PICKLE, "'2'"),
    "a shape of text": ({"shape": "23"}, UnreadableReason.BAD_PICKLE, "'23'"),
    "a boolean offset": ({"offset": True}, UnreadableReason.BAD_PICKLE, "True"),
    "an enormous size": ({"shape": (10**40, 3)}, UnreadableReason.BAD_PICKLE, "bits"),
    "an overflowing shape": ({"shape": (2**40, 2**40)}, UnreadableReason.BAD_PICKLE, "more elements"),
    "a stride too few": ({"strides": (1,)}, UnreadableReason.BAD_PICKLE, "1 strides"),
    "100 dimensions": ({"shape": (1,) * 100}, UnreadableReason.BAD_PICKLE, "100 dimensions"),
    "an endless expansion": ({"shape": (2**40, 3), "strides": (0, 1)}, UnreadableReason.TOO_LARGE, "repeats"),
    "overlapping windows": (
        {"shape": (2**28, 1, 1), "strides": (0, 0, 0)},
        UnreadableReason.TOO_LARGE,
        "repeats",
    ),
    "no such storage": ({"key": "../../etc/passwd"}, UnreadableReason.BAD_PICKLE, "not in the file"),
    "a storage said larger": ({"numel": 7}, UnreadableReason.TRUNCATED, "24 bytes where the pickle says 28"),
    "a storage said smaller": (
        {"numel": 5},
        UnreadableReason.BAD_PICKLE,
        "24 bytes where the pickle says 20",
    ),
    "a storage of text size": ({"numel": "6"}, UnreadableReason.BAD_PICKLE, "'6'"),
    "a key of None": ({"key": None}, UnreadableReason.BAD_PICKLE, "None"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies_about_its_storage_is_refused(tmp_path: Path, lie: str) -> None:
    options, reason, words = LIES[lie]
    path = write_zip(tmp_path / "m.pt", dict_pickle({"w": tensor_opcodes(**options)}))
    with pytest.raises(UnreadableError) as caught:
        open_model(path)
    assert (caught.value.reason, caught.value.path) == (reason, str(path))
    assert words in caught.value.detail


@pytest.mark.parametrize("lie", ["shape beyond the storage", "negative stride", "an endless expansion"])
def test_the_same_lies_are_refused_in_the_legacy_container(tmp_path: Path, lie: str) -> None:
    options, reason, _ = LIES[lie]
    path = write_legacy(tmp_path / "m.pt", dict_pickle({"w": tensor_opcodes(**options)}))
    with pytest.raises(UnreadableError) as caught:
        open_model(path)
    assert caught.value.reason is reason


def test_a_large_stride_of_a_dimension_of_one_is_harmless(tmp_path: Path) -> None:
    root = dict_pickle({"w": tensor_opcodes(shape=(1, 6), strides=(2**62, 1))})
    assert open_model(write_zip(tmp_path / "m.pt", root)).load("w").tolist() == [[0, 1, 2, 3, 4, 5]]


def test_a_storage_class_that_is_not_known_is_listed_and_refused_on_load(tmp_path: Path) -> None:
    root = dict_pickle({"w": tensor_opcodes(storage="Float3Storage"), "x": tensor_opcodes()})
    reader = open_model(write_zip(tmp_path / "m.pt", root))
    with pytest.raises(UnreadableError) as caught:
        reader.load("w")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_DTYPE
    assert np.array_equal(reader.load("x"), VALUES)

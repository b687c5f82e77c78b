"""HDF5 below Keras: chunks and texts, compared with what h5py itself reads, and files that ask libhdf5 for too much."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.hdf5chunks import fletcher32
from layerwatch.metrics.readers.keras import KerasFile


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        reader = KerasFile(path)
        for info in reader.tensors():
            reader.load(info.name)
    return caught.value


SET = {
    "gzip": lambda plist: plist.set_deflate(4),
    "shuffle": lambda plist: plist.set_shuffle(),
    "fletcher32": lambda plist: plist.set_fletcher32(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hdf5")


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    sides=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    filters=st.lists(st.sampled_from(sorted(SET)), unique=True, max_size=3),
    dtype=st.sampled_from(["<f4", ">f8", "<f2", "i1", ">u2", "?"]),
    filled=st.booleans(),
    libver=st.sampled_from(["earliest", "latest"]),
    seed=st.integers(0, 2**16),
)
def test_chunks_are_unpacked_as_h5py_does(
    folder: Path,
    shape: list[int],
    sides: list[int],
    filters: list[str],
    dtype: str,
    filled: bool,
    libver: str,
    seed: int,
) -> None:
    path = folder / "m.h5"
    path.unlink(missing_ok=True)
    values = np.random.default_rng(seed).integers(0, 2 if dtype == "?" else 100, shape).astype(dtype)
    with h5py.File(path, "w", libver=libver) as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(tuple(min(side, end) for side, end in zip(sides, shape, strict=False)))
        plist.set_fill_value(np.array(1, dtype))
        for one in filters:
            SET[one](plist)
        kind = h5py.h5t.py_create(values.dtype, logical=True)
        space = h5py.h5s.create_simple(tuple(shape))
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"w", kind, space, dcpl=plist))
        if filled:
            dataset[...] = values
        else:
            # Chunks that were never written hold the fill value.
            dataset[:1] = values[:1]
    with h5py.File(path) as file:
        expected = file["w"][()]
    reader = KerasFile(path)
    loaded = reader.load("w")
    # Kernels are turned, outputs first.
    assert np.array_equal(loaded, expected.T)
    assert loaded.dtype == values.dtype.newbyteorder("<")
    reader.close()


@pytest.mark.parametrize("size", [*range(1, 9), 719, 720, 721, 1441, 300_001])
@pytest.mark.parametrize("content", ["random", "zeros", "ones"])
def test_the_checksum_is_that_of_libhdf5(tmp_path: Path, size: int, content: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    if content != "random":
        values[:] = 0 if content == "zeros" else 255
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("w", data=values, chunks=(size,), fletcher32=True)
        place = file["w"].id.get_chunk_info(0)
    stored = (tmp_path / "m.h5").read_bytes()[place.byte_offset : place.byte_offset + place.size]
    assert fletcher32(stored[:-4]) == int.from_bytes(stored[-4:], "little")


@pytest.mark.parametrize("filters", [{"fletcher32": True}, {"compression": "gzip"}])
def test_a_damaged_chunk_is_refused(tmp_path: Path, filters: dict[str, Any]) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("w", data=np.arange(1000, dtype=np.float32), **filters)
        place = file["w"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + place.size // 2] ^= 0x55
    path.write_bytes(content)
    error = refusal(path)
    assert error.reason is UnreadableReason.CORRUPT
    assert "chunk" in error.detail


@pytest.mark.parametrize("option", [{"compression": "lzf"}, {"scaleoffset": 3}])
def test_filters_that_are_not_undone_here_are_refused_naming_them(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("w", data=np.arange(1000), **option)
    error = refusal(tmp_path / "m.h5")
    assert error.reason is UnreadableReason.UNSUPPORTED_TENSOR
    assert "gzip" in error.detail


def _other_bias() -> Any:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(64)
    return kind


def _twenty_bits() -> Any:
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(20)
    return kind


@pytest.mark.parametrize("kind", [_other_bias, _twenty_bits])
def test_numbers_that_only_resemble_a_known_type_are_refused(tmp_path: Path, kind: Any) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        h5py.h5d.create(file.id, b"w", kind(), h5py.h5s.create_simple((3,)))
    error = refusal(tmp_path / "m.h5")
    assert error.reason is UnreadableReason.UNSUPPORTED_DTYPE
    assert "resembles" in error.detail


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "<i2"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_values_in_the_header_of_their_dataset_are_read(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    values = np.asarray(np.random.default_rng(0).integers(0, 100, shape)).astype(dtype)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
        dataset = h5py.Dataset(
            h5py.h5d.create(file.id, b"w", h5py.h5t.py_create(values.dtype), space, dcpl=plist)
        )
        dataset[...] = values
    assert np.array_equal(KerasFile(tmp_path / "m.h5").load("w"), values.T)


@pytest.mark.parametrize(
    ("libver", "before"), [("earliest", 0), ("earliest", 30), ("latest", 0), ("latest", 5)]
)
def test_names_in_texts_of_variable_length_are_read(tmp_path: Path, libver: str, before: int) -> None:
    with h5py.File(tmp_path / "m.h5", "w", libver=libver) as file:
        variables = file.create_group("layers/dense/vars")
        for number in range(before):
            variables.attrs[f"a{number}"] = "x" * number
        variables.attrs["name"] = "häd"
        variables["0"] = np.ones((2, 3))
    assert [info.name for info in KerasFile(tmp_path / "m.h5").tensors()] == ["häd/kernel"]


def test_texts_in_dense_storage_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w", libver="latest") as file:
        variables = file.create_group("layers/dense/vars")
        for number in range(30):
            variables.attrs[f"a{number}"] = "x"
        variables.attrs["name"] = "head"
        variables["0"] = np.ones((2, 3))
    error = refusal(tmp_path / "m.h5")
    assert error.reason is UnreadableReason.CORRUPT
    assert "name" in error.detail


def claims(path: Path, length: int, libver: str) -> Path:
    """A file with a text that claims this many bytes."""
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["model_config"] = "{}"
        file["w"] = np.ones(3)
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    descriptor = struct.pack("<IQI", 2, heap, 1)
    assert content.count(descriptor) == 1
    path.write_bytes(content.replace(descriptor, struct.pack("<IQI", length, heap, 1)))
    return path


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_text_that_claims_more_than_the_file_has_is_refused(tmp_path: Path, libver: str) -> None:
    error = refusal(claims(tmp_path / "m.h5", 2**32 - 1, libver))
    assert error.reason is UnreadableReason.CORRUPT


def inflating(path: Path) -> Path:
    """A dataset of 1 kB whose only chunk inflates to 256 MiB."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(2**8)) + packer.flush()
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("w", (256,), np.float32, chunks=(256,), compression="gzip")
        dataset.id.write_direct_chunk((0,), packed)
    return path


def continued(path: Path) -> Path:
    """A group whose header goes on in a block of 4 GiB (found by fuzzing)."""
    with h5py.File(path, "w", libver="earliest") as file:
        group = file.create_group("dense")
        for number in range(20):
            group.attrs[f"a{number}"] = np.arange(20)
        group["kernel"] = np.ones((2, 2))
        address = h5py.h5o.get_info(group.id).addr
    data = bytearray(path.read_bytes())
    # Messages of version 1: type, size, flags; the continuation holds an address and a length of 8 bytes each.
    at = data.index(struct.pack("<HH", 0x10, 0x10), address)
    data[at + 16 : at + 24] = struct.pack("<Q", 2**32)
    path.write_bytes(data)
    return path


def test_a_header_that_goes_on_behind_the_end_of_the_file_is_refused(tmp_path: Path) -> None:
    error = refusal(continued(tmp_path / "m.h5"))

    assert error.reason is UnreadableReason.CORRUPT
    assert "the header of 'dense' claims more bytes than the file has" in str(error)


@pytest.mark.parametrize("size", [0xFFFF0000, 0x80000000, 0x7FFFFFFF])
def test_a_fill_value_that_is_not_there_is_refused(tmp_path: Path, size: int) -> None:
    """libhdf5 ended the process on those that are negative numbers (found by fuzzing)."""
    path = tmp_path / "m.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        kernel = file.create_dataset("kernel", (8, 8), np.float32, chunks=(4, 4))
        kernel[:4] = 1
        address = h5py.h5o.get_info(kernel.id).addr
    data = bytearray(path.read_bytes())
    # Version 2; when space is taken and when it is written; that there is a value, of 0 bytes.
    at = data.index(struct.pack("<BBBBI", 2, 3, 2, 1, 0), address)
    struct.pack_into("<I", data, at + 4, size)
    path.write_bytes(data)

    error = refusal(path)

    assert error.reason is UnreadableReason.CORRUPT
    assert "the header of 'kernel' holds a fill value that claims more bytes than it has" in str(error)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("fill", [None, 2.5])
def test_chunks_that_were_never_written_hold_the_fill_value(
    tmp_path: Path, libver: str, fill: float | None
) -> None:
    with h5py.File(tmp_path / "m.h5", "w", libver=libver) as file:
        table = file.create_dataset("table", (8, 8), np.float32, chunks=(4, 4), fillvalue=fill)
        table[:4] = 1
        expected = table[:]

    with closing(KerasFile(tmp_path / "m.h5")) as reader:
        (info,) = reader.tensors()
        # Handed out with outputs first.
        assert np.array_equal(np.asarray(reader.load(info.name)), expected.T)


def without_end(path: Path) -> Path:
    """A group whose heap of names has a free block that is followed by itself (found by fuzzing)."""
    with h5py.File(path, "w", libver="earliest") as file:
        group = file.create_group("layers")
        for number in range(20):
            group[f"kernel_{number}"] = np.ones((2, 2))
        del group["kernel_3"]
    data = bytearray(path.read_bytes())
    # The last heap is the one of the group: signature and version, then size, first free block and place of the names.
    heap = data.rindex(b"HEAP\0")
    size, free, names = struct.unpack_from("<QQQ", data, heap + 8)
    assert free < size
    struct.pack_into("<Q", data, names + free, free)
    path.write_bytes(data)
    return path


def test_a_heap_of_names_whose_free_blocks_have_no_end_is_refused(tmp_path: Path) -> None:
    error = refusal(without_end(tmp_path / "m.h5"))

    assert error.reason is UnreadableReason.CORRUPT
    assert "the list of free blocks in the heap of names" in str(error)


def test_names_that_were_deleted_leave_free_blocks_that_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w", libver="earliest") as file:
        for number in range(200):
            file[f"kernel_{number}"] = np.ones((2, 2))
        for number in range(0, 200, 2):
            del file[f"kernel_{number}"]

    with closing(KerasFile(tmp_path / "m.h5")) as reader:
        assert len(list(reader.tensors())) == 100


CODE = """
import pathlib, sys
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.readers.keras import KerasFile, _h5py

def peak():
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

_h5py(pathlib.Path())
before = peak()
try:
    reader = KerasFile(pathlib.Path(sys.argv[1]))
    [reader.load(info.name) for info in reader.tensors()]
except UnreadableError as error:
    print(error.reason, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is one of Linux")
@pytest.mark.parametrize(
    "make",
    [inflating, lambda path: claims(path, 2**30, "earliest"), continued, without_end],
    ids=["inflating", "claims", "continued", "without_end"],
)
def test_memory_stays_small_whatever_a_file_claims(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "m.h5")
    done = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, check=True)
    reason, grown = done.stdout.split()
    assert reason == UnreadableReason.CORRUPT
    assert int(grown) < 64 * 1024

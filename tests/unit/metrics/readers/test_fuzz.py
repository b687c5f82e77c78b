"""Whatever the bytes, opening and loading ends well or in UnreadableError."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forge import dict_pickle, global_opcode, plain, tensor_opcodes, write_legacy, write_zip
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.tensors import Array

FUZZ = settings(max_examples=400, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small valid file of each kind."""
    base = tmp_path_factory.mktemp("valid")
    state = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save({"state_dict": state, "epoch": 3}, base / "zip.pt")
    torch.save({"state_dict": state}, base / "legacy.pt", _use_new_zipfile_serialization=False)
    write_zip(base / "deflated.pt", dict_pickle({"w": tensor_opcodes()}), compression=8)
    arrays: dict[str, Array] = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(2, np.int8)}
    safetensors.numpy.save_file(arrays, base / "model.safetensors")
    return {path.name: path.read_bytes() for path in base.iterdir()}


def examine(path: Path, content: bytes) -> None:
    """Open the bytes as a file of this name and load everything."""
    path.write_bytes(content)
    try:
        reader = open_model(path)
    except UnreadableError as error:
        assert error.path == str(path)
        assert error.detail
        return
    for info in reader.tensors():
        try:
            loaded = reader.load(info.name)
        except UnreadableError as error:
            assert error.path == str(path)
            continue
        assert loaded.shape == info.shape
        assert loaded.size * loaded.itemsize == info.size_bytes
        assert len(loaded.tobytes()) == info.size_bytes
    reader.close()


@FUZZ
@given(content=st.binary(max_size=300), name=st.sampled_from(["m.safetensors", "m.pt", "m.bin"]))
def test_random_bytes(folder: Path, content: bytes, name: str) -> None:
    examine(folder / name, content)


@FUZZ
@given(header=st.binary(max_size=200), length=st.integers(0, 400), data=st.binary(max_size=64))
def test_random_safetensors_headers(folder: Path, header: bytes, length: int, data: bytes) -> None:
    examine(folder / "m.safetensors", length.to_bytes(8, "little") + b"{" + header + data)


KINDS = ["zip.pt", "legacy.pt", "deflated.pt", "model.safetensors"]
EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=6)


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@given(edits=EDITS, keep=st.floats(0, 1) | st.just(1.0))
def test_mutations_of_valid_files(
    folder: Path, valid: dict[str, bytes], kind: str, edits: list[tuple[float, bytes]], keep: float
) -> None:
    content = bytearray(valid[kind])
    for where, new in edits:
        position = int(where * len(content))
        content[position : position + len(new)] = new
    examine(folder / kind, bytes(content[: int(keep * len(content))]))


def test_every_single_byte_of_a_valid_header_may_be_wrong(folder: Path, valid: dict[str, bytes]) -> None:
    content = valid["model.safetensors"]
    for position in range(len(content)):
        for flipped in (content[position] ^ 1, content[position] ^ 0x80, 0, 0xFF):
            examine(folder / "m.safetensors", content[:position] + bytes([flipped]) + content[position + 1 :])


@pytest.mark.parametrize("kind", ["zip.pt", "legacy.pt"])
def test_every_prefix_of_a_valid_checkpoint(folder: Path, valid: dict[str, bytes], kind: str) -> None:
    for length in range(len(valid[kind])):
        with pytest.raises(UnreadableError):
            (folder / kind).write_bytes(valid[kind][:length])
            open_model(folder / kind)


FRAGMENTS = [
    *(
        b"N",
        b"K\1",
        b"K\0",
        b"}",
        b"]",
        b")",
        b"(",
        b"\x85",
        b"\x86",
        b"\x87",
        b"t",
        b"l",
        b"d",
        b"\x8f",
        b"\x91",
    ),
    *(
        b"0",
        b"1",
        b"2",
        b"a",
        b"e",
        b"s",
        b"u",
        b"\x90",
        b"R",
        b"b",
        b"o",
        b"\x81",
        b"\x92",
        b"\x93",
        b"Q",
        b"\x94",
    ),
    *(b"h\0", b"q\0", b"h\1", b"q\1", b"G\x7f\xf8\0\0\0\0\0\0", b"\x8a\x09" + b"\xff" * 8 + b"\x7f"),
    *(
        plain(value)
        for value in ("storage", "state_dict", "model", "_modules", "_parameters", "0", -1, 2**70, (2, 3))
    ),
    *(
        global_opcode(module, name)
        for module, name in [
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_tensor_v3"),
            ("torch._utils", "_rebuild_parameter"),
            ("torch._utils", "_rebuild_qtensor"),
            ("torch._utils", "_rebuild_sparse_tensor"),
            ("torch._utils", "_rebuild_meta_tensor_no_storage"),
            ("torch._utils", "_rebuild_wrapper_subclass"),
            ("torch._utils", "_rebuild_nested_tensor"),
            ("torch._tensor", "_rebuild_from_type_v2"),
            ("torch", "Size"),
            ("torch", "FloatStorage"),
            ("torch", "float8_e4m3fn"),
            ("collections", "OrderedDict"),
            ("collections", "defaultdict"),
            ("builtins", "set"),
            ("os", "system"),
        ]
    ),
    *(b"ios\nsystem\n", tensor_opcodes(), tensor_opcodes(shape=(3, 2), strides=(1, 3))),
]


@settings(max_examples=1500, deadline=None)
@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=40), zipped=st.booleans())
def test_random_opcodes(folder: Path, fragments: list[bytes], zipped: bool) -> None:
    root = b"\x80\x02" + b"".join(fragments) + b"."
    path = folder / "m.pt"
    (write_zip if zipped else write_legacy)(path, root)
    examine(path, path.read_bytes())

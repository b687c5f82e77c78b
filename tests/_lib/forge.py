"""Checkpoint files made opcode by opcode, for what torch and safetensors refuse to write."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
"""What the tensor of :func:`tensor_opcodes` holds in the files written here."""


def plain(value: Any) -> bytes:
    """The opcodes that push a plain value."""
    return pickle.dumps(value, protocol=2)[2:-1]


def global_opcode(module: str, name: str) -> bytes:
    """The opcode that pushes a global."""
    return f"c{module}\n{name}\n".encode()


def tensor_opcodes(
    *,
    key: Any = "0",
    numel: Any = 6,
    offset: Any = 0,
    shape: Any = (2, 3),
    strides: Any = (3, 1),
    storage: str = "FloatStorage",
    extra: bytes = b"",
) -> bytes:
    """The opcodes that push one tensor; ``extra`` is put where the backward hooks belong."""
    identity = (
        b"(" + plain("storage") + global_opcode("torch", storage) + plain(key) + plain("cpu") + plain(numel)
    )
    return (
        global_opcode("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + identity
        + b"tQ"
        + plain(offset)
        + plain(shape)
        + plain(strides)
        + b"\x89"
        + (extra or global_opcode("collections", "OrderedDict") + b")R")
        + b"tR"
    )


def dict_pickle(entries: Mapping[str, bytes]) -> bytes:
    """A pickle of a dict whose values are pushed by the given opcodes."""
    members = b"".join(plain(key) + value + b"s" for key, value in entries.items())
    return b"\x80\x02}" + members + b"."


def write_zip(
    path: Path, root: bytes, storages: Mapping[str, bytes] | None = None, compression: int = 0
) -> Path:
    """A zip container with ``root`` as data.pkl. Default storage: :data:`VALUES` under key 0."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", root)
        for key, data in ({"0": VALUES.tobytes()} if storages is None else storages).items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")
    return path


def write_legacy(
    path: Path,
    root: bytes,
    storages: Mapping[str, tuple[int, bytes]] | None = None,
    *,
    version: Any = 1001,
    system: bytes | None = None,
    keys: Any = None,
) -> Path:
    """A legacy container with ``root`` as checkpoint object; storages are (element count, bytes) by key."""
    held = {"0": (6, VALUES.tobytes())} if storages is None else storages
    parts = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, version)]
    parts += [pickle.dumps({"little_endian": True}, protocol=2) if system is None else system, root]
    parts += [pickle.dumps(list(held) if keys is None else keys, protocol=2)]
    parts += [struct.pack("<q", count) + data for count, data in held.values()]
    path.write_bytes(b"".join(parts))
    return path


def write_safetensors(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file with this header (bytes as they are, anything else as JSON)."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    """One tensor of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

"""From a declared ONNX tensor to its numbers: inside the file, or in a file beside it.

Layouts: comments of ``TensorProto`` in ``onnx.proto``, and
https://github.com/onnx/onnx/blob/main/docs/ExternalData.md .
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.dtypes import SAFETENSORS_TYPES, element_count
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.onnxgraph import TensorProto, parse_model
from layerwatch.metrics.tensors import Array

_CHUNK_BYTES = 2**22
_LONGEST_VARINT = 10


@dataclass(frozen=True, slots=True)
class ElementType:
    """One element type.

    Attributes:
        name: safetensors spelling, and ``I4``, ``U4``, ``I2``, ``U2`` for what it lacks.
        bits: per element in the file; several elements below 8 bits share a byte, the first in the lowest bits.
        numpy: the type that holds one element, or None where there is none (text, 6-bit floats).
        field: number of the typed field of TensorProto that may hold it, 0 for none.
    """

    name: str
    bits: int
    numpy: np.dtype[Any] | None
    field: int


def _types() -> Iterator[tuple[int, ElementType]]:
    for code, name, field in (
        *((1, "F32", 4), (2, "U8", 5), (3, "I8", 5), (4, "U16", 5), (5, "I16", 5), (6, "I32", 5)),
        *((7, "I64", 7), (9, "BOOL", 5), (10, "F16", 5), (11, "F64", 10), (12, "U32", 11), (13, "U64", 11)),
        *((14, "C64", 4), (16, "BF16", 5), (17, "F8_E4M3", 5), (18, "F8_E4M3FNUZ", 5)),
        *((19, "F8_E5M2", 5), (20, "F8_E5M2FNUZ", 5), (24, "F8_E8M0", 5)),
    ):
        stored = SAFETENSORS_TYPES[name]
        yield code, ElementType(name, stored.bits, stored.numpy, field)
    yield 8, ElementType("TEXT", 0, None, 6)
    yield 15, ElementType("C128", 128, np.dtype("<c16"), 10)
    for code, name, bits, held in (
        *((21, "U4", 4, ml_dtypes.uint4), (22, "I4", 4, ml_dtypes.int4)),
        *((23, "F4", 4, ml_dtypes.float4_e2m1fn),),
        *((25, "U2", 2, ml_dtypes.uint2), (26, "I2", 2, ml_dtypes.int2)),
    ):
        yield code, ElementType(name, bits, np.dtype(held), 5)
    yield 27, ElementType("F6_E2M3", 6, None, 5)
    yield 28, ElementType("F6_E3M2", 6, None, 5)


ELEMENT_TYPES = dict(_types())
"""Every element type of ONNX 1.23, by its number (``TensorProto.DataType``)."""

TEXT = 8


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor whose bytes are known to be there.

    Attributes:
        proto: as declared.
        type: its element type; an unknown one has 0 bits.
        size_bytes: bytes of its values when they are laid out as ``raw_data``.
        file, offset: the external file and where in it the values begin; None and 0 where they are inside.
    """

    proto: TensorProto
    type: ElementType
    size_bytes: int
    file: Path | None = None
    offset: int = 0


class OnnxValues:
    """The numbers of the tensors of one file.

    Args:
        file: the ONNX file, mapped.

    External files are opened when a tensor in them is loaded, one at a time.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._folder = file.path.parent
        self._allowed = _allowed_folders(self._folder)
        self._sizes: dict[str, tuple[Path, os.stat_result]] = {}
        self._seen: dict[Path, os.stat_result] = {}
        self._open: MappedFile | None = None

    def place(self, proto: TensorProto) -> Placed:
        """Check that a tensor is whole.

        Raises:
            UnreadableError: BAD_HEADER, TRUNCATED; MISSING_SHARD for an external file that is not there.
        """
        kind = ELEMENT_TYPES.get(proto.code, ElementType(f"ONNX_TYPE_{proto.code}"[:40], 0, None, 0))
        count = element_count(proto.dims)
        if count is None:
            raise self._error(
                UnreadableReason.BAD_HEADER, proto, "its shape holds more elements than a file can"
            )
        size = -(-count * kind.bits // 8)
        if not kind.bits or proto.odd:
            return Placed(proto, kind, size)
        if proto.external is not None:
            file, offset = self._outside(proto, size)
            return Placed(proto, kind, size, file, offset)
        if proto.chunks:
            self._check_typed(proto, kind, size)
            return Placed(proto, kind, size)
        begin, end = proto.raw or (0, 0)
        if end - begin != size:
            reason = UnreadableReason.TRUNCATED if end - begin < size else UnreadableReason.BAD_HEADER
            raise self._error(
                reason,
                proto,
                f"shape {list(proto.dims)} of {kind.name} takes {size} bytes, it has {end - begin}",
            )
        return Placed(proto, kind, size)

    def files(self) -> tuple[Path, ...]:
        """The external files of the tensors placed so far."""
        return tuple(self._seen)

    def load(self, placed: Placed) -> Array:
        """The values as stored, read-only; those below 8 bits unpacked to one element each.

        Raises:
            UnreadableError: UNSUPPORTED_DTYPE, UNSUPPORTED_TENSOR, CHANGED_WHILE_READING, BAD_HEADER (typed fields
                that hold too few or too many numbers).
        """
        proto, kind = placed.proto, placed.type
        if proto.odd:
            raise self._error(UnreadableReason.UNSUPPORTED_TENSOR, proto, proto.odd)
        if kind.numpy is None:
            raise self._error(
                UnreadableReason.UNSUPPORTED_DTYPE,
                proto,
                f"the element type {kind.name} has no numpy counterpart; keep a copy of the weights in another type",
            )
        self._file.ensure_unchanged()
        if 0 in proto.dims:
            return _read_only(np.empty(proto.dims, kind.numpy))
        if proto.chunks:
            raw: Any = self._typed_bytes(placed)
            offset = 0
        elif placed.file is not None:
            raw, offset = self._external(placed.file).map, placed.offset
        else:
            raw, offset = self._file.map, proto.raw[0] if proto.raw else 0
        if kind.bits >= 8:
            return _read_only(np.ndarray(proto.dims, kind.numpy, raw, offset))
        packed = np.frombuffer(raw, np.uint8, placed.size_bytes, offset)
        return _read_only(_unpacked(packed, kind, proto.dims))

    def release(self) -> None:
        """Give back the memory of what was read so far."""
        self._file.release()
        if self._open is not None:
            self._open.release()

    def close(self) -> None:
        """Close the files; views already handed out stay valid."""
        self._file.close()
        if self._open is not None:
            self._open.close()

    def _check_typed(self, proto: TensorProto, kind: ElementType, size: int) -> None:
        if proto.typed != kind.field:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                proto,
                f"its values of {kind.name} are in a field of another type",
            )
        held = sum(end - begin for begin, end in proto.chunks)
        numbers = _numbers(kind, size)
        least, most = (numbers, numbers * _LONGEST_VARINT) if proto.typed in (5, 7, 11) else (size, size)
        if not least <= held <= most:
            reason = UnreadableReason.TRUNCATED if held < least else UnreadableReason.BAD_HEADER
            raise self._error(
                reason, proto, f"shape {list(proto.dims)} of {kind.name} takes {least} bytes, it has {held}"
            )

    def _typed_bytes(self, placed: Placed) -> NDArray[np.uint8]:
        """The bytes that ``raw_data`` would hold."""
        kind = placed.type
        views = [self._file.view(begin, end - begin) for begin, end in placed.proto.chunks]
        if placed.proto.typed in (4, 10):
            return np.frombuffer(b"".join(views), np.uint8)
        width = max(8, kind.bits) // 8
        numbers = _numbers(kind, placed.size_bytes)
        result = np.empty(numbers, f"<u{width}")
        reached = 0
        for view in views:
            for block in _varint_blocks(view):
                if block is None or reached + block.size > numbers:
                    reached = -1
                    break
                result[reached : reached + block.size] = block.astype(result.dtype)
                reached += block.size
            if reached < 0:
                break
        if reached != numbers:
            raise self._error(
                UnreadableReason.BAD_HEADER, placed.proto, f"its field does not hold {numbers} whole numbers"
            )
        return result.view(np.uint8)

    def _outside(self, proto: TensorProto, size: int) -> tuple[Path, int]:
        """The external file of a tensor and its place in it, after checking both."""
        entries = proto.external or {}
        location = entries.get("location", "")
        offset = self._whole(proto, entries.get("offset", "0"), "offset")
        length = self._whole(proto, entries.get("length", str(size)), "length")
        if length != size:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                proto,
                f"its values take {size} bytes, its external data claims {length}",
            )
        if location not in self._sizes:
            self._sizes[location] = self._resolved(proto, location)
        file, status = self._sizes[location]
        self._seen[file] = status
        if offset + size > status.st_size:
            raise self._error(
                UnreadableReason.TRUNCATED,
                proto,
                f"its values end at byte {offset + size} of {file.name}, which has {status.st_size} bytes; "
                f"{offset + size - status.st_size} are missing: copy that file again",
            )
        return file, offset

    def _resolved(self, proto: TensorProto, location: str) -> tuple[Path, os.stat_result]:
        parts = PurePosixPath(location).parts
        if (
            not parts
            or location.startswith("/")
            or ".." in parts
            or any(mark in location for mark in ("\\", "\0", ":"))
        ):
            raise self._error(
                UnreadableReason.BAD_HEADER,
                proto,
                f"its external data is in {location[:100]!r}; only files in or below the model's own folder are read",
            )
        path = self._folder.joinpath(*parts)
        target = Path(os.path.realpath(path))
        if not any(target.is_relative_to(folder) for folder in self._allowed):
            raise self._error(
                UnreadableReason.BAD_HEADER,
                proto,
                f"its external data {location[:100]!r} is a link that leads out of the model's folder; put the file "
                "itself there",
            )
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            raise self._error(
                UnreadableReason.MISSING_SHARD,
                proto,
                f"the file of its external data, {location[:100]!r}, is not there; copy the rest of the model",
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise self._error(
                UnreadableReason.IO_ERROR, proto, f"its external data {location[:100]!r} is no regular file"
            )
        return path, status

    def _whole(self, proto: TensorProto, text: str, what: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise self._error(
                UnreadableReason.BAD_HEADER,
                proto,
                f"the {what} of its external data is {text[:40]!r}, no byte count",
            )
        return int(text)

    def _external(self, path: Path) -> MappedFile:
        if self._open is None or self._open.path != path:
            if self._open is not None:
                self._open.close()
            self._open = MappedFile(path)
            seen, now = self._seen[path], path.stat()
            if (seen.st_size, seen.st_mtime_ns, seen.st_ino) != (now.st_size, now.st_mtime_ns, now.st_ino):
                self._open.close()
                self._open = None
                raise UnreadableError(
                    UnreadableReason.CHANGED_WHILE_READING,
                    path,
                    "the file was written to or replaced while the model was read; publish finished files only, for "
                    "example by renaming them into place",
                )
        self._open.ensure_unchanged()
        return self._open

    def _error(self, reason: UnreadableReason, proto: TensorProto, detail: str) -> UnreadableError:
        return UnreadableError(reason, self._file.path, detail, proto.name)


def external_files(path: Path) -> tuple[Path, ...]:
    """The files beside an ONNX file that hold its external data; none where one of the files cannot be read."""
    try:
        file = MappedFile(path)
        try:
            values = OnnxValues(file)
            for scope in parse_model(memoryview(file.map), path).scopes:
                for proto in scope.tensors.values():
                    if proto.external is not None:
                        values.place(proto)
        finally:
            file.close()
    except UnreadableError:
        return ()
    return values.files()


def _numbers(kind: ElementType, size: int) -> int:
    """How many numbers a typed whole-number field holds: one per element, or per byte of packed ones."""
    return size * 8 // max(8, kind.bits)


def _varint_blocks(raw: memoryview) -> Iterator[NDArray[np.uint64] | None]:
    """Decode packed varints some megabytes at a time; None where a number is cut off or too long."""
    begin = 0
    while begin < len(raw):
        block = np.frombuffer(raw[begin : begin + _CHUNK_BYTES], np.uint8)
        last = np.flatnonzero(block < 0x80)
        if not last.size:
            yield None
            return
        block = block[: last[-1] + 1]
        first = np.concatenate(([0], last[:-1] + 1))
        lengths = last - first + 1
        if lengths.max() > _LONGEST_VARINT:
            yield None
            return
        values = np.zeros(last.size, np.uint64)
        for place in range(int(lengths.max())):
            held = lengths > place
            values[held] |= (block[first[held] + place] & np.uint64(0x7F)) << np.uint64(7 * place)
        yield values
        begin += block.size


def _unpacked(packed: NDArray[np.uint8], kind: ElementType, shape: tuple[int, ...]) -> Array:
    """One element per item, from several in a byte."""
    per_byte = 8 // kind.bits
    codes = np.empty((packed.size, per_byte), np.uint8)
    for place in range(per_byte):
        codes[:, place] = (packed >> (kind.bits * place)) & (2**kind.bits - 1)
    count = element_count(shape) or 0
    if kind.name[0] == "I":
        half = 2 ** (kind.bits - 1)
        signed = codes.view(np.int8)
        signed[signed >= half] -= 2 * half
        return signed.reshape(-1)[:count].reshape(shape).astype(kind.numpy)
    if kind.name[0] == "U":
        return codes.reshape(-1)[:count].reshape(shape).astype(kind.numpy)
    # ml_dtypes keeps a 4-bit float in the low bits of a byte.
    assert kind.numpy is not None
    return codes.reshape(-1)[:count].reshape(shape).view(kind.numpy)


def _allowed_folders(folder: Path) -> tuple[Path, ...]:
    """Where external files may really lie: the model's folder, and the blobs of the Hugging Face Hub's cache."""
    resolved = folder.resolve()
    for parent in (resolved, *resolved.parents):
        if parent.parent.name == "snapshots":
            return resolved, parent.parent.parent / "blobs"
    return (resolved,)


def _read_only(values: Array) -> Array:
    values.flags.writeable = False
    return values

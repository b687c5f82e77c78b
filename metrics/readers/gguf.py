"""GGUF: a header of key-value pairs, a list of tensors, then the tensors' bytes, each aligned.

Format: ggml's ``docs/gguf.md``, versions 2 and 3, little-endian. Dimensions are written fastest first; they are
handed out the other way round, so that a linear layer is (out, in) as elsewhere. Names stay those of the file
(``blk.0.attn_q.weight``).

Whole numbers and F16, BF16, F32, F64 need nothing. Block-quantised types are undone by ggml's own Python package
``gguf``, an extra: those tensors keep the name of their stored type (``Q4_K``), and are handed out as float32.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.config.extras import how_to_install
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.dtypes import SAFETENSORS_TYPES, element_count
from layerwatch.metrics.readers.ggufvalues import (
    MAGIC,
    MAX_KEY_BYTES,
    VERSIONS,
    GgufCursor,
    GgufEnded,
    Value,
)
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.tensors import Array, TensorInfo, UnexaminedFile

MAX_PAIRS = 65_536
"""Most key-value pairs. Real files have some dozens."""

MAX_TENSORS = 262_144
"""Most tensors of one file. The largest models have a few thousand, experts being stored in one tensor."""

MAX_NAME_BYTES = 4096
"""Longest name of a tensor, as in the other formats. ggml itself holds 63 bytes."""

MAX_DIMENSIONS = 4
"""What ggml can hold."""

_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 2**20
_BLOCK_ELEMENTS = 2**20


@dataclass(frozen=True, slots=True)
class GgmlType:
    """One stored type.

    Attributes:
        name: ggml's own, or that of safetensors for plain numbers.
        block: elements that are packed together; 1 for plain numbers. Rows are whole numbers of blocks.
        size_bytes: bytes of a block.
    """

    name: str
    block: int
    size_bytes: int


_TYPES = {
    code: GgmlType(name, block, size)
    for code, name, block, size in (
        *((0, "F32", 1, 4), (1, "F16", 1, 2), (30, "BF16", 1, 2), (28, "F64", 1, 8)),
        *((24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4), (27, "I64", 1, 8)),
        *((2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20), (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24)),
        *((8, "Q8_0", 32, 34), (9, "Q8_1", 32, 40), (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110)),
        *((12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292)),
        *((16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98)),
        *((19, "IQ1_S", 256, 50), (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82)),
        *((23, "IQ4_XS", 256, 136), (29, "IQ1_M", 256, 56), (34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66)),
        *((39, "MXFP4", 32, 17), (40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18)),
    )
}
"""Every type whose size is known, by its number in the file (``enum ggml_type``)."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """``begin`` counts from the start of the data; ``code`` is the type's number."""

    info: TensorInfo
    code: int
    begin: int


class GgufFile:
    """One ``.gguf`` file, names as the file has them.

    Raises:
        UnreadableError: the file is missing, empty, truncated, of another version or byte order, or its header
            breaks the format or a limit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        try:
            self._metadata, declared, header_bytes = self._read_header()
            alignment = self._alignment()
            self._data_offset = _padded(header_bytes, alignment)
            self._entries = self._lay_out(declared, alignment)
        except BaseException:
            self._file.close()
            raise

    @property
    def format(self) -> str:
        """``gguf``."""
        return "gguf"

    @property
    def metadata(self) -> Mapping[str, Value]:
        """The key-value pairs: numbers, texts of at most 4096 bytes, arrays of at most 4096 numbers.

        Among them what names and shapes alone do not tell: ``general.architecture`` and, below that architecture's
        name, ``attention.head_count``, ``attention.head_count_kv``, ``rope.dimension_count``, ``expert_count``.
        """
        return self._metadata

    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors in the order of the header. ``size_bytes`` are those in the file."""
        return tuple(entry.info for entry in self._entries.values())

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Nothing: every tensor of the file is listed."""
        return ()

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """Nothing: a file is opened whole or not at all."""
        return ()

    def load(self, name: str) -> Array:
        """The values of one tensor, read-only: a view of the file, or float32 where they are block-quantised.

        Raises:
            UnreadableError: UNSUPPORTED_DTYPE where the type is unknown, cannot be undone, or the extra is missing.
            KeyError: no such name.
        """
        entry = self._entries[name]
        stored = _TYPES.get(entry.code)
        if stored is None:
            raise self._error(
                UnreadableReason.UNSUPPORTED_DTYPE,
                f"its type number {entry.code} is not known; convert the model with a recent llama.cpp",
                name,
            )
        self._file.ensure_unchanged()
        shape = entry.info.shape
        if stored.block == 1:
            dtype = SAFETENSORS_TYPES[stored.name].numpy
            if 0 in shape:
                return _read_only(np.empty(shape, dtype))
            return np.ndarray(shape, dtype, self._file.map, self._data_offset + entry.begin)
        undo = self._dequantiser(stored, name)
        raw = self._file.view(self._data_offset + entry.begin, entry.info.size_bytes)
        return _read_only(_in_blocks(raw, stored, undo).reshape(shape))

    def release(self) -> None:
        """Give back the memory of what was read so far; views already handed out stay valid."""
        self._file.release()

    def close(self) -> None:
        """Close the file; views already handed out stay valid."""
        self._file.close()

    def _read_header(self) -> tuple[Mapping[str, Value], list[tuple[str, tuple[int, ...], int, int]], int]:
        """Metadata; name, shape, type number and offset of each tensor; and where the header ends."""
        cursor = GgufCursor(memoryview(self._file.map))
        try:
            if cursor.take(4) != MAGIC:
                raise self._error(UnreadableReason.UNKNOWN_FORMAT, "the file does not begin with GGUF")
            version = cursor.kind()
            if version not in VERSIONS:
                swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
                what = (
                    "this is a GGUF file for big-endian machines; convert the model for little-endian ones"
                    if swapped in VERSIONS
                    else f"GGUF version {version} is not read, 2 and 3 are; convert the model with a recent llama.cpp"
                )
                raise self._error(UnreadableReason.UNKNOWN_FORMAT, what)
            tensors, pairs = cursor.count(), cursor.count()
            for held, most, what in ((tensors, MAX_TENSORS, "tensors"), (pairs, MAX_PAIRS, "keys")):
                if held > most:
                    raise self._error(
                        UnreadableReason.TOO_LARGE, f"the header claims {held} {what}, {most} are accepted"
                    )
            metadata = self._read_pairs(cursor, pairs)
            return MappingProxyType(metadata), self._read_tensors(cursor, tensors), cursor.position
        except GgufEnded as error:
            raise self._error(
                UnreadableReason.TRUNCATED,
                f"the header goes on behind the last of the file's {self._file.size} bytes; copy the file again",
            ) from error
        except ValueError as error:
            raise self._error(
                UnreadableReason.BAD_HEADER, f"the header cannot be read: {error}, at byte {cursor.position}"
            ) from error

    def _read_pairs(self, cursor: GgufCursor, count: int) -> dict[str, Value]:
        seen: set[str] = set()
        kept: dict[str, Value] = {}
        for _ in range(count):
            key = cursor.text(MAX_KEY_BYTES)
            if key in seen:
                raise self._error(UnreadableReason.BAD_HEADER, f"the header holds the key {key!r} twice")
            seen.add(key)
            value = cursor.value(cursor.kind())
            if value is not None:
                kept[key] = value
        return kept

    def _read_tensors(self, cursor: GgufCursor, count: int) -> list[tuple[str, tuple[int, ...], int, int]]:
        declared = []
        for _ in range(count):
            name = cursor.text(MAX_NAME_BYTES)
            dimensions = cursor.kind()
            if dimensions > MAX_DIMENSIONS:
                raise self._error(
                    UnreadableReason.BAD_HEADER,
                    f"it has {dimensions} dimensions; the format allows {MAX_DIMENSIONS}",
                    name,
                )
            fastest_first = [cursor.count() for _ in range(dimensions)]
            declared.append((name, tuple(reversed(fastest_first)), cursor.kind(), cursor.count()))
        return declared

    def _alignment(self) -> int:
        value = self._metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(value) is not int or not 0 < value <= _MAX_ALIGNMENT or value & (value - 1):
            raise self._error(
                UnreadableReason.BAD_HEADER, f"general.alignment is {str(value)[:40]}, not a power of two"
            )
        return value

    def _lay_out(
        self, declared: list[tuple[str, tuple[int, ...], int, int]], alignment: int
    ) -> dict[str, _Entry]:
        """Give every tensor its bytes: in a row, each padded to the alignment, as ggml demands when it loads."""
        if not declared:
            raise self._error(UnreadableReason.NO_TENSORS, "the header lists no tensor")
        available = self._file.size - self._data_offset
        order = sorted(declared, key=lambda one: one[3])
        following = [one[3] for one in order[1:]] + [max(available, order[-1][3])]
        entries: dict[str, _Entry] = {}
        reached = 0
        for (name, shape, code, begin), next_begin in zip(order, following, strict=True):
            if name in entries:
                raise self._error(
                    UnreadableReason.BAD_HEADER, "the header lists two tensors of this name", name
                )
            stored = _TYPES.get(code)
            # The bytes of a type unknown to us reach to the next tensor: it is listed, and refused when loaded.
            size = next_begin - begin if stored is None else self._size(name, shape, stored)
            if begin != reached:
                fault = "overlaps the tensor before it" if begin < reached else "leaves a hole before it"
                raise self._error(
                    UnreadableReason.BAD_HEADER,
                    f"its bytes begin at {begin} where {reached} was expected: it {fault}",
                    name,
                )
            if begin + size > available:
                raise self._error(
                    UnreadableReason.TRUNCATED,
                    f"its bytes end at {begin + size} and {max(available, 0)} follow the header; at least "
                    f"{begin + size - available} bytes are missing: copy the file again",
                    name,
                )
            reached = _padded(begin + size, alignment)
            type_name = f"GGML_TYPE_{code}" if stored is None else stored.name
            entries[name] = _Entry(TensorInfo(name, shape, type_name, size), code, begin)
        if available > reached:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"{available - reached} bytes at the end of the file belong to no tensor",
            )
        return {name: entries[name] for name, *_ in declared}

    def _size(self, name: str, shape: tuple[int, ...], stored: GgmlType) -> int:
        count = element_count(shape)
        if count is None:
            raise self._error(
                UnreadableReason.BAD_HEADER, "its shape holds more elements than a file can", name
            )
        if stored.block > 1 and (not shape or shape[-1] % stored.block):
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"its rows have {shape[-1] if shape else 1} elements; {stored.name} packs {stored.block} together",
                name,
            )
        return count // stored.block * stored.size_bytes

    def _dequantiser(self, stored: GgmlType, name: str) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
        try:
            # Only when it is needed: whoever keeps no quantised models need not install it.
            library: Any = importlib.import_module("gguf")
            kind = library.GGMLQuantizationType[stored.name]
        except (ImportError, KeyError) as error:
            raise self._error(
                UnreadableReason.UNSUPPORTED_DTYPE,
                f"undoing {stored.name} needs the package gguf, 0.19 or later: {how_to_install('gguf')}",
                name,
            ) from error

        def undo(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
            try:
                # Scales that are no numbers give values that are none: that is for the rules to say.
                with np.errstate(all="ignore"):
                    values: NDArray[np.float32] = library.dequantize(blocks, kind)
            except NotImplementedError as error:
                raise self._error(
                    UnreadableReason.UNSUPPORTED_DTYPE,
                    f"the package gguf cannot turn {stored.name} back into numbers; keep a copy of the weights in "
                    "another type to have this layer examined",
                    name,
                ) from error
            return values

        return undo

    def _error(self, reason: UnreadableReason, detail: str, tensor: str | None = None) -> UnreadableError:
        return UnreadableError(reason, self.path, detail, tensor)


def _in_blocks(
    raw: memoryview, stored: GgmlType, undo: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Undo a tensor a million elements at a time: what the library needs beside the result stays small."""
    packed = np.frombuffer(raw, dtype=np.uint8)
    count = packed.size // stored.size_bytes
    values = np.empty(count * stored.block, dtype=np.float32)
    step = _BLOCK_ELEMENTS // stored.block
    for begin in range(0, count, step):
        end = min(begin + step, count)
        chunk = packed[begin * stored.size_bytes : end * stored.size_bytes]
        values[begin * stored.block : end * stored.block] = undo(chunk.reshape(1, -1)).reshape(-1)
    return values


def _read_only(values: Array) -> Array:
    values.flags.writeable = False
    return values


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment

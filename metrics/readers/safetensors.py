"""safetensors: 8 bytes of header length (little-endian), a JSON header, then the tensors' bytes.

Format: https://huggingface.co/docs/safetensors/index#format . The header maps each name to ``dtype``, ``shape``
and ``data_offsets`` (begin and end, counted from the end of the header); the offsets must cover the rest of
the file without overlap and without holes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.dtypes import (
    SAFETENSORS_TYPES,
    StoredType,
    element_count,
    loadable_type,
)
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.names import is_text
from layerwatch.metrics.readers.strictjson import parse_object
from layerwatch.metrics.tensors import Array, TensorInfo, UnexaminedFile

MAX_HEADER_BYTES = 100_000_000
"""Header limit of the reference implementation."""

MAX_NAME_LENGTH = 4096
"""Most characters of a tensor's name, as in torch checkpoints; names of real models stay below 200."""

_METADATA = "__metadata__"
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Entry:
    info: TensorInfo
    stored: StoredType
    begin: int
    end: int


class SafetensorsFile:
    """One ``.safetensors`` file, names as the file has them.

    Raises:
        UnreadableError: the file is missing, empty, truncated, or its header breaks the format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        try:
            self._data_offset, header = self._read_header()
            self._entries = {name: self._entry(name, header[name]) for name in header if name != _METADATA}
            self._check_metadata(header.get(_METADATA, {}))
            self._check_layout()
        except BaseException:
            self._file.close()
            raise

    @property
    def format(self) -> str:
        """``safetensors``."""
        return "safetensors"

    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors in the order of the header."""
        return tuple(entry.info for entry in self._entries.values())

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Nothing: every tensor of the file is listed."""
        return ()

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """Nothing: a file is opened whole or not at all."""
        return ()

    @property
    def metadata(self) -> Mapping[str, object]:
        """Nothing: ``__metadata__`` is free text."""
        return {}

    def load(self, name: str) -> Array:
        """A read-only view of the tensor's bytes in the file; KeyError for a name that is not listed."""
        entry = self._entries[name]
        dtype = loadable_type(entry.stored, self.path, name)
        self._file.ensure_unchanged()
        if entry.begin == entry.end:
            empty: Array = np.empty(entry.info.shape, dtype)
            empty.flags.writeable = False
            return empty
        return np.ndarray(
            entry.info.shape, dtype, buffer=self._file.map, offset=self._data_offset + entry.begin
        )

    def release(self) -> None:
        """Give back the memory of what was read so far; views already handed out stay valid."""
        self._file.release()

    def close(self) -> None:
        """Close the file; views already handed out stay valid."""
        self._file.close()

    def _read_header(self) -> tuple[int, dict[str, Any]]:
        size = self._file.size
        if size < _LENGTH_BYTES:
            raise self._error(
                UnreadableReason.TRUNCATED,
                f"the file has {size} bytes, {_LENGTH_BYTES - size} bytes of the header length are missing",
            )
        length = int.from_bytes(self._file.map[:_LENGTH_BYTES], "little")
        if length > MAX_HEADER_BYTES:
            raise self._error(
                UnreadableReason.TOO_LARGE,
                f"the header claims {length} bytes, the format allows {MAX_HEADER_BYTES}; "
                "this is no safetensors file or a damaged one",
            )
        data_offset = _LENGTH_BYTES + length
        if data_offset > size:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"the header claims {length} bytes, but only {size - _LENGTH_BYTES} follow; "
                f"{data_offset - size} bytes are missing: copy the file again",
            )
        return data_offset, parse_object(self._file.map[_LENGTH_BYTES:data_offset], self.path, "header")

    def _check_metadata(self, metadata: Any) -> None:
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise self._error(UnreadableReason.BAD_HEADER, f"{_METADATA} must map strings to strings")

    def _entry(self, name: str, declared: Any) -> _Entry:
        if not is_text(name):
            raise self._error(UnreadableReason.BAD_HEADER, "a tensor's name is not valid Unicode text")
        if len(name) > MAX_NAME_LENGTH:
            raise self._error(
                UnreadableReason.TOO_LARGE,
                f"a tensor's name has {len(name)} characters, {MAX_NAME_LENGTH} are accepted",
            )
        if not isinstance(declared, dict) or declared.keys() != {"dtype", "shape", "data_offsets"}:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                "its header entry must hold exactly dtype, shape and data_offsets",
                name,
            )
        dtype, shape, offsets = declared["dtype"], declared["shape"], declared["data_offsets"]
        if not isinstance(dtype, str) or len(dtype) > 40 or not is_text(dtype):
            raise self._error(UnreadableReason.BAD_HEADER, "dtype must be a short string", name)
        if not _is_counts(shape):
            raise self._error(UnreadableReason.BAD_HEADER, "shape must be a list of whole numbers >= 0", name)
        if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self._error(
                UnreadableReason.BAD_HEADER, "data_offsets must be two whole numbers, begin <= end", name
            )
        begin, end = offsets
        count = element_count(tuple(shape))
        if count is None:
            raise self._error(
                UnreadableReason.BAD_HEADER, "its shape holds more elements than a file can", name
            )
        stored = SAFETENSORS_TYPES.get(dtype, StoredType(dtype, 0, None))
        # A type unknown to us has an unknown size: the tensor is listed, and refused when it is loaded.
        if stored.bits and stored.size_of(count) != end - begin:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"shape {list(shape)} of {dtype} takes {count * stored.bits / 8:g} bytes, "
                f"but data_offsets span {end - begin}",
                name,
            )
        return _Entry(TensorInfo(name, tuple(shape), dtype, end - begin), stored, begin, end)

    def _check_layout(self) -> None:
        if not self._entries:
            raise self._error(UnreadableReason.NO_TENSORS, "the header lists no tensor")
        available = self._file.size - self._data_offset
        reached = 0
        for entry in sorted(self._entries.values(), key=lambda e: (e.begin, e.end)):
            if entry.begin != reached:
                fault = (
                    "overlaps the tensor before it" if entry.begin < reached else "leaves a hole before it"
                )
                raise self._error(
                    UnreadableReason.BAD_HEADER,
                    f"its bytes begin at {entry.begin} where {reached} was expected: it {fault}",
                    entry.info.name,
                )
            reached = entry.end
            if reached > available:
                last = max(e.end for e in self._entries.values())
                raise self._error(
                    UnreadableReason.TRUNCATED,
                    f"the tensors take {last} bytes, but only {available} follow the header; "
                    f"{last - available} bytes are missing: copy the file again",
                )
        if reached != available:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"{available - reached} bytes at the end of the file belong to no tensor",
            )

    def _error(self, reason: UnreadableReason, detail: str, tensor: str | None = None) -> UnreadableError:
        return UnreadableError(reason, self.path, detail, tensor)


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**64 for item in value)

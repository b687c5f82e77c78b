"""The key-value part at the head of a GGUF file, as far as it tells where the model comes from.

Layout (ggml's ``docs/gguf.md``, versions 2 and 3): magic, version, number of tensors, number of pairs; then for each
pair a key, a type and a value. Strings are a length and UTF-8; arrays a type, a length and the values. Only scalars
and strings of the namespaces asked for are kept: vocabularies, which are most of a header, are stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

MAGIC = b"GGUF"
HEAD_BYTES = 2**20
"""So much of a file is looked at. Writers put ``general.*`` first."""

_MOST_PAIRS = 10_000
_MOST_KEPT = 512
_LONGEST_KEY = 256
_LONGEST_TEXT = 4096
_LARGEST_ARRAY = 2**24
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}

Value = str | int | float | bool


class _Ended(Exception):  # noqa: N818 - no error
    """The bytes end here; what was read before them counts."""


def general_pairs(head: bytes, prefixes: tuple[str, ...] = ("general.", "adapter.")) -> Mapping[str, Value]:
    """The scalars and strings whose keys begin with one of the prefixes.

    Args:
        head: the first bytes of the file, `HEAD_BYTES` or fewer; a header that goes on behind them is read as far
            as it is there.

    Raises:
        ValueError: this is no GGUF header of a known version.
    """
    reader = _Reader(head)
    found: dict[str, Value] = {}
    try:
        if reader.take(4) != MAGIC:
            raise ValueError("not a GGUF file")
        (version,) = reader.numbers("<I")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version} in this byte order is not read; 2 and 3 are")
        _, pairs = reader.numbers("<QQ")
        for _ in range(min(pairs, _MOST_PAIRS)):
            key = reader.text(_LONGEST_KEY)
            (kind,) = reader.numbers("<I")
            value = reader.value(kind)
            if value is not None and key.startswith(prefixes):
                found[key] = value
            if len(found) > _MOST_KEPT:
                raise ValueError(f"more than {_MOST_KEPT} keys")
    except _Ended:
        pass
    return found


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def take(self, size: int) -> bytes:
        end = self._place + size
        if end > len(self._data):
            raise _Ended
        taken = self._data[self._place : end]
        self._place = end
        return taken

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self, longest: int) -> str:
        (size,) = self.numbers("<Q")
        if size > longest:
            raise ValueError(f"a text of {size} bytes where at most {longest} are expected")
        return self.take(size).decode("utf-8")

    def value(self, kind: int) -> Value | None:
        """The value, or None for one that is stepped over."""
        if kind in _SCALARS:
            value: Value = self.numbers(f"<{_SCALARS[kind]}")[0]
            return value
        if kind == _STRING:
            (size,) = self.numbers("<Q")
            text = self.take(size)
            return text.decode("utf-8") if size <= _LONGEST_TEXT else None
        if kind == _ARRAY:
            self._step_over_array()
            return None
        raise ValueError(f"unknown type {kind}")

    def _step_over_array(self) -> None:
        (kind,) = self.numbers("<I")
        (length,) = self.numbers("<Q")
        if length > _LARGEST_ARRAY:
            raise ValueError(f"an array of {length} values")
        if kind in _SCALARS:
            self.take(struct.calcsize(f"<{_SCALARS[kind]}") * length)
        elif kind == _STRING:
            for _ in range(length):
                self.take(self.numbers("<Q")[0])
        else:
            # Arrays of arrays are allowed and never written.
            raise ValueError(f"an array of type {kind}")

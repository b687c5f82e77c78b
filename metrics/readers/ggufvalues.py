"""The key-value part of GGUF files: a cursor that reads numbers and short texts and steps over the rest.

Layout (ggml's ``docs/gguf.md``, versions 2 and 3, little-endian): a text is its length and UTF-8; an array its type,
its length and its values. Vocabularies are most of a header and tell nothing about weights.
"""

from __future__ import annotations

import struct

MAGIC = b"GGUF"
VERSIONS = (2, 3)

MAX_KEY_BYTES = 256
"""Longest key that is accepted. The format allows 65535; those of real models stay below 80."""

MAX_TEXT_BYTES = 4096
"""Longest text that is kept; longer ones (chat templates) are stepped over."""

MAX_ARRAY_NUMBERS = 4096
"""Longest array of numbers that is kept: one per layer."""

MAX_ARRAY_LENGTH = 2**24
"""Most values of one array."""

MAX_ARRAY_TEXTS = 2**22
"""Most texts in all arrays of a file. The largest vocabularies have half a million tokens and as many merges."""

_STRING, _ARRAY = 8, 9
_SCALARS = {
    code: struct.Struct("<" + layout)
    for code, layout in (
        *((0, "B"), (1, "b"), (2, "H"), (3, "h"), (4, "I"), (5, "i")),
        *((6, "f"), (7, "?"), (10, "Q"), (11, "q"), (12, "d")),
    )
}
_COUNT = struct.Struct("<Q")
_KIND = struct.Struct("<I")

Scalar = str | int | float | bool
Value = Scalar | tuple[int | float | bool, ...]


class GgufEnded(Exception):  # noqa: N818 - no error where only the head of a file is looked at
    """The bytes end here; what was read before them counts."""


class GgufCursor:
    """Reads values one after the other.

    Args:
        data: the bytes of a file, or its head.

    Attributes:
        position: how many bytes have been read.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._texts = 0
        self.position = 0

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes; raises GgufEnded where they are not all there."""
        begin, end = self.position, self.position + size
        if end > len(self._data):
            raise GgufEnded
        self.position = end
        return self._data[begin:end]

    def count(self) -> int:
        """A 64-bit count."""
        return int(_COUNT.unpack(self.take(8))[0])

    def kind(self) -> int:
        """A 32-bit number: a type, a version, a number of dimensions."""
        return int(_KIND.unpack(self.take(4))[0])

    def text(self, longest: int) -> str:
        """A name or key.

        Raises:
            ValueError: longer than allowed, or not UTF-8.
            GgufEnded: cut off.
        """
        size = self.count()
        if size > longest:
            raise ValueError(f"a text of {size} bytes where at most {longest} are expected")
        return str(self.take(size), "utf-8")

    def value(self, kind: int) -> Value | None:
        """A value of a type; None for one that is stepped over.

        Raises:
            ValueError: an unknown type, an array of arrays, or one that is too long.
            GgufEnded: cut off.
        """
        if kind in _SCALARS:
            layout = _SCALARS[kind]
            number: int | float | bool = layout.unpack(self.take(layout.size))[0]
            return number
        if kind == _STRING:
            text = self.take(self.count())
            return str(text, "utf-8", "replace") if len(text) <= MAX_TEXT_BYTES else None
        if kind == _ARRAY:
            return self._array()
        raise ValueError(f"a value of the unknown type {kind}")

    def _array(self) -> Value | None:
        kind, length = self.kind(), self.count()
        if length > MAX_ARRAY_LENGTH:
            raise ValueError(f"an array of {length} values where at most {MAX_ARRAY_LENGTH} are expected")
        if kind in _SCALARS:
            layout = _SCALARS[kind]
            raw = self.take(layout.size * length)
            return tuple(one for (one,) in layout.iter_unpack(raw)) if length <= MAX_ARRAY_NUMBERS else None
        if kind != _STRING:
            # Arrays of arrays are allowed and never written.
            raise ValueError(f"an array of the type {kind}")
        self._texts += length
        if self._texts > MAX_ARRAY_TEXTS:
            raise ValueError(f"more than {MAX_ARRAY_TEXTS} texts in arrays")
        data, position, size = self._data, self.position, len(self._data)
        for _ in range(length):
            if position + 8 > size:
                raise GgufEnded
            position += 8 + _COUNT.unpack_from(data, position)[0]
        if position > size:
            raise GgufEnded
        self.position = position
        return None

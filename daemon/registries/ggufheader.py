"""The key-value part at the head of a GGUF file, as far as it tells where the model comes from.

Only scalars and texts of the namespaces asked for are kept; how they are laid out is in
`layerwatch.metrics.readers.ggufvalues`.
"""

from __future__ import annotations

from collections.abc import Mapping

from layerwatch.metrics.readers.ggufvalues import (
    MAGIC,
    MAX_KEY_BYTES,
    VERSIONS,
    GgufCursor,
    GgufEnded,
    Scalar,
)

HEAD_BYTES = 2**20
"""So much of a file is looked at. Writers put ``general.*`` first."""

_MOST_PAIRS = 10_000
_MOST_KEPT = 512

Value = Scalar


def general_pairs(head: bytes, prefixes: tuple[str, ...] = ("general.", "adapter.")) -> Mapping[str, Value]:
    """The scalars and strings whose keys begin with one of the prefixes.

    Args:
        head: the first bytes of the file, `HEAD_BYTES` or fewer; a header that goes on behind them is read as far
            as it is there.

    Raises:
        ValueError: this is no GGUF header of a known version.
    """
    cursor = GgufCursor(memoryview(head))
    found: dict[str, Value] = {}
    try:
        if cursor.take(4) != MAGIC:
            raise ValueError("not a GGUF file")
        version = cursor.kind()
        if version not in VERSIONS:
            raise ValueError(f"GGUF version {version} in this byte order is not read; 2 and 3 are")
        cursor.count()
        for _ in range(min(cursor.count(), _MOST_PAIRS)):
            key = cursor.text(MAX_KEY_BYTES)
            value = cursor.value(cursor.kind())
            if value is not None and not isinstance(value, tuple) and key.startswith(prefixes):
                found[key] = value
            if len(found) > _MOST_KEPT:
                raise ValueError(f"more than {_MOST_KEPT} keys")
    except GgufEnded:
        pass
    return found

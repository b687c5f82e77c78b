"""A first look at the headers of remote weight files, by range reads: what is broken there need not be fetched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from layerwatch.daemon.registries.downloads import RemoteFile
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

_LENGTH_BYTES = 8
_LARGEST_READ = 16 * 2**20
"""Longer headers are left to the reader of the whole file."""

Read = Callable[[RemoteFile, int, int], bytes]
"""The bytes of a file between two positions."""


def require_sound_headers(files: Iterable[RemoteFile], read: Read) -> None:
    """Look at the header of each ``.safetensors`` file.

    Raises:
        UnreadableError: it is cut off, no header, or the file is shorter than it says.
        RegistryUnavailable: from ``read``.
    """
    for file in files:
        if file.path.lower().endswith(".safetensors"):
            _require_sound(file, read)


def _require_sound(file: RemoteFile, read: Read) -> None:
    if file.size_bytes < _LENGTH_BYTES:
        reason = UnreadableReason.TRUNCATED if file.size_bytes else UnreadableReason.EMPTY_FILE
        raise UnreadableError(reason, file.path, f"it has {file.size_bytes} bytes; publish it again")
    length = int.from_bytes(_whole(file, 0, _LENGTH_BYTES, read), "little")
    begin = _LENGTH_BYTES + length
    if begin > file.size_bytes:
        raise UnreadableError(
            UnreadableReason.BAD_HEADER,
            file.path,
            f"its header would have {length} bytes and the whole file has {file.size_bytes}",
        )
    if length > _LARGEST_READ:
        return
    try:
        header = json.loads(_whole(file, _LENGTH_BYTES, begin, read))
        ends = [_end(entry) for name, entry in header.items() if name != "__metadata__"]
        needed = begin + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise UnreadableError(
            UnreadableReason.BAD_HEADER, file.path, f"its header is not one of safetensors: {error}"
        ) from error
    if needed > file.size_bytes:
        raise UnreadableError(
            UnreadableReason.TRUNCATED,
            file.path,
            f"its header speaks of {needed} bytes and the registry holds {file.size_bytes}; publish it again",
        )


def _end(entry: Any) -> int:
    end = entry["data_offsets"][1]
    if type(end) is not int or end < 0:
        raise TypeError("data_offsets must be whole numbers")
    return end


def _whole(file: RemoteFile, begin: int, end: int, read: Read) -> bytes:
    data = read(file, begin, end)
    if len(data) != end - begin:
        raise UnreadableError(
            UnreadableReason.TRUNCATED,
            file.path,
            f"{len(data)} of the bytes {begin} to {end} came, and the registry lists {file.size_bytes}",
        )
    return data

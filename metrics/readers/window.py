"""A part of a mapped file that is a file of its own: a member of an archive, one entry of a distributed checkpoint."""

from __future__ import annotations

import io
import mmap
from pathlib import Path
from typing import Protocol

from layerwatch.metrics.errors import UnreadableError, UnreadableReason

MAX_READ_BYTES = 64 * 2**20
"""Most bytes that a library may ask a :class:`ViewStream` for at once."""


class Mapped(Protocol):
    """A file in memory: :class:`~layerwatch.metrics.readers.mapped.MappedFile`, or a :class:`Window` into one."""

    path: Path
    size: int

    @property
    def map(self) -> mmap.mmap | memoryview:
        """All its bytes; slices of it are copies or views."""

    def view(self, offset: int, length: int) -> memoryview:
        """``length`` bytes from ``offset``, without a copy. The caller has checked that they are there."""

    def release(self) -> None:
        """Give back the memory of what was read so far."""

    def ensure_unchanged(self) -> None:
        """Raise UnreadableError(CHANGED_WHILE_READING) when the file was written to since it was opened."""

    def close(self) -> None:
        """Close the file."""


class Window:
    """``size`` bytes of a mapped file from ``offset``, as a file; closed and released with that file.

    Args:
        file: where the bytes are. The caller has checked that they are all there.
        offset, size: in bytes.
    """

    def __init__(self, file: Mapped, offset: int, size: int) -> None:
        self.path = file.path
        self.size = size
        self.map: memoryview = file.view(offset, size)
        self._file = file

    def view(self, offset: int, length: int) -> memoryview:
        """``length`` bytes from ``offset``, without a copy."""
        return self.map[offset : offset + length]

    def release(self) -> None:
        """Give back the memory of what was read of the whole file."""
        self._file.release()

    def ensure_unchanged(self) -> None:
        """As the whole file."""
        self._file.ensure_unchanged()

    def close(self) -> None:
        """Nothing: the whole file is closed by its owner."""


class ViewStream(io.RawIOBase):
    """Bytes in memory as a stream for libraries that want one; nothing is copied but what they read.

    Args:
        data: the bytes.
        path: the file, for errors.
        limit: most bytes of one read; a header that asks for more is refused with TOO_LARGE.
    """

    def __init__(self, data: memoryview | mmap.mmap, path: Path, limit: int = MAX_READ_BYTES) -> None:
        super().__init__()
        self._data = memoryview(data)
        self._path = path
        self._limit = limit
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move as :meth:`io.IOBase.seek` does; positions behind the end read as empty."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        if base + offset < 0:
            raise OSError(22, "a position before the beginning of the file")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, all that is left for -1; raises UnreadableError(TOO_LARGE) above the limit."""
        left = max(len(self._data) - self._position, 0)
        count = left if size is None or size < 0 else min(size, left)
        if count > self._limit:
            raise UnreadableError(
                UnreadableReason.TOO_LARGE,
                self._path,
                f"a directory in the file takes {count} bytes, {self._limit} are accepted",
            )
        data = bytes(self._data[self._position : self._position + count])
        self._position += count
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as bytes are left; their number."""
        target = memoryview(buffer).cast("B")
        count = max(min(len(target), len(self._data) - self._position), 0)
        target[:count] = self._data[self._position : self._position + count]
        self._position += count
        return count

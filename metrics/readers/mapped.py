"""A weight file mapped into memory, read-only."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import BinaryIO

from layerwatch.metrics.errors import UnreadableError, UnreadableReason


class MappedFile:
    """One regular file, mapped whole. Views of it stay valid after :meth:`close` until they are dropped.

    The map is backed by the file: a writer that shrinks the file in place while it is read makes the kernel
    stop this process (SIGBUS), which is one reason why weights are opened in a child process only.

    Raises:
        UnreadableError: NOT_FOUND, EMPTY_FILE, or IO_ERROR (no regular file, no permission, read failure).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise UnreadableError(UnreadableReason.IO_ERROR, path, "this is no regular file")
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnreadableError(UnreadableReason.NOT_FOUND, path, "there is no such file") from error
        except (OSError, ValueError) as error:
            raise _io_error(path, error) from error
        try:
            self._opened = os.fstat(self._descriptor)
            self.size = self._opened.st_size
            if self.size == 0:
                raise UnreadableError(UnreadableReason.EMPTY_FILE, path, "the file has 0 bytes")
            self.map = mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            self.close()
            raise _io_error(path, error) from error
        except UnreadableError:
            self.close()
            raise

    def view(self, offset: int, length: int) -> memoryview:
        """``length`` bytes from ``offset``, without a copy. The caller has checked that they are there."""
        return memoryview(self.map)[offset : offset + length]

    def stream(self) -> BinaryIO:
        """The same open file as a stream, for libraries that want one; the caller closes it."""
        return os.fdopen(os.dup(self._descriptor), "rb")

    def release(self) -> None:
        """Take the pages that were read out of this process' memory; touched again, they are mapped again."""
        self.map.madvise(mmap.MADV_DONTNEED)

    def ensure_unchanged(self) -> None:
        """Raise UnreadableError(CHANGED_WHILE_READING) when the file was written to since it was opened."""
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._opened.st_size, self._opened.st_mtime_ns):
            raise UnreadableError(
                UnreadableReason.CHANGED_WHILE_READING,
                self.path,
                f"the file was written to while it was read ({self._opened.st_size} bytes, now {now.st_size}); "
                "publish finished files only, for example by renaming them into place",
            )

    def close(self) -> None:
        """Close the descriptor. The map itself goes with the last view of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _io_error(path: Path, error: Exception) -> UnreadableError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnreadableError(UnreadableReason.IO_ERROR, path, f"the file cannot be read: {reason}")

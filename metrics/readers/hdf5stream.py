"""What libhdf5 reads of a file, with a look at those structures on which it does not come back.

Strings of variable length lie in global heaps. libhdf5 (2.0 and before) walks the objects of a heap without looking
whether it gets ahead: a free object of size 0 keeps it busy for ever. Layout of a heap: HDF5 File Format
Specification 3.0, III.E, https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html .
"""

from __future__ import annotations

import mmap
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.window import ViewStream

_SIGNATURE = b"GCOL"
_ALIGNMENT = 8


class Hdf5Stream(ViewStream):
    """An HDF5 file as a stream; a read at a global heap that has no end raises UnreadableError(CORRUPT).

    Args:
        data: the file.
        path: for errors.
    """

    def __init__(self, data: memoryview | mmap.mmap, path: Path) -> None:
        super().__init__(data, path)
        head = bytes(self._data[:16])
        # The superblock: bytes 8 the version, behind it how wide lengths are, in two layouts.
        width = head[14:15] if head[8:9] in (b"\0", b"\1") else head[10:11]
        self._length_bytes = width[0] if width else 0
        self._checked: set[int] = set()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As of a file."""
        begin = self._position
        if self._data[begin : begin + 4] == _SIGNATURE and begin not in self._checked:
            self._check_heap(begin)
            self._checked.add(begin)
        return super().readinto(buffer)

    def _check_heap(self, begin: int) -> None:
        width = self._length_bytes
        size = self._number(begin + 8, width)
        position = begin + _aligned(8 + width)
        end = begin + size
        header = 8 + width
        while position + header <= end:
            index = self._number(position, 2)
            length = self._number(position + 8, width)
            step = _aligned(header) + _aligned(length) if index else length
            if step == 0 or position + step > end:
                raise UnreadableError(
                    UnreadableReason.CORRUPT,
                    self._path,
                    f"the HDF5 file is damaged: a heap of texts at byte {begin} holds an object of {length} bytes where "
                    f"{end - position} are left; copy it again",
                )
            position += step

    def _number(self, offset: int, width: int) -> int:
        return int.from_bytes(self._data[offset : offset + width], "little")


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT

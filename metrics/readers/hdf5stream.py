"""What libhdf5 reads of a file, with a look at those structures on which it does not come back.

Strings of variable length lie in global heaps. libhdf5 (2.0 and before) walks the objects of a heap without looking
whether it gets ahead: a free object of size 0 keeps it busy for ever. Names in groups of the old kind lie in local heaps,
whose free blocks are a list. A list that leads back into itself is followed for ever, with memory for each step. Layout of
both: HDF5 File Format Specification 3.0, III.D and III.E,
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html .
"""

from __future__ import annotations

import mmap
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.window import ViewStream

_GLOBAL_HEAP, _LOCAL_HEAP = b"GCOL", b"HEAP"
_ALIGNMENT = 8
_LAST_FREE_BLOCK = 1
_MOST_FREE_BLOCKS = 100_000


class Hdf5Stream(ViewStream):
    """An HDF5 file as a stream; a read at a heap that has no end raises UnreadableError(CORRUPT).

    Args:
        data: the file.
        path: for errors.
    """

    def __init__(self, data: memoryview | mmap.mmap, path: Path) -> None:
        super().__init__(data, path)
        head = bytes(self._data[:16])
        # The superblock: byte 8 the version, behind it how wide addresses and lengths are, in two layouts.
        at = 13 if head[8:9] in (b"\0", b"\1") else 9
        self._address_bytes, self._length_bytes = head[at : at + 2] if len(head) == 16 else (0, 0)
        self._checked: set[int] = set()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As of a file."""
        begin = self._position
        signature = bytes(self._data[begin : begin + 4])
        if signature in (_GLOBAL_HEAP, _LOCAL_HEAP) and begin not in self._checked:
            if signature == _GLOBAL_HEAP:
                self._check_global_heap(begin)
            else:
                self._check_local_heap(begin)
            self._checked.add(begin)
        return super().readinto(buffer)

    def _check_global_heap(self, begin: int) -> None:
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

    def _check_local_heap(self, begin: int) -> None:
        width = self._length_bytes
        size = self._number(begin + 8, width)
        block = self._number(begin + 8 + width, width)
        address = self._number(begin + 8 + 2 * width, self._address_bytes)
        # More have no room side by side: each begins with two numbers.
        left = min(size // max(2 * width, 1), _MOST_FREE_BLOCKS)
        # A block outside of the heap libhdf5 refuses itself.
        while block != _LAST_FREE_BLOCK and block < size and address + block < len(self._data):
            if left == 0:
                raise UnreadableError(
                    UnreadableReason.CORRUPT,
                    self._path,
                    f"the HDF5 file is damaged: the list of free blocks in the heap of names at byte {begin} has "
                    "no end; copy it again",
                )
            left -= 1
            block = self._number(address + block, width)

    def _number(self, offset: int, width: int) -> int:
        return int.from_bytes(self._data[offset : offset + width], "little")


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT

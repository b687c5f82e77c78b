"""Chunks of HDF5 datasets, unpacked within limits.

libhdf5 inflates a chunk as far as its bytes go, whatever size the chunk should have, and calls filters that it loads
from shared libraries. Here the places of chunks are taken from it, and the rest is done in the file's own bytes.
Filters: https://support.hdfgroup.org/documentation/hdf5/latest/_h5_d__u_g.html (5.6), HDF5 File Format Specification
IV.A.2.l.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerwatch.metrics.readers.window import Mapped
from layerwatch.metrics.tensors import Array

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3

FILTERS = frozenset({DEFLATE, SHUFFLE, FLETCHER32})
"""What h5py's ``compression="gzip"``, ``shuffle`` and ``fletcher32`` write. Keras itself packs nothing."""

MAX_CHUNKS = 1_000_000

_CHECKSUM_BYTES = 4


class DamagedChunkError(Exception):
    """A chunk is not what its dataset says; the text is a clause."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    offset: tuple[int, ...]
    skipped: int
    begin: int
    size: int


def unpack(dataset: Any, file: Mapped, dtype: np.dtype[Any], filters: Sequence[int]) -> Array:
    """All values of a dataset in chunks.

    Args:
        dataset: the ``h5py.Dataset``; its size has been judged.
        file: the bytes it is in.
        dtype: of its elements, in the byte order as stored.
        filters: of :data:`FILTERS`, in the order in which they were applied.

    Raises:
        DamagedChunkError: chunks are cut off, unpack to another size, or are not where they belong.
    """
    shape, sides = tuple(dataset.shape), tuple(dataset.chunks)
    size = int(np.prod(sides, dtype=object)) * dtype.itemsize
    chunks: list[_Chunk] = []

    def collect(stored: Any) -> None:
        if len(chunks) >= MAX_CHUNKS:
            raise DamagedChunkError(f"more than {MAX_CHUNKS} chunks")
        place = tuple(int(one) for one in stored.chunk_offset)
        chunks.append(_Chunk(place, int(stored.filter_mask), int(stored.byte_offset), int(stored.size)))

    dataset.id.chunk_iter(collect)
    _require_grid(chunks, shape, sides)
    whole: Array = np.empty(shape, dtype)
    whole[...] = np.asarray(dataset.fillvalue).astype(dtype) if dtype.kind != "V" else np.zeros((), dtype)
    for chunk in chunks:
        if chunk.begin + chunk.size > file.size:
            raise DamagedChunkError(f"{chunk.begin + chunk.size - file.size} bytes of a chunk are missing")
        data = _unfiltered(file.view(chunk.begin, chunk.size), chunk.skipped, filters, size, dtype.itemsize)
        values = np.frombuffer(data, dtype).reshape(sides)
        inside = tuple(
            slice(0, min(side, end - at)) for at, side, end in zip(chunk.offset, sides, shape, strict=True)
        )
        place = tuple(slice(at, at + side) for at, side in zip(chunk.offset, sides, strict=True))
        whole[place] = values[inside]
    return whole


def _require_grid(chunks: Sequence[_Chunk], shape: tuple[int, ...], sides: tuple[int, ...]) -> None:
    if len({chunk.offset for chunk in chunks}) != len(chunks):
        raise DamagedChunkError("two chunks in the same place")
    for chunk in chunks:
        if len(chunk.offset) != len(shape) or any(
            at >= end or at % side for at, end, side in zip(chunk.offset, shape, sides, strict=True)
        ):
            raise DamagedChunkError("a chunk where none belongs")


def _unfiltered(
    data: bytes | memoryview, skipped: int, filters: Sequence[int], size: int, item: int
) -> bytes | memoryview:
    # The checksum is behind the values when it was made before they were packed.
    sizes = [size]
    for number, one in enumerate(filters):
        applied = not skipped >> number & 1
        sizes.append(
            -1
            if one == DEFLATE and applied
            else sizes[-1] + _CHECKSUM_BYTES * (one == FLETCHER32 and applied)
        )
    for number in reversed(range(len(filters))):
        if skipped >> number & 1:
            continue
        if filters[number] == DEFLATE:
            data = _inflated(data, sizes[number])
        elif filters[number] == FLETCHER32:
            data = _verified(data)
        else:
            data = _unshuffled(data, item)
    if len(data) != size:
        raise DamagedChunkError(f"a chunk of {len(data)} bytes where {size} belong")
    return data


def _inflated(data: bytes | memoryview, size: int) -> bytes:
    try:
        unpacked = zlib.decompressobj().decompress(data, max(size, 0) + 1)
    except zlib.error as error:
        raise DamagedChunkError(f"a chunk that cannot be unpacked: {error}") from error
    if len(unpacked) != size:
        raise DamagedChunkError(f"a chunk that unpacks to {len(unpacked)} bytes or more where {size} belong")
    return unpacked


def _unshuffled(data: bytes | memoryview, item: int) -> bytes:
    """Undo the sorting of bytes by their place in an element; those behind the last whole element stay."""
    count = len(data) // item
    planes = np.frombuffer(data, np.uint8, count * item).reshape(item, count)
    return planes.T.tobytes() + bytes(data[count * item :])


def _verified(data: bytes | memoryview) -> memoryview:
    body, checksum = memoryview(data)[:-_CHECKSUM_BYTES], bytes(data[-_CHECKSUM_BYTES:])
    if len(checksum) != _CHECKSUM_BYTES or fletcher32(body) != int.from_bytes(checksum, "little"):
        raise DamagedChunkError("a chunk that does not match its checksum")
    return body


def fletcher32(data: bytes | memoryview) -> int:
    """The checksum of HDF5 (``H5_checksum_fletcher32``): over 16-bit words, the higher byte first."""
    words = np.frombuffer(data, ">u2", len(data) // 2).astype(np.uint64)
    if len(data) % 2:
        words = np.append(words, np.uint64(data[-1] << 8))
    first = second = 0
    # In blocks, so that the weighted sums stay within 64 bits.
    for begin in range(0, len(words), 2**20):
        block = words[begin : begin + 2**20]
        count = len(block)
        weighted = int((block * np.arange(count, 0, -1, dtype=np.uint64)).sum())
        second = (second + count * first + weighted) % 65535
        first = (first + int(block.sum())) % 65535
    # Sums that are folded instead of reduced end at 65535 where a remainder is 0.
    first, second = (one or (65535 if len(words) and words.any() else 0) for one in (first, second))
    return second << 16 | first

"""Numbers of a few bits, packed into words or bytes, and the blocks of rows in which they are unpacked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.tensors import Array

BLOCK_ELEMENTS = 1 << 20
"""Values that are unpacked at a time: with their float32 copies some ten megabytes."""


def row_blocks(rows: int, columns: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Begins and ends of runs of rows of about :data:`BLOCK_ELEMENTS` elements, in whole multiples."""
    step = multiple * max(1, BLOCK_ELEMENTS // max(1, columns * multiple))
    for begin in range(0, rows, step):
        yield begin, min(rows, begin + step)


def words_for(count: int, bits: int) -> int:
    """32-bit words that ``count`` numbers of ``bits`` bits take, without gaps."""
    return -(-count * bits // 32)


def unpack(words: Array, bits: int, count: int) -> NDArray[np.uint8]:
    """Numbers packed along the last axis without gaps, the lowest bits first.

    Number i is in bits ``i * bits`` and following of the row's words, read as one little-endian stream: a number of
    3 bits may begin in one word and end in the next.

    Args:
        words: shape (rows, n), integers of 1 or 4 bytes.
        bits: 1 to 8.
        count: numbers per row, at most what the words hold.

    Returns:
        shape (rows, count).
    """
    stream = np.ascontiguousarray(words).astype(words.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    if bits == 8:
        return stream[:, :count]
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        fields = (stream[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)
        return fields.reshape(len(stream), -1)[:, :count]
    each = np.unpackbits(stream, axis=1, count=count * bits, bitorder="little")
    weights = np.left_shift(1, np.arange(bits)).astype(np.uint8)
    return np.asarray((each.reshape(len(stream), count, bits) * weights).sum(axis=2, dtype=np.uint8))


def unpack_whole(words: Array, bits: int, count: int) -> NDArray[np.uint8]:
    """The same where no number crosses a word: each word holds ``32 // bits`` numbers and a gap at its top.

    Args:
        words: shape (rows, n), 4-byte integers.
        bits: 1 to 8.
        count: numbers per row, at most what the words hold.
    """
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    unsigned = np.ascontiguousarray(words).astype(np.uint32, copy=False)
    fields = (unsigned[:, :, None] >> shifts) & np.uint32((1 << bits) - 1)
    return fields.reshape(len(unsigned), -1)[:, :count].astype(np.uint8)


def scaled(
    codes: NDArray[np.uint8],
    zeros: NDArray[np.float32],
    scales: NDArray[np.float32],
    group_of: NDArray[np.intp],
) -> NDArray[np.float32]:
    """(code - zero point) * scale, as float32.

    Args:
        codes: shape (rows, inputs).
        zeros, scales: shape (rows, groups).
        group_of: group of each input, shape (inputs,).
    """
    values = codes.astype(np.float32)
    values -= np.take(zeros, group_of, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        values *= np.take(scales, group_of, axis=1)
    return values


def group_index(inputs: int, size: int) -> NDArray[np.intp]:
    """Group of each input where groups are runs of ``size`` inputs; the last may be shorter."""
    return np.arange(inputs, dtype=np.intp) // size

"""How long the texts of an HDF5 attribute claim to be, before libhdf5 is asked for them.

An attribute of texts of variable length holds a descriptor for each: a length, and a place in a global heap. libhdf5
(2.0 and before) sets aside and clears that length, up to 4 GiB, before it looks whether the heap has as much. Layout of
object headers and attributes: HDF5 File Format Specification 3.0, IV.A.1 and IV.A.2.m,
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html .
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_CONTINUATION, _ATTRIBUTE = 0x10, 0x0C
_MOST_BLOCKS = 1000
_MOST_MESSAGES = 100_000

_PREFIX_1 = struct.Struct("<BxH4xI4x")
_MESSAGE_1 = struct.Struct("<HHB3x")
_MESSAGE_2 = struct.Struct("<BHB")
_ATTRIBUTE_PREFIX = struct.Struct("<BBHHH")


class NoSuchTextsError(Exception):
    """The attribute is not in the header of its object as it is understood here."""


class _BeyondTheFileError(NoSuchTextsError):
    """A block of the header claims bytes that the file does not have."""


def claims_too_much(data: memoryview, address: int) -> bool:
    """Whether a block of an object's header claims more bytes than the file has.

    libhdf5 sets aside what a continuation claims, up to 4 GiB and beyond, before it looks. Anything else that is wrong
    with a header it finds itself.
    """
    try:
        for _ in _messages(data, address):
            pass
    except _BeyondTheFileError:
        return True
    except (NoSuchTextsError, struct.error, IndexError, ValueError):
        return False
    return False


def claimed_lengths(data: memoryview, address: int, name: str, count: int) -> list[int]:
    """The lengths in bytes that the texts of an attribute claim.

    Args:
        data: the file.
        address: of the object's header.
        name: of an attribute of texts of variable length.
        count: how many there are.

    Raises:
        NoSuchTextsError: the attribute is kept elsewhere (dense storage, shared types), or the header is damaged.
    """
    wanted = name.encode()
    try:
        found = [
            value
            for kind, body in _messages(data, address)
            if kind == _ATTRIBUTE and (value := _value(body, wanted)) is not None
        ]
    except (struct.error, IndexError, ValueError) as error:
        raise NoSuchTextsError from error
    # length, address of 8 bytes, index: other widths are refused, nobody has written them for decades.
    if len(found) != 1 or len(found[0]) < 16 * count:
        raise NoSuchTextsError
    return [int.from_bytes(found[0][at : at + 4], "little") for at in range(0, 16 * count, 16)]


def _messages(data: memoryview, address: int) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each message of an object header, through its continuations."""
    if bytes(data[address : address + 4]) == b"OHDR":
        flags = data[address + 5]
        begin = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        size = int.from_bytes(data[begin : begin + width], "little")
        blocks = [(begin + width, size)]
        head, extra, trim = _MESSAGE_2, 2 if flags & 0x04 else 0, 4
    else:
        version, _, size = _PREFIX_1.unpack_from(data, address)
        if version != 1:
            raise NoSuchTextsError
        blocks = [(address + 16, size)]
        head, extra, trim = _MESSAGE_1, 0, 0
    seen = 0
    for begin, size in blocks:
        if size < 0 or begin + size > len(data):
            raise _BeyondTheFileError
        block = data[begin : begin + size]
        position = 0
        while position + head.size + extra <= len(block):
            kind, length, _ = head.unpack_from(block, position)
            position += head.size + extra
            body = block[position : position + length]
            position += length
            seen += 1
            if seen > _MOST_MESSAGES or len(blocks) > _MOST_BLOCKS:
                raise NoSuchTextsError
            if kind == _CONTINUATION:
                place, long = struct.unpack_from("<QQ", body)
                # Version 2 puts a signature in front of such a block and a checksum behind it.
                blocks.append((place + trim, long - 2 * trim))
            else:
                yield kind, body


def _value(message: memoryview, wanted: bytes) -> memoryview | None:
    """The value in an attribute message, or None where it is another attribute."""
    version, flags, *sizes = _ATTRIBUTE_PREFIX.unpack_from(message)
    begin = _ATTRIBUTE_PREFIX.size + (1 if version == 3 else 0)
    if bytes(message[begin : begin + sizes[0]]).rstrip(b"\0") != wanted:
        return None
    if version not in (1, 2, 3) or (flags and version != 1):
        raise NoSuchTextsError
    for size in sizes:
        begin += -(-size // 8) * 8 if version == 1 else size
    return message[begin:]

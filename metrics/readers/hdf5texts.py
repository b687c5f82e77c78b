"""What headers of HDF5 objects claim, before libhdf5 believes it: blocks, fill values, texts of attributes.

A fill value whose size is negative has no bytes, which libhdf5 (2.0 and before) copies all the same. An attribute of texts of variable length holds a descriptor for each: a length, and a place in a global heap. libhdf5
(2.0 and before) sets aside and clears that length, up to 4 GiB, before it looks whether the heap has as much. Layout of
object headers, fill values and attributes: HDF5 File Format Specification 3.0, IV.A.1, IV.A.2.f and IV.A.2.m,
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html .
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_CONTINUATION, _ATTRIBUTE = 0x10, 0x0C
_OLD_FILL_VALUE, _FILL_VALUE = 0x04, 0x05
_UNDEFINED = 2**32 - 1
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


def false_claim(data: memoryview, address: int) -> str | None:
    """What an object's header claims that cannot be, in words; None where libhdf5 may be asked for the object.

    libhdf5 sets aside what a continuation claims, up to 4 GiB and beyond, before it looks, and reads fill values that are
    not there. Anything else that is wrong with a header it finds itself.
    """
    try:
        for kind, body in _messages(data, address):
            if _fill_size(kind, body) > len(body):
                return "holds a fill value that claims more bytes than it has"
    except _BeyondTheFileError:
        return "claims more bytes than the file has"
    except (NoSuchTextsError, struct.error, IndexError, ValueError):
        return None
    return None


def _fill_size(kind: int, body: memoryview) -> int:
    """The bytes that a fill value claims, as a number without sign; 0 for other messages, and where there is none."""
    if kind == _OLD_FILL_VALUE:
        at = 0
    elif kind == _FILL_VALUE and body[0] in (1, 2):
        at = 4 if body[0] == 1 or body[3] else len(body)
    elif kind == _FILL_VALUE and body[0] == 3:
        at = 2 if body[1] & 0x20 else len(body)
    else:
        at = len(body)
    size = int.from_bytes(body[at : at + 4], "little")
    return 0 if size == _UNDEFINED else size


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

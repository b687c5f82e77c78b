"""The protobuf wire format, as far as reading needs it: fields of a message, one after the other, without copies.

Format: https://protobuf.dev/programming-guides/encoding/ . A message is a row of fields, each a varint tag (number
and wire type) and a value; strings, bytes, packed numbers and messages are length-delimited and are handed out as
the range of bytes they take.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

MAX_FIELDS = 1_000_000
"""Most fields of one file. Exports of large language models have some 300 000."""


class WireType(IntEnum):
    """How a value is written. Groups (3 and 4) have not been written for twenty years and are refused."""

    VARINT = 0
    FIXED64 = 1
    DELIMITED = 2
    FIXED32 = 5


class WireError(ValueError):
    """The bytes break the wire format; the text says how, without the file's name."""


class TooManyFields(WireError):  # noqa: N818 - a limit, no fault of the format
    """The file has more fields than :data:`MAX_FIELDS`."""


class Wire:
    """A protobuf file.

    Args:
        data: all its bytes.

    Attributes:
        data: the same.
    """

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self._fields = 0

    def fields(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """The fields of the message in ``data[begin:end]``.

        Yields:
            Number, wire type, and begin and end of the value's bytes; of a varint, begin is its value (0 to
            2**64 - 1) and end where it ends.

        Raises:
            WireError: a field is cut off, reaches beyond the message, or is of an unknown wire type.
        """
        position = begin
        while position < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise TooManyFields(f"the file has more than {MAX_FIELDS} fields")
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise WireError(f"the field number {number} at byte {position} is not possible")
            if wire == WireType.VARINT:
                value, position = self._varint(position, end)
                yield number, wire, value, position
                continue
            if wire == WireType.DELIMITED:
                size, position = self._varint(position, end)
            elif wire == WireType.FIXED32:
                size = 4
            elif wire == WireType.FIXED64:
                size = 8
            else:
                raise WireError(f"the field at byte {position} has the wire type {wire}, which is not known")
            if size > end - position:
                raise WireError(
                    f"the field {number} at byte {position} claims {size} bytes where {end - position} are left; "
                    "the file is cut off or damaged: copy it again"
                )
            yield number, wire, position, position + size
            position += size

    def text(self, begin: int, end: int, longest: int) -> str:
        """A string; raises WireError for one that is longer than allowed, or no UTF-8."""
        if end - begin > longest:
            raise WireError(f"a text of {end - begin} bytes where at most {longest} are accepted")
        try:
            return str(self.data[begin:end], "utf-8")
        except UnicodeDecodeError as error:
            raise WireError(f"the text at byte {begin} is not UTF-8") from error

    def varints(self, begin: int, end: int) -> Iterator[int]:
        """The values of a packed field."""
        position = begin
        while position < end:
            value, position = self._varint(position, end)
            yield value

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        data = self.data
        while position < end and shift < 70:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position
            shift += 7
        raise WireError(f"the number that ends at byte {position} is cut off or too long")


def signed(value: int) -> int:
    """A varint as int64: negative numbers are written in two's complement."""
    return value - 2**64 if value >= 2**63 else value

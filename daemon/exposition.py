"""The bytes that a scrape gets: what is common to many scrapes is rendered and compressed once."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_GZIP_HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF])
"""RFC 1952, 2.3: deflate, no flags, no time, unknown file system."""

_RAW_DEFLATE = -zlib.MAX_WBITS
_LEVEL = 1
"""Series repeat each other so much that more effort saves little: 31 to 36 times smaller."""


@dataclass(frozen=True, slots=True)
class Exposition:
    """A text that is the beginning of many answers.

    Attributes:
        text: as it is.
        series: how many it tells.
        deflated: whole blocks of its deflate stream, not ended.
        checksum: its CRC-32.
    """

    text: bytes
    series: int
    deflated: bytes
    checksum: int

    @classmethod
    def of(cls, text: bytes, series: int) -> Exposition:
        """Compress a text."""
        compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
        # A full flush: what follows refers to nothing before.
        deflated = compressor.compress(text) + compressor.flush(zlib.Z_FULL_FLUSH)
        return cls(text, series, deflated, zlib.crc32(text))

    def followed_by(self, rest: bytes) -> bytes:
        """The text and a rest."""
        return self.text + rest

    def gzipped_with(self, rest: bytes) -> bytes:
        """The same as one gzip file (RFC 1952), of which only the rest is compressed now."""
        compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
        end = compressor.compress(rest) + compressor.flush(zlib.Z_FINISH)
        length = (len(self.text) + len(rest)) & 0xFFFF_FFFF
        trailer = struct.pack("<II", zlib.crc32(rest, self.checksum), length)
        return b"".join((_GZIP_HEADER, self.deflated, end, trailer))

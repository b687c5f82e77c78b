"""Zip archives that hold weights: members are mapped where they are stored, unpacked within limits where not.

The directory is read by :mod:`zipfile`; everything behind it is done here, because ``zipfile`` unpacks a member
whole before it compares the size with the declared one. Nothing is ever written to disk. Format:
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.window import Mapped, ViewStream

ZIP_MAGIC = b"PK\3\4"

MAX_DIRECTORY_BYTES = 8 * 2**20
"""Largest directory: about 100 000 members. zipfile keeps ten times as much in memory."""

MAX_UNPACKED_BYTES = 4 * 2**30
"""Largest member that is unpacked into memory."""

MAX_EXPANSION = 100
"""Largest ratio of a member's size to its packed size. Packed weights stay below 10; deflate reaches 1032."""

EXPANSION_FLOOR_BYTES = 64 * 2**20
"""Members up to this size may expand as they like: networks may hold layers of nothing but zeros."""

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1
_WINDOW_BITS_OF_RAW_DEFLATE = -15

# What zipfile raises on damaged archives, found by reading it and by fuzzing.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
    *(EOFError, LookupError, NotImplementedError, OverflowError, RuntimeError, ValueError, OSError),
)


class ZipArchive:
    """An open zip archive.

    Args:
        file: its bytes.
        limit: most bytes of one compressed member.

    Raises:
        UnreadableError: TRUNCATED (no directory), BAD_HEADER (two members of the same name or in the same place,
            names that lead out, links), or TOO_LARGE (the directory).
    """

    def __init__(self, file: Mapped, limit: int = MAX_UNPACKED_BYTES) -> None:
        self._file = file
        self._limit = limit
        self._verified: set[str] = set()
        try:
            stream = ViewStream(memoryview(file.map), file.path, MAX_DIRECTORY_BYTES)
            with zipfile.ZipFile(stream) as archive:
                listed = archive.infolist()
        except _ZIP_ERRORS as error:
            raise self._error(
                UnreadableReason.TRUNCATED,
                f"the directory at the end of the zip container cannot be read ({error}); the file of {file.size} "
                "bytes is cut off or damaged: copy it again",
            ) from error
        self._members = {member.filename: member for member in listed if not member.filename.endswith("/")}
        if len(self._members) != sum(not member.filename.endswith("/") for member in listed):
            raise self._error(
                UnreadableReason.BAD_HEADER, "the zip container holds two entries of the same name"
            )
        self._refuse_odd_members()

    @property
    def sizes(self) -> Mapping[str, int]:
        """Unpacked size in bytes, as declared, of each member by its name, in the order of the directory."""
        return {name: member.file_size for name, member in self._members.items()}

    def is_stored(self, name: str) -> bool:
        """Whether a member lies in the archive as it is; KeyError for a name that is not there."""
        return self._members[name].compress_type == zipfile.ZIP_STORED

    def extent(self, name: str) -> tuple[int, int]:
        """Where the bytes of a member begin, packed or not, and how many there are, all of them in the file.

        Raises:
            UnreadableError: encrypted, packed otherwise than by deflate, not where the directory says, cut off.
        """
        member = self._members[name]
        if member.flag_bits & _ENCRYPTED:
            raise self._error(UnreadableReason.UNKNOWN_FORMAT, f"the entry {name} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._error(
                UnreadableReason.CORRUPT,
                f"the entry {name} cannot be unpacked: compression method {member.compress_type} is not read, only "
                "stored and deflated entries are",
            )
        begin = self._data_offset(member)
        stored = member.compress_type == zipfile.ZIP_STORED
        length = member.file_size if stored else member.compress_size
        missing = begin + length - self._file.size
        if missing > 0:
            raise self._error(
                UnreadableReason.TRUNCATED,
                f"{missing} bytes of the entry {name} are missing: copy the file again",
            )
        return begin, length

    def read(self, name: str) -> memoryview:
        """The bytes of a member: a view of the file where it is stored, compared with its checksum once.

        Raises:
            UnreadableError: CORRUPT (checksum, packed data), TOO_LARGE (above the limits), or as :meth:`extent`.
        """
        member = self._members[name]
        begin, length = self.extent(name)
        if member.compress_type != zipfile.ZIP_STORED:
            return self._unpacked(member, begin, length)
        data = self._file.view(begin, length)
        if name not in self._verified:
            self._verify(member, data)
            self._verified.add(name)
        return data

    def beginning(self, name: str, count: int) -> bytes:
        """The first ``count`` bytes of a member, fewer when it is shorter; not compared with the checksum."""
        begin, length = self.extent(name)
        if self.is_stored(name):
            return bytes(self._file.view(begin, min(count, length)))
        # Deflate never makes data longer by more than 5 bytes per 16 kB.
        packed = self._file.view(begin, min(length, 2 * count + 1024))
        try:
            return zlib.decompressobj(_WINDOW_BITS_OF_RAW_DEFLATE).decompress(packed, count)
        except zlib.error as error:
            raise self._damaged(name, error) from error

    def require_unpackable(self, name: str) -> None:
        """Raise UnreadableError(TOO_LARGE) where a packed member is, by its declared sizes, above the limits."""
        member = self._members[name]
        if member.compress_type == zipfile.ZIP_STORED:
            return
        size, packed = member.file_size, member.compress_size
        if size > self._limit:
            raise self._error(
                UnreadableReason.TOO_LARGE,
                f"the compressed entry {name} unpacks to {size} bytes, {self._limit} are accepted; save it without "
                "compression",
            )
        if size > EXPANSION_FLOOR_BYTES and size > MAX_EXPANSION * packed:
            raise self._error(
                UnreadableReason.TOO_LARGE,
                f"the compressed entry {name} of {packed} bytes unpacks to {size}, more than {MAX_EXPANSION} times as "
                "much, as zip bombs do; save it without compression if that is meant",
            )

    def _refuse_odd_members(self) -> None:
        reached, before = 0, ""
        for member in sorted(self._members.values(), key=lambda one: one.header_offset):
            name = member.filename
            # zipfile cuts names at a NUL; the name as stored is what other programs may see.
            if name.startswith("/") or ".." in name.split("/") or "\0" in member.orig_filename:
                raise self._error(
                    UnreadableReason.BAD_HEADER, f"the entry {name[:100]!r} would lead out of the archive"
                )
            if stat.S_ISLNK(member.external_attr >> 16):
                raise self._error(UnreadableReason.BAD_HEADER, f"the entry {name[:100]!r} is a link")
            if member.header_offset < reached and member.header_offset >= 0:
                raise self._error(
                    UnreadableReason.BAD_HEADER, f"the entries {before[:100]!r} and {name[:100]!r} overlap"
                )
            reached = member.header_offset + _LOCAL_HEADER.size + member.compress_size
            before = name

    def _data_offset(self, member: zipfile.ZipInfo) -> int:
        begin = member.header_offset
        if not 0 <= begin <= self._file.size - _LOCAL_HEADER.size:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"the entry {member.filename} begins at byte {begin}, outside the file",
            )
        signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack_from(self._file.map, begin)
        name_begin = begin + _LOCAL_HEADER.size
        name = bytes(self._file.map[name_begin : name_begin + name_length])
        if signature != ZIP_MAGIC or name not in (
            member.orig_filename.encode("utf-8", "surrogatepass"),
            member.orig_filename.encode("cp437", "replace"),
        ):
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"the entry {member.filename} is not where the directory of the zip container says it is",
            )
        return name_begin + int(name_length) + int(extra_length)

    def _unpacked(self, member: zipfile.ZipInfo, begin: int, length: int) -> memoryview:
        name, size = member.filename, member.file_size
        self.require_unpackable(name)
        unpacker = zlib.decompressobj(_WINDOW_BITS_OF_RAW_DEFLATE)
        try:
            # One byte more than declared is enough to tell that there are more.
            data = unpacker.decompress(self._file.view(begin, length), size + 1)
        except zlib.error as error:
            raise self._damaged(name, error) from error
        if len(data) != size:
            raise self._error(
                UnreadableReason.CORRUPT,
                f"the entry {name} unpacks to {'more than ' if len(data) > size else ''}{min(len(data), size)} bytes, "
                f"its directory says {size}",
            )
        self._verify(member, data)
        return memoryview(data)

    def _verify(self, member: zipfile.ZipInfo, data: bytes | memoryview) -> None:
        # torch writes 0 where it was told not to compute checksums (set_crc32_options).
        if member.CRC != 0 and zlib.crc32(data) != member.CRC:
            raise self._error(
                UnreadableReason.CORRUPT,
                f"the bytes of the entry {member.filename} do not match their checksum; the file was damaged after it "
                "was written: copy it again",
            )

    def _damaged(self, name: str, error: Exception) -> UnreadableError:
        return self._error(UnreadableReason.CORRUPT, f"the entry {name} cannot be unpacked: {error}")

    def _error(self, reason: UnreadableReason, detail: str) -> UnreadableError:
        return UnreadableError(reason, self._file.path, detail)


def first_member(head: bytes) -> str | None:
    """Name of the first member of a zip archive, from the beginning of the file; None where it is none."""
    if not head.startswith(ZIP_MAGIC) or len(head) < _LOCAL_HEADER.size:
        return None
    *_, length, _ = _LOCAL_HEADER.unpack_from(head)
    return head[_LOCAL_HEADER.size : _LOCAL_HEADER.size + int(length)].decode("utf-8", "replace")

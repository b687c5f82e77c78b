"""The zip container of ``torch.save`` (torch >= 1.6).

Entries, all below one folder: ``data.pkl``, one ``data/<key>`` per storage, ``version``, ``byteorder``.
Storages are stored without compression, so that they can be mapped. Source: ``torch/serialization.py`` and
https://pytorch.org/docs/stable/notes/serialization.html .
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.picklestream import PickleStream
from layerwatch.metrics.readers.tensorunpickler import unpickle

MAX_COMPRESSED_STORAGE = 4 * 2**30
"""Largest storage that is unpacked into memory. torch itself never compresses."""

MAX_PICKLE_BYTES = 2**30

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1
_DATA_PICKLE = re.compile(r"(?P<folder>(?:[^/]+/)?)data\.pkl")

# What zipfile raises on damaged archives, found by reading it and by fuzzing.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
    *(EOFError, LookupError, NotImplementedError, OverflowError, RuntimeError, ValueError, OSError),
)


class TorchZip:
    """An open zip container.

    Raises:
        UnreadableError: TRUNCATED (no central directory), BAD_HEADER, CORRUPT (a checksum does not match), or
            UNKNOWN_FORMAT (a zip file that is no torch checkpoint, TorchScript, big-endian).
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._path: Path = file.path
        self._verified: set[str] = set()
        try:
            with file.stream() as stream, zipfile.ZipFile(stream) as archive:
                listed = archive.infolist()
        except _ZIP_ERRORS as error:
            raise self._error(
                UnreadableReason.TRUNCATED,
                f"the directory at the end of the zip container cannot be read ({error}); the file of {file.size} "
                "bytes is cut off or damaged: copy it again",
            ) from error
        self._entries = {entry.filename: entry for entry in listed}
        if len(self._entries) != len(listed):
            raise self._error(
                UnreadableReason.BAD_HEADER, "the zip container holds two entries of the same name"
            )
        self._folder = self._find_folder()

    def root(self) -> object:
        """The checkpoint object; raises UnreadableError when its pickle is damaged."""
        name = self._folder + "data.pkl"
        size = self._entries[name].file_size
        if size > MAX_PICKLE_BYTES:
            raise self._error(
                UnreadableReason.TOO_LARGE, f"{name} takes {size} bytes, {MAX_PICKLE_BYTES} are accepted"
            )
        return unpickle(PickleStream(bytes(self._bytes(name)), self._path)).root

    def storage_size(self, key: str) -> int | None:
        """Bytes of a storage, or None when the container has none of this key."""
        entry = self._entries.get(self._storage_name(key))
        return None if entry is None else entry.file_size

    def storage(self, key: str) -> memoryview:
        """The bytes of a storage, after comparing them with their checksum once."""
        return self._bytes(self._storage_name(key))

    def _storage_name(self, key: str) -> str:
        return f"{self._folder}data/{key}"

    def _find_folder(self) -> str:
        folders = [found["folder"] for name in self._entries if (found := _DATA_PICKLE.fullmatch(name))]
        script = [name for name in self._entries if re.fullmatch(r"([^/]+/)?(constants\.pkl|code/.*)", name)]
        if script:
            raise self._error(
                UnreadableReason.UNKNOWN_FORMAT,
                "this is a TorchScript archive, which is not yet supported; save the state_dict of the same model "
                "with torch.save or as safetensors",
            )
        if len(folders) != 1:
            held = ", ".join(repr(name[:60]) for name in sorted(self._entries)[:3]) or "nothing"
            raise self._error(
                UnreadableReason.UNKNOWN_FORMAT,
                f"this zip file is no torch checkpoint: it has {len(folders)} entries data.pkl and begins with {held}",
            )
        order = folders[0] + "byteorder"
        if order in self._entries and bytes(self._bytes(order)[:16]) != b"little":
            raise self._error(
                UnreadableReason.UNKNOWN_FORMAT,
                "the checkpoint was written on a big-endian machine; load and save it with torch on a little-endian one",
            )
        return folders[0]

    def _bytes(self, name: str) -> memoryview:
        entry = self._entries[name]
        if entry.flag_bits & _ENCRYPTED:
            raise self._error(UnreadableReason.UNKNOWN_FORMAT, f"the entry {name} is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED:
            return self._unpacked(entry)
        begin = self._data_offset(entry)
        missing = begin + entry.file_size - self._file.size
        if missing > 0:
            raise self._error(
                UnreadableReason.TRUNCATED,
                f"{missing} bytes of the entry {name} are missing: copy the file again",
            )
        data = self._file.view(begin, entry.file_size)
        # torch writes 0 where it was told not to compute checksums (set_crc32_options).
        if name not in self._verified and entry.CRC != 0 and zlib.crc32(data) != entry.CRC:
            raise self._error(
                UnreadableReason.CORRUPT,
                f"the bytes of the entry {name} do not match their checksum; the file was damaged after it was "
                "written: copy it again",
            )
        self._verified.add(name)
        return data

    def _data_offset(self, entry: zipfile.ZipInfo) -> int:
        begin = entry.header_offset
        if not 0 <= begin <= self._file.size - _LOCAL_HEADER.size:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"the entry {entry.filename} begins at byte {begin}, outside the file",
            )
        signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack_from(self._file.map, begin)
        name_begin = begin + _LOCAL_HEADER.size
        name = self._file.map[name_begin : name_begin + name_length]
        if signature != b"PK\3\4" or name not in (
            entry.orig_filename.encode(),
            entry.orig_filename.encode("cp437", "replace"),
        ):
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"the entry {entry.filename} is not where the directory of the zip container says it is",
            )
        return name_begin + int(name_length) + int(extra_length)

    def _unpacked(self, entry: zipfile.ZipInfo) -> memoryview:
        if entry.file_size > MAX_COMPRESSED_STORAGE:
            raise self._error(
                UnreadableReason.TOO_LARGE,
                f"the compressed entry {entry.filename} unpacks to {entry.file_size} bytes, "
                f"{MAX_COMPRESSED_STORAGE} are accepted; save the checkpoint with torch.save",
            )
        try:
            with self._file.stream() as stream, zipfile.ZipFile(stream) as archive:
                data = archive.read(entry)
        except _ZIP_ERRORS as error:
            raise self._error(
                UnreadableReason.CORRUPT, f"the entry {entry.filename} cannot be unpacked: {error}"
            ) from error
        if len(data) != entry.file_size:
            raise self._error(
                UnreadableReason.CORRUPT,
                f"the entry {entry.filename} unpacks to {len(data)} bytes, its directory says {entry.file_size}",
            )
        return memoryview(data)

    def _error(self, reason: UnreadableReason, detail: str) -> UnreadableError:
        return UnreadableError(reason, self._path, detail)

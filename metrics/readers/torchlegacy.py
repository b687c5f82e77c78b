"""The container that ``torch.save`` wrote before torch 1.6, and still writes on request.

Five pickles one after the other (magic number, protocol version, system information, the checkpoint object,
the list of storage keys), then per key 8 bytes of element count and the elements. Source:
``_legacy_save`` and ``_legacy_load`` in ``torch/serialization.py``.
"""

from __future__ import annotations

from typing import NoReturn

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.dangerousglobals import ForeignCode
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.picklestream import PickleStream
from layerwatch.metrics.readers.picklevalues import Storage, describe
from layerwatch.metrics.readers.tensorunpickler import unpickle, unpickle_plain

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

_COUNT_BYTES = 8


class TorchLegacy:
    """An open legacy container.

    Args:
        file: its bytes.
        code: takes up what its pickles ask for that runs code.

    Raises:
        UnreadableError: TRUNCATED, TOO_LARGE or BAD_PICKLE (the pickles), UNKNOWN_FORMAT (another protocol,
            big-endian), UNSUPPORTED_DTYPE (a storage of unknown element size, behind which nothing is found).
    """

    def __init__(self, file: MappedFile, code: ForeignCode) -> None:
        self._file = file
        self._code = code
        stream = PickleStream(file.map, file.path)
        if unpickle_plain(stream, code) != MAGIC_NUMBER:
            self._fail(UnreadableReason.BAD_PICKLE, "the magic number of a torch checkpoint is not there")
        protocol = unpickle_plain(stream, code)
        if protocol != PROTOCOL_VERSION:
            self._fail(
                UnreadableReason.UNKNOWN_FORMAT,
                f"container version {describe(protocol)}, only {PROTOCOL_VERSION} is known",
            )
        system = unpickle_plain(stream, code)
        if isinstance(system, dict) and system.get("little_endian") is False:
            self._fail(
                UnreadableReason.UNKNOWN_FORMAT,
                "the checkpoint was written on a big-endian machine; load and save it with torch on a "
                "little-endian one",
            )
        checkpoint = unpickle(stream, code)
        self._root = checkpoint.root
        self._extents = self._locate(stream, checkpoint.storages)

    def root(self) -> object:
        """The checkpoint object."""
        return self._root

    def storage_size(self, key: str) -> int | None:
        """Bytes of a storage, or None when the container has none of this key."""
        return self._extents[key][1] if key in self._extents else None

    def storage(self, key: str) -> memoryview:
        """The bytes of a storage. The container has no checksums."""
        return self._file.view(*self._extents[key])

    def _locate(self, stream: PickleStream, storages: dict[str, Storage]) -> dict[str, tuple[int, int]]:
        """Offset and length of every storage, by key."""
        keys = unpickle_plain(stream, self._code)
        if not isinstance(keys, (list, tuple)):
            self._fail(UnreadableReason.BAD_PICKLE, f"the list of storage keys is {describe(keys)}")
        extents: dict[str, tuple[int, int]] = {}
        position = stream.tell()
        for raw_key in keys:
            key = str(raw_key) if type(raw_key) is int and raw_key.bit_length() <= 64 else raw_key
            storage = storages.get(key) if isinstance(key, str) else None
            if storage is None or key in extents:
                fault = "twice" if storage is not None else "that the checkpoint does not use"
                self._fail(
                    UnreadableReason.BAD_PICKLE, f"the list of storage keys names {describe(raw_key)} {fault}"
                )
            if not storage.type.bits:
                self._fail(
                    UnreadableReason.UNSUPPORTED_DTYPE,
                    f"a storage is of the unknown type {storage.type.name}, so that those behind it cannot be found",
                )
            begin = position + _COUNT_BYTES
            length = storage.numel * storage.type.bits // 8
            position = begin + length
            if position > self._file.size:
                self._fail(
                    UnreadableReason.TRUNCATED,
                    f"the storage {key} of {storage.numel} {storage.type.name} ends at byte {position}, the file has "
                    f"{self._file.size}; at least {position - self._file.size} bytes are missing: copy the file again",
                )
            counted = int.from_bytes(self._file.map[begin - _COUNT_BYTES : begin], "little")
            if counted != storage.numel:
                self._fail(
                    UnreadableReason.BAD_PICKLE,
                    f"the storage {key} holds {counted} elements, the checkpoint says {storage.numel}",
                )
            extents[key] = (begin, length)
        return extents

    def _fail(self, reason: UnreadableReason, detail: str) -> NoReturn:
        raise UnreadableError(reason, self._file.path, detail)

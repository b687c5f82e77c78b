"""The zip container of ``torch.save`` (torch >= 1.6) and of ``torch.jit.save``.

Entries, all below one folder: ``data.pkl``, one ``data/<key>`` per storage, ``version``, ``byteorder``.
Storages are stored without compression, so that they can be mapped. Source: ``torch/serialization.py`` and
https://pytorch.org/docs/stable/notes/serialization.html .

A TorchScript archive adds ``code/`` (source text, which nothing here looks at), ``constants.pkl``, the tuple of the
tensors that the code calls ``CONSTANTS.c0``, ``CONSTANTS.c1`` ..., and ``constants/<key>`` with their storages;
freezing a module turns all its parameters into such constants. Source:
https://github.com/pytorch/pytorch/blob/main/torch/csrc/jit/docs/serialization.md .
"""

from __future__ import annotations

import re
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.dangerousglobals import ForeignCode
from layerwatch.metrics.readers.picklestream import PickleStream
from layerwatch.metrics.readers.picklevalues import Global, Opaque
from layerwatch.metrics.readers.tensorunpickler import unpickle
from layerwatch.metrics.readers.window import Mapped
from layerwatch.metrics.readers.ziparchive import ZipArchive

MAX_COMPRESSED_STORAGE = 4 * 2**30
"""Largest storage that is unpacked into memory. torch itself never compresses."""

MAX_PICKLE_BYTES = 2**30

CONSTANTS = "CONSTANTS"
"""What the code of a TorchScript archive calls its constants."""

_DATA_PICKLE = re.compile(r"(?P<folder>(?:[^/]+/)?)data\.pkl")


class TorchZip:
    """An open zip container.

    Args:
        file: its bytes.
        code: takes up what its pickles ask for that runs code, when they are read.

    Raises:
        UnreadableError: TRUNCATED (no central directory), BAD_HEADER, CORRUPT (a checksum does not match), or
            UNKNOWN_FORMAT (a zip file that is no torch checkpoint, big-endian).
    """

    def __init__(self, file: Mapped, code: ForeignCode) -> None:
        self._code = code
        self._path: Path = file.path
        self._archive = ZipArchive(file, MAX_COMPRESSED_STORAGE)
        self._sizes = self._archive.sizes
        self._folder = self._find_folder()

    def root(self) -> object:
        """The checkpoint object; raises UnreadableError when its pickle is damaged.

        The constants of a TorchScript archive are added to its outermost module as a submodule :data:`CONSTANTS`.
        """
        root = self._unpickled("data.pkl", "data/")
        if f"{self._folder}constants.pkl" in self._sizes:
            constants = self._unpickled("constants.pkl", "constants/")
            if isinstance(constants, tuple) and constants:
                held = Opaque(Global("__torch__", CONSTANTS))
                held.state = {f"c{number}": value for number, value in enumerate(constants)}
                if isinstance(root, Opaque) and isinstance(root.state, dict):
                    root.state.setdefault(CONSTANTS, held)
                else:
                    root = {"module": root, CONSTANTS: held}
        return root

    def storage_size(self, key: str) -> int | None:
        """Bytes of a storage, or None when the container has none of this key."""
        return self._sizes.get(self._folder + key)

    def storage(self, key: str) -> memoryview:
        """The bytes of a storage, after comparing them with their checksum once."""
        return self._archive.read(self._folder + key)

    def _unpickled(self, name: str, storages: str) -> object:
        name = self._folder + name
        size = self._sizes[name]
        if size > MAX_PICKLE_BYTES:
            raise self._error(
                UnreadableReason.TOO_LARGE, f"{name} takes {size} bytes, {MAX_PICKLE_BYTES} are accepted"
            )
        return unpickle(PickleStream(bytes(self._archive.read(name)), self._path), self._code, storages).root

    def _find_folder(self) -> str:
        folders = [found["folder"] for name in self._sizes if (found := _DATA_PICKLE.fullmatch(name))]
        if len(folders) != 1:
            held = ", ".join(repr(name[:60]) for name in sorted(self._sizes)[:3]) or "nothing"
            raise self._error(
                UnreadableReason.UNKNOWN_FORMAT,
                f"this zip file is no torch checkpoint: it has {len(folders)} entries data.pkl and begins with {held}",
            )
        order = folders[0] + "byteorder"
        if order in self._sizes and bytes(self._archive.read(order)[:16]) != b"little":
            raise self._error(
                UnreadableReason.UNKNOWN_FORMAT,
                "the checkpoint was written on a big-endian machine; load and save it with torch on a little-endian one",
            )
        return folders[0]

    def _error(self, reason: UnreadableReason, detail: str) -> UnreadableError:
        return UnreadableError(reason, self._path, detail)

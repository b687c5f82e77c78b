"""The unpacked bytes of a compressed layer, from its beginning or from where a decompressor stood before."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from layerwatch.daemon.registries.oci.manifests import Packing
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

BLOCK = 2**20
_PIECE = 16 * 2**10
"""So much is unpacked at a time: a kept state keeps what is left of it alive."""

Blob = Callable[[int, int | None], Iterator[bytes]]
"""The bytes of a layer from a position, up to another one or its end; raises RegistryUnavailable."""


@dataclass(frozen=True, slots=True)
class State:
    """A decompressor and where it stands."""

    packed: int = 0
    unpacked: int = 0
    decompressor: Any = None


def zstd_missing() -> str | None:
    """What to do so that zstd can be read; None when it can."""
    if _zstd_module() is not None:
        return None
    return "zstd needs Python 3.14 or the package zstandard: pip install zstandard"


def unpacked(packing: Packing, blob: Blob, start: State, digest: str) -> Iterator[tuple[State, bytes]]:
    """Blocks of the unpacked bytes from a state on, each with a state that stands at or before its beginning."""
    try:
        if packing is Packing.TAR_GZIP:
            yield from _gunzipped(blob, start)
        else:
            for block in _unzstd(blob):
                yield State(), block
    except (zlib.error, EOFError) as error:
        raise UnreadableError(
            UnreadableReason.CORRUPT, digest, f"the layer cannot be unpacked: {str(error)[:200]}"
        ) from error


def _gunzipped(blob: Blob, start: State) -> Iterator[tuple[State, bytes]]:
    def fresh() -> Any:
        return zlib.decompressobj(wbits=31)

    state = fresh() if start.decompressor is None else start.decompressor.copy()
    packed, unpacked = start.packed, start.unpacked
    mark = start
    for piece in _slices(blob(packed, None)):
        while piece:
            if state.eof:
                piece, length = piece.lstrip(b"\0"), len(piece)
                packed += length - len(piece)
                if not piece:
                    break
                state = fresh()
            if mark.decompressor is None or unpacked - mark.unpacked >= BLOCK:
                mark = State(packed, unpacked, state.copy())
            block = state.decompress(piece, BLOCK)
            rest = state.unused_data if state.eof else state.unconsumed_tail
            packed += len(piece) - len(rest)
            unpacked += len(block)
            piece = rest
            if block:
                yield mark, block
    while not state.eof:
        block = state.decompress(b"", BLOCK)
        if not block:
            raise EOFError("it ends too early")
        yield mark, block


def _slices(blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        for begin in range(0, len(block), _PIECE):
            yield block[begin : begin + _PIECE]


class _File:
    """The blocks of an iterator as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def read(self, count: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._blocks, b"")
        size = len(self._rest) if count < 0 else count
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def _unzstd(blob: Blob) -> Iterator[bytes]:
    name = _zstd_module()
    if name is None:
        raise EOFError(str(zstd_missing()))
    module: Any = import_module(name)
    source = _File(blob(0, None))
    try:
        if name == "zstandard":
            reader = module.ZstdDecompressor(max_window_size=2**28).stream_reader(
                source, read_across_frames=True
            )
        else:
            reader = module.ZstdFile(source)
        while block := reader.read(BLOCK):
            yield block
    except module.ZstdError as error:
        raise EOFError(str(error)) from error


def _zstd_module() -> str | None:
    if sys.version_info >= (3, 14):
        return "compression.zstd"
    return "zstandard" if find_spec("zstandard") is not None else None

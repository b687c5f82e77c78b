"""Files inside the archives that layers are, without unpacking these.

A member of a plain tar is a range of the layer's bytes: listing takes one small read per 64 KiB of headers, and
reading a member takes just its bytes. A compressed archive must be read from its beginning: listing it takes one
pass over the whole layer, in which each member is hashed and the layer's own digest is checked, so that these need
not be fetched again to know their content. Of a gzip archive the states of the decompressor at the beginnings of
its members (and within large ones) are kept, about 50 KB each, so that a member is read from there later on; one of
zstd is read from its beginning each time.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from layerwatch.daemon.registries.oci.manifests import Packing, plain_path
from layerwatch.daemon.registries.oci.unpacking import BLOCK, Blob, State, unpacked
from layerwatch.daemon.registries.remote import is_weight
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

_WINDOW = 64 * 2**10
_LARGEST_HEADER = 2**20
_MOST_MEMBERS = 10_000
_FREE_GROWTH = 2**30
_GROWTH = 100
"""An archive may unpack to 1 GiB, or to this many times its size; weights hardly shrink."""
_MOST_STATES = 64
_STATE_EVERY = 256 * 2**20
_KEPT_LAYERS = 8
"""Layers whose decompressor states are kept: some MB each."""
_KEPT_MEMBERS = 20_000
_ZEROS = bytes(tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive.

    Attributes:
        offset: of its first byte in the unpacked archive.
        sha256: of its bytes, where the listing had to read them.
    """

    path: str
    offset: int
    size_bytes: int
    sha256: str | None


@dataclass(slots=True)
class _Known:
    members: tuple[Member, ...]
    states: list[State] = field(default_factory=list)


class Layers:
    """Lists and reads members of layers. Safe for several threads.

    What is in a layer is remembered for many, so that none is fetched twice to know it; states for the last few.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._states: OrderedDict[str, list[State]] = OrderedDict()
        self._members: OrderedDict[tuple[Packing, str], tuple[Member, ...]] = OrderedDict()
        self._kept = 0

    def members(self, packing: Packing, digest: str, size_bytes: int, blob: Blob) -> tuple[Member, ...]:
        """The regular files in a layer, in their order.

        Raises:
            RegistryUnavailable: from ``blob``.
            UnreadableError: it is no such archive, not the bytes that its digest names, or not safe to read.
        """
        key = (packing, digest)
        with self._lock:
            members = self._members.get(key)
            if members is not None:
                self._members.move_to_end(key)
                return members
        known = _list(packing, digest, size_bytes, blob)
        with self._lock:
            self._keep(key, known)
        return known.members

    def stream(self, packing: Packing, digest: str, blob: Blob, begin: int, end: int) -> Iterator[bytes]:
        """Bytes ``begin`` to ``end`` of the unpacked layer; raises as ``members`` does."""
        if packing is Packing.TAR:
            yield from blob(begin, end)
            return
        states = self._states_of(digest)
        start = max(
            (state for state in states if state.unpacked <= begin),
            key=lambda state: state.unpacked,
            default=State(),
        )
        position = start.unpacked
        # What a later state had read by then suffices, so that no more is asked for than is needed.
        enough = min((state.packed for state in states if state.unpacked >= end), default=None)

        def needed(first: int, last: int | None) -> Iterator[bytes]:
            return blob(first, enough if last is None else last)

        for _, block in unpacked(packing, needed, start, digest):
            piece = block[max(0, begin - position) : max(0, end - position)]
            position += len(block)
            # An empty piece tells that the layer is being read up to where the member begins.
            yield piece
            if position >= end:
                return

    def _states_of(self, digest: str) -> list[State]:
        with self._lock:
            if digest not in self._states:
                return []
            self._states.move_to_end(digest)
            return self._states[digest]

    def _keep(self, key: tuple[Packing, str], known: _Known) -> None:
        # Of two threads that list the same layer, the later one replaces what the other found.
        replaced = self._members.pop(key, None)
        self._kept -= 0 if replaced is None else len(replaced) + 1
        self._members[key] = known.members
        self._kept += len(known.members) + 1
        while self._kept > _KEPT_MEMBERS and len(self._members) > 1:
            self._kept -= len(self._members.popitem(last=False)[1]) + 1
        if known.states:
            self._states[key[1]] = known.states
            self._states.move_to_end(key[1])
            while len(self._states) > _KEPT_LAYERS:
                self._states.popitem(last=False)


class _Reader(Protocol):
    """What tarfile reads headers from; what lies between them is passed over by ``move``."""

    last: bytes

    def tell(self) -> int:
        """Position of the next byte."""

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes."""

    def move(self, position: int) -> None:
        """Go forward to a position; raises UnreadableError when there is no such one."""


class _ByRange:
    """Reads headers of a plain tar where they are."""

    def __init__(self, blob: Blob, size_bytes: int, digest: str) -> None:
        self._blob = blob
        self._size = size_bytes
        self._digest = digest
        self._position = 0
        self._begin = 0
        self._window = b""
        self.last = b""

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        _require_small(count, self._digest)
        end = min(self._size, self._position + count)
        if not self._begin <= self._position <= end <= self._begin + len(self._window):
            stop = min(self._size, max(end, self._position + _WINDOW))
            self._begin, self._window = self._position, b"".join(self._blob(self._position, stop))
        start = self._position - self._begin
        self.last = self._window[start : start + end - self._position]
        self._position += len(self.last)
        return self.last

    def move(self, position: int) -> None:
        _require_forward(self._position, position, self._digest)
        if position > self._size:
            raise _cut_off(self._digest)
        self._position = position


class _InOrder:
    """Reads an unpacked archive from its beginning to its end, and hashes what it is told to."""

    def __init__(self, blocks: Iterator[tuple[State, bytes]], limit: int, digest: str) -> None:
        self._blocks = blocks
        self._limit = limit
        self._digest = digest
        self._position = 0
        self._rest = memoryview(b"")
        self._total = 0
        self.state = State()
        self.last = b""

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        _require_small(count, self._digest)
        self.last = b"".join(self._take(count))
        return self.last

    def move(self, position: int) -> None:
        _require_forward(self._position, position, self._digest)
        for _ in self._take(position - self._position):
            pass
        if self._position < position:
            raise _cut_off(self._digest)

    def sha256(self, count: int, each: Callable[[State], None]) -> str:
        """Of the next bytes; ``each`` is told the decompressor's state as they pass."""
        end = self._position + count
        found = hashlib.sha256()
        each(self.state)
        for piece in self._take(count):
            found.update(piece)
            each(self.state)
        if self._position < end:
            raise _cut_off(self._digest)
        return found.hexdigest()

    def drain(self) -> None:
        """Read what follows the archive's end, so that the whole layer went through."""
        while list(self._take(BLOCK)):
            pass

    def _take(self, count: int) -> Iterator[memoryview]:
        while count > 0:
            if not self._rest:
                self.state, block = next(self._blocks, (self.state, b""))
                self._rest = memoryview(block)
                self._total += len(self._rest)
                if not self._rest:
                    return
                if self._total > self._limit:
                    raise UnreadableError(
                        UnreadableReason.TOO_LARGE,
                        self._digest,
                        f"the layer unpacks to more than {self._limit} bytes, {_GROWTH} times its size: it is left alone",
                    )
            piece, self._rest = self._rest[:count], self._rest[count:]
            count -= len(piece)
            self._position += len(piece)
            yield piece


def _list(packing: Packing, digest: str, size_bytes: int, blob: Blob) -> _Known:
    if packing is Packing.TAR:
        return _Known(tuple(_walk(_ByRange(blob, size_bytes, digest), digest, lambda member: None)))
    states: list[State] = []
    hashed, checked = _hashing(blob, digest)

    def keep(state: State) -> None:
        if state.decompressor is None or (states and state.unpacked - states[-1].unpacked < spacing[0]):
            return
        states.append(state)
        if len(states) > _MOST_STATES:
            del states[1::2]
            spacing[0] *= 2

    spacing = [_STATE_EVERY]
    blocks = unpacked(packing, hashed, State(), digest)
    reader = _InOrder(blocks, max(_FREE_GROWTH, _GROWTH * size_bytes), digest)

    def hash_member(member: tarfile.TarInfo) -> str:
        first = reader.state
        if is_weight(member.name) and first.decompressor is not None and len(states) < _MOST_STATES:
            states.append(first)
        return reader.sha256(member.size, keep)

    members = tuple(_walk(reader, digest, hash_member))
    reader.drain()
    checked()
    return _Known(members, states)


def _walk(reader: _Reader, digest: str, sha256: Callable[[tarfile.TarInfo], str | None]) -> Iterator[Member]:
    """The regular files. Only headers are interpreted, and nothing is written anywhere."""
    try:
        archive = tarfile.open(fileobj=reader, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115 - it owns nothing
        count = 0
        while (member := archive.next()) is not None:
            archive.members.clear()
            count += 1
            if count > _MOST_MEMBERS:
                raise UnreadableError(
                    UnreadableReason.TOO_LARGE, digest, f"the layer holds more than {_MOST_MEMBERS} files"
                )
            if _is_file(member, digest):
                begin, size = member.offset_data, member.size
                reader.move(begin)
                yield Member(plain_path(member.name), begin, size, sha256(member))
            reader.move(archive.offset)
    except (tarfile.TarError, ValueError, ArithmeticError, EOFError, RecursionError, zlib.error) as error:
        raise UnreadableError(
            UnreadableReason.CORRUPT, digest, f"the layer is no sound archive: {str(error)[:200]}"
        ) from error
    if reader.last not in (_ZEROS, b""):
        # tarfile takes a broken header in the middle for the end, and would hide what follows it.
        raise UnreadableError(
            UnreadableReason.CORRUPT, digest, "a header in the middle of the layer's archive is broken"
        )


def _is_file(member: tarfile.TarInfo, digest: str) -> bool:
    regular = member.isreg() and not member.issparse()
    if not regular and not member.isdir() and is_weight(member.name):
        raise UnreadableError(
            UnreadableReason.CORRUPT,
            digest,
            f"the weight file {member.name[:200]!r} in the layer is a link or no plain file, which is not followed",
        )
    if regular and member.size < 0:
        raise ValueError("a file has a negative size")
    return regular


def _hashing(blob: Blob, digest: str) -> tuple[Blob, Callable[[], None]]:
    """The blob, hashed as it passes, and what compares the hash with the digest in the end."""
    kind, _, promised = digest.partition(":")
    state = hashlib.new(kind)

    def passing(begin: int, end: int | None) -> Iterator[bytes]:
        for piece in blob(begin, end):
            state.update(piece)
            yield piece

    def check() -> None:
        if state.hexdigest() != promised:
            raise UnreadableError(
                UnreadableReason.CORRUPT,
                digest,
                f"the layer's bytes have the {kind} {state.hexdigest()}: it was damaged in the store or on the way; "
                "publish it again",
            )

    return passing, check


def _require_small(count: int, digest: str) -> None:
    if not 0 <= count <= _LARGEST_HEADER:
        raise UnreadableError(
            UnreadableReason.TOO_LARGE, digest, f"a header in the layer's archive would have {count} bytes"
        )


def _require_forward(position: int, target: int, digest: str) -> None:
    if target < position:
        raise UnreadableError(
            UnreadableReason.CORRUPT, digest, "the headers in the layer's archive lead in a circle"
        )


def _cut_off(digest: str) -> UnreadableError:
    return UnreadableError(
        UnreadableReason.TRUNCATED,
        digest,
        "the layer's archive ends in the middle of a file; publish it again",
    )

"""Files of remote versions on the local disk: fetched once, resumed where they broke off, deleted when room is needed."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from layerwatch.daemon.registries.base import Progress, RegistryReason, RegistryUnavailable
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

_LOGGER = logging.getLogger(__name__)

_PART = ".part"
_ANEW = "-anew"
_PRIVATE = 0o700
"""Rights of the folder: the weights may be nobody else's business."""

_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts that bring nothing; an attempt that brings a fair part begins them anew."""

_FAIR_PART = 2**20
"""Bytes; of smaller files a hundredth. Less does not count, or a few bytes at a time would go on for ever."""

_SPARE = 64 * 2**20
"""Room on the disk that is left to others."""

_LONGEST_NAME = 255
_LONGEST_PATH = 1024

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_RIGHTS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

_TRY_AGAIN = frozenset({RegistryReason.UNREACHABLE, RegistryReason.SERVER_ERROR, RegistryReason.IO_ERROR})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a version in a remote registry.

    Attributes:
        path: inside the version, with ``/``.
        size_bytes: its size.
        identity: changes when its bytes may have changed: an ETag, a digest, a version id.
        sha256: of its bytes, in hex, as far as the registry promises it.
        address: where its bytes are, in the registry's own terms.
    """

    path: str
    size_bytes: int
    identity: str
    sha256: str | None = None
    address: str = ""


Stream = Callable[[RemoteFile, int], Iterator[bytes]]
"""The bytes of a file from a position on; raises RegistryUnavailable, also half-way."""


class Downloads:
    """A folder of downloads, shared by all registries and threads of one process.

    Args:
        folder: made when it is needed; nothing else may lie in it.
        size_limit: bytes that the downloads may take in all.
        wait: sleeps that many seconds.
    """

    def __init__(self, folder: Path, size_limit: int, wait: Callable[[float], object] = time.sleep) -> None:
        self._folder = folder
        self._size_limit = size_limit
        self._wait = wait
        self._guard = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self._users: dict[str, int] = {}
        # Bytes that the versions in use take when they are complete; and those whose newer copy lies beside them.
        self._needed: dict[str, int] = {}
        self._outdated: set[str] = set()

    def holds(self, version: str, files: Sequence[RemoteFile], place: str = "") -> bool:
        """Whether all files are there already; raises UnreadableError for paths that lead out of the version."""
        _require_sound_paths(version, files)
        folder = self._folder / _key(place, version, files)
        return all((folder / file.path).is_file() for file in files)

    @contextmanager
    def fetched(
        self,
        version: str,
        files: Sequence[RemoteFile],
        stream: Stream,
        progress: Progress,
        anew: bool = False,
        place: str = "",
    ) -> Iterator[Path]:
        """A folder that holds the files under their paths, valid inside the context.

        Args:
            version: what the files belong to; with their identities it says which downloads are the same.
            anew: fetch them again, even where they are there.
            place: the registry; what another one says of the same names and identities are other files.

        Raises:
            RegistryUnavailable: they cannot be fetched now, or there is no room for them.
            UnreadableError: a path leads out of the version, or the bytes are not what was promised.
        """
        _require_sound_paths(version, files)
        key = _key(place, version, files)
        needed = sum(file.size_bytes for file in files)
        if anew:
            with self._fetched_anew(key, files, needed, stream, progress) as folder:
                yield folder
            return
        folder = self._folder / key
        with self._used(key):
            with self._lock(key):
                self._fill(folder, files, needed, stream, progress)
            yield folder

    @contextmanager
    def _fetched_anew(
        self, key: str, files: Sequence[RemoteFile], needed: int, stream: Stream, progress: Progress
    ) -> Iterator[Path]:
        """Fetch into a folder beside, which then takes the place of the one that is there, unless somebody reads that."""
        beside = key + _ANEW
        folder = self._folder / beside
        # The lock is held to the end: whoever comes next deletes what this one reads.
        with self._used(beside), self._lock(beside):
            shutil.rmtree(folder, ignore_errors=True)
            self._fill(folder, files, needed, stream, progress)
            with self._guard:
                if self._users.get(key):
                    self._outdated.add(key)
                else:
                    shutil.rmtree(self._folder / key, ignore_errors=True)
            try:
                yield folder
            finally:
                with self._guard:
                    if self._users.get(key) or (self._folder / key).exists():
                        shutil.rmtree(folder, ignore_errors=True)
                    else:
                        folder.rename(self._folder / key)

    def _fill(
        self, folder: Path, files: Sequence[RemoteFile], needed: int, stream: Stream, progress: Progress
    ) -> None:
        with _on_disk(self._folder):
            self._make_room(folder.name, needed)
            folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            self._fetch(folder / file.path, file, stream, progress)
        with _on_disk(folder):
            os.utime(folder)

    def _fetch(self, target: Path, file: RemoteFile, stream: Stream, progress: Progress) -> None:
        part = target.with_name(target.name + _PART)
        with _on_disk(part.parent):
            if target.is_file() and target.stat().st_size == file.size_bytes:
                return
            part.parent.mkdir(parents=True, exist_ok=True)
        whole = not part.exists()
        self._bring(part, file, stream, progress)
        try:
            _require_promised(part, file, progress)
        except UnreadableError:
            part.unlink()
            if whole:
                raise
            # What was left of an earlier attempt may have been the culprit.
            self._bring(part, file, stream, progress)
            try:
                _require_promised(part, file, progress)
            except UnreadableError:
                part.unlink()
                raise
        with _on_disk(part.parent):
            part.replace(target)

    def _bring(self, part: Path, file: RemoteFile, stream: Stream, progress: Progress) -> None:
        """Fetch what is missing, in as many attempts as bring something."""
        fair = min(_FAIR_PART, file.size_bytes // 100 + 1)
        failures = 0
        while True:
            begin = _length(part)
            try:
                self._append(part, file, begin, stream, progress)
                return
            except RegistryUnavailable as error:
                failures = 1 if _length(part) - begin >= fair else failures + 1
                if error.reason not in _TRY_AGAIN or failures > len(_PAUSES):
                    raise
                _LOGGER.info("%s broke off after %d bytes and is resumed: %s", file.path, begin, error)
            self._wait(_PAUSES[failures - 1])
            progress()

    def _append(self, part: Path, file: RemoteFile, begin: int, stream: Stream, progress: Progress) -> None:
        with _on_disk(part.parent):
            if begin > file.size_bytes:
                part.unlink()
                begin = 0
            if begin == file.size_bytes:
                part.touch()
                return
            size = begin
            with part.open("ab") as output:
                for block in _blocks(stream, file, begin):
                    size += len(block)
                    if size > file.size_bytes:
                        break
                    output.write(block)
                    progress()
        if size > file.size_bytes:
            part.unlink()
            raise UnreadableError(
                UnreadableReason.CHANGED_WHILE_READING,
                file.path,
                f"more bytes came than the {file.size_bytes} that the registry lists",
            )
        if size < file.size_bytes:
            detail = f"{file.path} ended after {size} of {file.size_bytes} bytes"
            raise RegistryUnavailable(RegistryReason.UNREACHABLE, detail)

    def _make_room(self, key: str, needed: int) -> None:
        if needed > self._size_limit:
            raise RegistryUnavailable(
                RegistryReason.NO_SPACE,
                f"the version has {needed} bytes and downloads.size_limit is {self._size_limit}: raise it",
            )
        self._folder.mkdir(_PRIVATE, parents=True, exist_ok=True)
        with self._guard:
            held = {entry: _size(entry) for entry in self._folder.iterdir() if entry.is_dir()}
            mine = held.pop(self._folder / key, 0)
            # What others are about to fetch is as good as there.
            coming = {
                name: max(0, size - held.get(self._folder / name, 0))
                for name, size in self._needed.items()
                if name != key
            }
            free = shutil.disk_usage(self._folder).free - _SPARE - sum(coming.values())
            taken = sum(held.values()) + sum(coming.values()) + needed
            missing = needed - mine
            for entry in sorted(held, key=_last_used):
                if taken <= self._size_limit and missing <= free:
                    break
                if self._users.get(entry.name):
                    continue
                shutil.rmtree(entry, ignore_errors=True)
                free += held[entry]
                taken -= held[entry]
            if taken <= self._size_limit and missing <= free:
                self._needed[key] = needed
                return
        if missing > free:
            raise RegistryUnavailable(
                RegistryReason.NO_SPACE,
                f"{self._folder} has room for {max(0, free)} bytes and {missing} are needed: free some, or set "
                "downloads.path",
            )
        raise RegistryUnavailable(
            RegistryReason.NO_SPACE,
            f"{taken} bytes would be in use at the same time and downloads.size_limit is {self._size_limit}: raise it",
        )

    @contextmanager
    def _used(self, key: str) -> Iterator[None]:
        with self._guard:
            self._users[key] = self._users.get(key, 0) + 1
        try:
            yield
        finally:
            with self._guard:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key]
                    self._busy.pop(key, None)
                    self._needed.pop(key, None)
                    if key in self._outdated:
                        self._outdated.remove(key)
                        shutil.rmtree(self._folder / key, ignore_errors=True)

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        with self._guard:
            lock = self._busy.setdefault(key, threading.Lock())
        with lock:
            yield


@contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    """Tell what a local disk refuses as what it is."""
    try:
        yield
    except OSError as error:
        reason = RegistryReason.IO_ERROR
        if error.errno in _NO_ROOM:
            reason = RegistryReason.NO_SPACE
        elif error.errno in _NO_RIGHTS:
            reason = RegistryReason.NOT_PERMITTED
        detail = f"{folder}: {error.strerror or error}: set downloads.path to a disk with room that may be written to"
        raise RegistryUnavailable(reason, detail) from error


def _blocks(stream: Stream, file: RemoteFile, begin: int) -> Iterator[bytes]:
    try:
        yield from stream(file, begin)
    except OSError as error:
        # Not the local disk's: a client lets its own trouble through.
        detail = f"{file.path} broke off: {type(error).__name__}"
        raise RegistryUnavailable(RegistryReason.UNREACHABLE, detail) from error


def _key(place: str, version: str, files: Sequence[RemoteFile]) -> str:
    names = ascii((place, version, sorted((file.path, file.size_bytes, file.identity) for file in files)))
    return hashlib.sha256(names.encode()).hexdigest()[:40]


def _require_sound_paths(version: str, files: Sequence[RemoteFile]) -> None:
    """Raise UnreadableError unless each file has a place of its own inside the version's folder."""
    places: set[str] = set()
    folders: set[str] = set()
    for file in files:
        path = PurePosixPath(file.path)
        if not _is_sound(path, file) or file.path in places or file.path + _PART in places:
            raise _foreign(version, file)
        places |= {file.path, file.path + _PART}
        folders.update(str(parent) for parent in path.parents)
    for file in files:
        if file.path in folders or file.path + _PART in folders:
            raise _foreign(version, file)


def _is_sound(path: PurePosixPath, file: RemoteFile) -> bool:
    try:
        lengths = [len(os.fsencode(part)) for part in path.parts]
    except UnicodeEncodeError:
        return False
    return (
        file.size_bytes >= 0
        and bool(lengths)
        and file.path == str(path)
        and not path.is_absolute()
        and ".." not in path.parts
        and "\0" not in file.path
        and "\\" not in file.path
        and max(lengths) + len(_PART) <= _LONGEST_NAME
        and sum(lengths) + len(lengths) <= _LONGEST_PATH
    )


def _foreign(version: str, file: RemoteFile) -> UnreadableError:
    return UnreadableError(
        UnreadableReason.CORRUPT, version, f"it names a file that cannot be its own: {file.path[:200]!r}"
    )


def _require_promised(part: Path, file: RemoteFile, progress: Progress) -> None:
    if file.sha256 is None:
        return
    state = hashlib.sha256()
    with _on_disk(part.parent), part.open("rb") as stream:
        while block := stream.read(2**20):
            state.update(block)
            progress()
    if state.hexdigest() != file.sha256:
        raise UnreadableError(
            UnreadableReason.CORRUPT,
            file.path,
            f"its bytes have the sha256 {state.hexdigest()} and the registry promises {file.sha256}: it was damaged "
            "in the store or on the way; publish it again",
        )


def _length(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _size(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(path, name).stat().st_size
    return total


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0

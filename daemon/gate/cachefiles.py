"""A folder of small files that are written whole, checked when they are read, and dropped oldest first.

Any number of processes may use the folder at the same time. A file that was cut short or changed is dropped, never
believed; against somebody who may write to the folder there is no protection.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_SUFFIX = ".layerwatch"
_TEMPORARY = ".writing-"
_ABANDONED_SECONDS = 86_400.0


class CacheFiles:
    """Entries of JSON lines by key.

    Args:
        folder: made with the first entry, readable by its owner only.
        limit: bytes that all entries together may take; the newest one always stays.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self._limit = limit

    @property
    def is_empty(self) -> bool:
        """Whether there is no entry, or none that can be read."""
        try:
            return not any(path.suffix == _SUFFIX for path in self.folder.iterdir())
        except OSError:
            return True

    def read(self, key: dict[str, str]) -> list[dict[str, Any]] | None:
        """The lines of an entry, which counts as used now; None where there is none, or a damaged one."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        lines = _checked(content, key)
        if lines is None:
            self._drop(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return lines

    def write(self, key: dict[str, str], lines: Iterable[dict[str, Any]]) -> None:
        """Keep an entry in place of the one with the same key.

        Raises:
            OSError: the folder cannot be written to.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=_TEMPORARY)
        path = self._path(key)
        try:
            state = hashlib.sha256()
            with os.fdopen(handle, "wb") as file:
                for line in ({"key": key}, *lines):
                    encoded = json.dumps(line, separators=(",", ":")).encode() + b"\n"
                    state.update(encoded)
                    file.write(encoded)
                file.write(state.hexdigest().encode() + b"\n")
            Path(temporary).replace(path)
        except BaseException:
            self._drop(Path(temporary))
            raise
        self._shrink(path)

    def drop(self, key: dict[str, str]) -> None:
        """Forget an entry."""
        self._drop(self._path(key))

    def _path(self, key: dict[str, str]) -> Path:
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{name}{_SUFFIX}"

    def _shrink(self, newest: Path) -> None:
        found: list[tuple[float, int, Path]] = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                with contextlib.suppress(OSError):
                    status = path.stat()
                    if path.suffix == _SUFFIX:
                        found.append((status.st_mtime, status.st_size, path))
                    elif path.name.startswith(_TEMPORARY) and _is_abandoned(status.st_mtime):
                        self._drop(path)
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            if path != newest:
                self._drop(path)
                total -= size

    def _drop(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()


def _is_abandoned(changed: float) -> bool:
    """Whether a file that somebody began to write a day ago will never be finished."""
    return time.time() - changed > _ABANDONED_SECONDS


def _checked(content: bytes, key: dict[str, str]) -> list[dict[str, Any]] | None:
    body, newline, digest = content.removesuffix(b"\n").rpartition(b"\n")
    body += newline
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    try:
        first, *lines = [json.loads(line) for line in body.splitlines()]
    except (ValueError, RecursionError):
        return None
    return lines if first == {"key": key} else None

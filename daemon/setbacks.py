"""Why the last attempt at a version failed, while it waits for the next. In memory: a restart begins anew."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from layerwatch.metrics.errors import UnreadableError

MOST = 1000
"""Versions that are remembered; of more, the oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Setback:
    """What went wrong, in a word of the closed list and in words. An error itself would keep alive what it passed."""

    reason: str
    detail: str


class Setbacks:
    """Used by all scan loops, and by whoever asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, Setback] = {}

    def note(self, version_id: int, error: UnreadableError) -> None:
        """An attempt failed, and there will be another one."""
        with self._lock:
            self._known.pop(version_id, None)
            self._known[version_id] = Setback(str(error.reason), error.detail)
            if len(self._known) > MOST:
                del self._known[next(iter(self._known))]

    def forget(self, version_id: int) -> None:
        """The version was examined, or given up."""
        with self._lock:
            self._known.pop(version_id, None)

    def known(self) -> Mapping[int, Setback]:
        """Version row -> what went wrong."""
        with self._lock:
            return dict(self._known)

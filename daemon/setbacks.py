"""Why the last attempt at a version failed, while it waits for the next. In memory: a restart begins anew."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from layerwatch.metrics.errors import UnreadableError


class Setbacks:
    """Used by all scan loops, and by whoever asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: dict[int, UnreadableError] = {}

    def note(self, version_id: int, error: UnreadableError) -> None:
        """An attempt failed, and there will be another one."""
        with self._lock:
            self._errors[version_id] = error

    def forget(self, version_id: int) -> None:
        """The version was examined, or given up."""
        with self._lock:
            self._errors.pop(version_id, None)

    def known(self) -> Mapping[int, UnreadableError]:
        """Version row -> what went wrong."""
        with self._lock:
            return dict(self._errors)

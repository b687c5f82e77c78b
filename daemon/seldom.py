"""What is worth a line in the log, and what is only counted."""

from __future__ import annotations

from datetime import datetime, timedelta
from threading import Lock


class Seldom:
    """Tells what is worth a line in the log from what was told a moment ago. Safe for several threads."""

    def __init__(self, pause: timedelta, limit: int = 1000) -> None:
        self._pause = pause
        self._limit = limit
        self._told: dict[str, datetime] = {}
        self._lock = Lock()

    def is_news(self, what: str, now: datetime) -> bool:
        """Whether this was not told within the pause; notes that it is told now."""
        with self._lock:
            before = self._told.get(what)
            if before is not None and now - before < self._pause:
                return False
            if len(self._told) >= self._limit:
                self._told.clear()
            self._told[what] = now
            return True

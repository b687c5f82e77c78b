"""The end of what works for one registry: taken out of the configuration, or replaced by another generation."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Retirement:
    """Set once; after that nothing that belongs to the registry is counted or written any more."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """What is under way changes nothing more."""
        with self._lock:
            self._set.set()

    def has_begun(self) -> bool:
        """Whether it is over."""
        return self._set.is_set()

    def unless_begun(self, act: Callable[[], object]) -> bool:
        """Do something that must not happen after the end (series of a registry are dropped with it); True when done."""
        with self._lock:
            if self._set.is_set():
                return False
            act()
            return True

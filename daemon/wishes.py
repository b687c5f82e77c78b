"""What is asked of the daemon's main thread: by signals, and by other threads."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from queue import Empty, SimpleQueue


class Wish(Enum):
    """What the main thread can be asked for."""

    STOP = "stop"
    RELOAD = "reload"


_WISH_OF: Mapping[int, Wish] = {
    signal.SIGTERM: Wish.STOP,
    signal.SIGINT: Wish.STOP,
    signal.SIGHUP: Wish.RELOAD,
}

_SIGNAL_SEEN_WITHIN = 1.0
"""Seconds."""


class Wishes:
    """Wishes in the order in which they came. ``next`` is called by one thread."""

    def __init__(self) -> None:
        # Handlers run inside the thread that may be waiting: of all ways to wake it, only this one is reentrant.
        self._queue: SimpleQueue[Wish] = SimpleQueue()

    def put(self, wish: Wish) -> None:
        """Leave a wish; returns at once."""
        self._queue.put(wish)

    def next(self) -> Wish:
        """Wait for a wish; however often a reload was asked for meanwhile, it is done once."""
        while True:
            # A signal between Python's last look for signals and the wait would be seen only after the wait.
            with suppress(Empty):
                wish = self._queue.get(timeout=_SIGNAL_SEEN_WITHIN)
                while wish is Wish.RELOAD and not self._queue.empty():
                    wish = self._queue.get()
                return wish

    @contextmanager
    def from_signals(self, *numbers: signal.Signals) -> Iterator[None]:
        """Handlers that only leave a wish; nothing is done inside a handler. Without effect outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, lambda number, frame: self.put(_WISH_OF[number]))
            for number in numbers
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

"""Looks at a daemon again and again, and waits longer while it cannot be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from layerwatch.daemon.following.asking import Daemon, DaemonUnreachableError
from layerwatch.daemon.following.seen import Look

INTERVAL = 2.0
"""Seconds between two looks."""

LONGEST_WAIT = 60.0
"""Seconds between two attempts at most."""


class Shows(Protocol):
    """Whoever shows what was found."""

    def found(self, look: Look) -> None:
        """The daemon answered."""

    def lost(self, why: str, wait: float) -> None:
        """It did not; the next attempt is in so many seconds."""


def follow(daemon: Daemon, shows: Shows, pause: Callable[[float], None]) -> None:
    """Never returns by itself; what ``pause`` raises ends it.

    Args:
        pause: sleeps for so many seconds.
    """
    failures = 0
    while True:
        try:
            look = daemon.look()
        except DaemonUnreachableError as error:
            wait = min(INTERVAL * 2**failures, LONGEST_WAIT)
            failures = min(failures + 1, 10)
            shows.lost(str(error), wait)
        else:
            failures, wait = 0, INTERVAL
            shows.found(look)
        pause(wait)

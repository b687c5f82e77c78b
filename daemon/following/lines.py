"""A line for each event, where nobody can redraw a screen: logs and pipes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from layerwatch.daemon.following.events import beginning, happened
from layerwatch.daemon.following.seen import Look
from layerwatch.daemon.gate.printable import printable


class Lines:
    """Tells what happens.

    Args:
        address: of the daemon, without secrets.
        write: takes a line without its end.
        clock: the time, in UTC.
    """

    def __init__(self, address: str, write: Callable[[str], None], clock: Callable[[], datetime]) -> None:
        self._address = address
        self._write = write
        self._clock = clock
        self._last: Look | None = None
        self._why = ""

    def found(self, look: Look) -> None:
        """Tell what is new."""
        if self._why:
            self._tell(f"{self._address} answers again")
            self._why = ""
        if self._last is None:
            self._tell(f"following {self._address}")
        for line in beginning(look) if self._last is None else happened(self._last, look):
            self._tell(line)
        self._last = look

    def lost(self, why: str, wait: float) -> None:
        """Tell once why there is nothing to tell."""
        if why != self._why:
            self._tell(f"{self._address} cannot be followed now: {why}; trying again from time to time")
            self._why = why

    def _tell(self, line: str) -> None:
        self._write(printable(f"{self._clock():%Y-%m-%dT%H:%M:%SZ} {line}"))

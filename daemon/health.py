"""Liveness tied to the loops: a daemon whose loops stand still is not healthy, whatever its HTTP port says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class LateLoop:
    """A loop that did not report in time."""

    loop: str
    silent_for: timedelta
    limit: timedelta

    def __str__(self) -> str:
        return (
            f"loop {self.loop} has been silent for {self.silent_for.total_seconds():.0f} s "
            f"(limit {self.limit.total_seconds():.0f} s)"
        )


@dataclass(frozen=True, slots=True)
class Beat:
    """When a loop was last known to be alive.

    Attributes:
        limit: it is late when it is silent for longer.
    """

    loop: str
    last: datetime
    limit: timedelta


class Heartbeats:
    """When each loop was last known to be alive. Used by every thread."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._loops: dict[str, tuple[datetime, timedelta]] = {}

    def expect(self, loop: str, limit: timedelta) -> None:
        """From now on the loop must report at least this often."""
        with self._lock:
            self._loops[loop] = (self._clock(), limit)

    def forget(self, loop: str) -> None:
        """The loop was ended on purpose."""
        with self._lock:
            self._loops.pop(loop, None)

    def beat(self, loop: str) -> None:
        """The loop is alive."""
        with self._lock:
            known = self._loops.get(loop)
            if known is not None:
                self._loops[loop] = (self._clock(), known[1])

    def late(self) -> list[LateLoop]:
        """Loops over their limit, by name; empty means healthy."""
        now = self._clock()
        return [
            LateLoop(beat.loop, now - beat.last, beat.limit)
            for beat in self.beats()
            if now - beat.last > beat.limit
        ]

    def beats(self) -> list[Beat]:
        """The last beat of every loop, by name."""
        with self._lock:
            loops = sorted(self._loops.items())
        return [Beat(name, last, limit) for name, (last, limit) in loops]

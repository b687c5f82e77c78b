"""How long a server may take: for an answer in all, and for the bytes of a file at the least.

The timeout of a socket is counted anew with each byte, so that a server that sends one at a time holds its client for
as long as it likes. Where such bytes never come out as a block (they may be in the framing, or vanish in a
decompressor), only another thread can end it: it cuts the connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread, Timer
from typing import Self

from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable

PATIENCE = 4
"""So many times the timeout an answer may take, and a file's bytes may come too slowly."""

SHORTEST = timedelta(seconds=10)
"""So long an answer may take, however short the timeout is."""

SLOWEST = 1024
"""Bytes per second; less than that on average is none that anybody waits for."""

Clock = Callable[[], float]
"""Seconds that only grow."""

Cut = Callable[[], object]
"""Ends a connection from another thread: whoever reads from it reads its end, or an error."""


def cut_nothing() -> None:
    """There is nothing that could be cut."""


def longest(timeout: timedelta) -> timedelta:
    """How long one answer may take in all."""
    return max(PATIENCE * timeout, SHORTEST)


@contextmanager
def cut_off(after: timedelta, cut: Cut) -> Iterator[Event]:
    """Cut when what is done inside takes longer; the event tells whether that has happened."""
    happened = Event()

    def end() -> None:
        happened.set()
        cut()

    timer = Timer(after.total_seconds(), end)
    timer.daemon = True
    timer.start()
    try:
        yield happened
    finally:
        timer.cancel()


class Deadline:
    """The end of the time for one answer, which begins now.

    Args:
        asked: what was asked for, for the error.
        timeout: as configured.
    """

    def __init__(self, asked: str, timeout: timedelta, clock: Clock = time.monotonic) -> None:
        self._asked = asked
        self._limit = longest(timeout)
        self._clock = clock
        self._end = clock() + self._limit.total_seconds()

    def kept(self, blocks: Iterable[bytes], cut: Cut = cut_nothing) -> Iterator[bytes]:
        """The blocks of the answer; raises RegistryUnavailable (UNREACHABLE) when they take too long."""
        pieces = iter(blocks)
        with cut_off(timedelta(seconds=max(0.0, self._left())), cut):
            while True:
                try:
                    block = next(pieces, None)
                except Exception as error:
                    if self._left() <= 0:
                        raise self._passed() from error
                    raise
                if self._left() <= 0:
                    raise self._passed()
                if block is None:
                    return
                yield block

    def _left(self) -> float:
        return self._end - self._clock()

    def _passed(self) -> RegistryUnavailable:
        return RegistryUnavailable(
            RegistryReason.UNREACHABLE,
            f"{self._asked}: the answer was not there as a whole after {self._limit.total_seconds():g} s: look at the "
            "server and the network, or raise timeout",
        )


def paced(
    blocks: Iterable[bytes],
    asked: str,
    timeout: timedelta,
    cut: Cut = cut_nothing,
    clock: Clock = time.monotonic,
) -> Iterator[bytes]:
    """The blocks of a file, as long as they come at a pace that leads somewhere.

    Only the time counts in which somebody waits for the next block.

    Args:
        asked: what was asked for, for the error.
        timeout: as configured; the pace is looked at every four times as long.

    Raises:
        RegistryUnavailable: UNREACHABLE, when less than `SLOWEST` bytes came per second.
    """
    window = (PATIENCE * timeout).total_seconds()
    pieces = iter(blocks)
    waited, came = 0.0, 0
    with _Watch(window, cut) as watch:
        while True:
            begin = clock()
            watch.waiting = True
            try:
                block = next(pieces, None)
            except Exception as error:
                if watch.has_cut:
                    raise _too_slow(asked, window) from error
                raise
            finally:
                watch.waiting = False
            if watch.has_cut:
                raise _too_slow(asked, window)
            if block is None:
                return
            watch.blocks += 1
            waited += clock() - begin
            came += len(block)
            if waited >= window:
                if came < SLOWEST * waited:
                    raise _too_slow(asked, window)
                waited, came = 0.0, 0
            yield block


class _Watch:
    """A thread that cuts when somebody waits and no block at all comes in the time of two windows."""

    def __init__(self, window: float, cut: Cut) -> None:
        self.waiting = False
        self.blocks = 0
        self.has_cut = False
        self._window = window
        self._cut = cut
        self._over = Event()

    def __enter__(self) -> Self:
        if self._cut is not cut_nothing:
            Thread(target=self._look, name="pace", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def _look(self) -> None:
        seen = -1
        while not self._over.wait(self._window):
            if self.waiting and self.blocks == seen:
                self.has_cut = True
                self._cut()
                return
            seen = self.blocks if self.waiting else -1


def _too_slow(asked: str, window: float) -> RegistryUnavailable:
    return RegistryUnavailable(
        RegistryReason.UNREACHABLE,
        f"{asked}: less than {SLOWEST} bytes per second came for {window:g} s: look at the server and the network",
    )

"""The loops that deliver: a thread for each receiver, so that a slow one delays no other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from layerwatch.alerts.dispatcher import Dispatcher
from layerwatch.daemon.health import Heartbeats
from layerwatch.daemon.seldom import Seldom
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.telemetry import DaemonTelemetry

_LOGGER = logging.getLogger(__name__)

LOOP = "dispatch"
_EVERY = 1.0
"""Seconds between two looks at what is due, when nothing was queued meanwhile."""


class DeliveryLoops:
    """Delivers to every configured receiver until stopped.

    Args:
        dispatcher: does one turn.
        heartbeats: a loop ``dispatch:NAME`` for each receiver.
        telemetry: counts errors and times turns.
        clock: tz-aware time now.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        heartbeats: Heartbeats,
        telemetry: DaemonTelemetry,
        clock: Callable[[], datetime],
    ) -> None:
        self._dispatcher = dispatcher
        self._heartbeats = heartbeats
        self._telemetry = telemetry
        self._clock = clock
        self._loops: dict[str, _Loop] = {}
        self._ended: dict[str, _Loop] = {}
        self._troubles = Seldom(timedelta(minutes=10))

    def serve(self, receivers: Iterable[str], limit: timedelta) -> None:
        """Have one loop for each of these receivers and for no other.

        Args:
            limit: a loop is late when it is silent for longer.
        """
        wanted = set(receivers)
        for name in self._loops.keys() - wanted:
            self._ended[name] = self._loops.pop(name)
            self._ended[name].ask_to_stop()
            self._heartbeats.forget(loop_of(name))
        for name in sorted(wanted):
            self._heartbeats.expect(loop_of(name), limit)
            if name not in self._loops:
                self._loops[name] = _Loop(name, self._turn, self._ended.pop(name, None))
                self._loops[name].start()

    def alive(self, receiver: str) -> None:
        """A turn of this receiver goes on."""
        if receiver in self._loops:
            self._heartbeats.beat(loop_of(receiver))

    def wake(self, receivers: Iterable[str]) -> None:
        """Something was queued for these."""
        for name in receivers:
            loop = self._loops.get(name)
            if loop is not None:
                loop.wake()

    def stop(self, patience: timedelta) -> None:
        """End all loops; what is being sent may go on for a while, and is sent again at the next start."""
        deadline = time.monotonic() + patience.total_seconds()
        loops, self._loops = list(self._loops.values()), {}
        for loop in loops:
            loop.ask_to_stop()
        for loop in loops:
            loop.join(max(0.0, deadline - time.monotonic()))

    def _turn(self, name: str, stopping: Callable[[], bool]) -> None:
        loop = loop_of(name)
        try:
            with self._telemetry.cycle_duration.labels(LOOP).time():
                self._dispatcher.deliver(name, stopping)
        except StoreError as error:
            if stopping():
                return
            news = self._troubles.is_news(f"{loop} {error.reason}", self._clock())
            _LOGGER.log(
                logging.ERROR if news else logging.DEBUG, "loop %s waits for the store: %s", loop, error
            )
            self._telemetry.cycle_errors.labels(LOOP).inc()
        except Exception:
            _LOGGER.exception("unexpected error in loop %s; please report it", loop)
            self._telemetry.cycle_errors.labels(LOOP).inc()
        finally:
            self.alive(name)


def loop_of(receiver: str) -> str:
    """Name of a receiver's loop."""
    return f"{LOOP}:{receiver}"


class _Loop(threading.Thread):
    def __init__(
        self, name: str, turn: Callable[[str, Callable[[], bool]], None], before: _Loop | None
    ) -> None:
        super().__init__(name=f"layerwatch-dispatch-{name}", daemon=True)
        self._receiver = name
        self._turn = turn
        self._before = before
        self._stop_asked = threading.Event()
        self._news = threading.Event()

    def wake(self) -> None:
        self._news.set()

    def ask_to_stop(self) -> None:
        self._stop_asked.set()
        self._news.set()

    def run(self) -> None:
        if self._before is not None:
            # One thread at a time serves a receiver: what the other is sending must not be sent again meanwhile.
            self._before.join()
            self._before = None
        while not self._stop_asked.is_set():
            self._news.clear()
            self._turn(self._receiver, self._stop_asked.is_set)
            self._news.wait(_EVERY)

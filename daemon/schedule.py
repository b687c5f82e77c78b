"""The daemon's loops on a schedule: each beats, is timed, and outlives its errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from layerwatch.daemon.health import Heartbeats
from layerwatch.daemon.pipeline import Interrupted
from layerwatch.daemon.seldom import Seldom
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.telemetry import DaemonTelemetry

_LOGGER = logging.getLogger(__name__)

_ORDINARY = "default"
_URGENT = "urgent"
_THREADS = {_ORDINARY: 8, _URGENT: 2}


class Schedule:
    """Runs cycles again and again, each in a loop with a name, until it is ended.

    Args:
        heartbeats: told when a loop is alive.
        telemetry: counts errors, and times each turn by kind of loop (the part of its name before a colon).
        clock: tz-aware time now.
        stopping: whether the daemon is about to end; no turn begins then.
    """

    def __init__(
        self,
        heartbeats: Heartbeats,
        telemetry: DaemonTelemetry,
        clock: Callable[[], datetime],
        stopping: Callable[[], bool],
    ) -> None:
        self._heartbeats = heartbeats
        self._telemetry = telemetry
        self._clock = clock
        self._stopping = stopping
        self._store_troubles = Seldom(timedelta(minutes=10))
        self._turns = 0
        self._turn_ended = threading.Condition()
        self.scheduler = BackgroundScheduler(
            executors={name: ThreadPoolExecutor(max_workers=threads) for name, threads in _THREADS.items()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        # A job that is still running when it is due again is normal here, not worth a warning each second.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)

    def start(self) -> None:
        """Begin the turns that are due."""
        self.scheduler.start()

    def end(self, patience: timedelta) -> None:
        """Begin no more turns; wait a while for those that run, so that what was delivered is noted as delivered."""
        self.scheduler.shutdown(wait=False)
        with self._turn_ended:
            self._turn_ended.wait_for(lambda: self._turns == 0, patience.total_seconds())

    def sooner(self, loop: str, at: datetime) -> None:
        """Let the next turn of a loop begin then; nothing where there is no such loop any more."""
        with suppress(JobLookupError):
            self.scheduler.modify_job(loop, next_run_time=at)

    def next_turn(self, loop: str) -> datetime | None:
        """When the next turn of a loop begins; None where there is none."""
        job = self.scheduler.get_job(loop)
        return None if job is None else job.next_run_time

    def remove(self, loop: str) -> None:
        """End a loop on purpose."""
        self.scheduler.remove_job(loop)
        self._heartbeats.forget(loop)

    def beat_unless_stopping(self, loop: str) -> None:
        """The loop is alive, in the middle of a turn; raises Interrupted when the daemon is about to end."""
        if self._stopping():
            raise Interrupted
        self._heartbeats.beat(loop)

    def add(
        self,
        loop: str,
        cycle: Callable[[], str],
        every: timedelta,
        limit: timedelta,
        first: timedelta = timedelta(),
        jitter: bool = False,
        beats: Callable[[], bool] = lambda: True,
        turns: int = 1,
        urgent: bool = False,
    ) -> None:
        """Run a cycle again and again.

        Args:
            cycle: does the work; a sentence for the log.
            every, first: time between two turns, and before the first.
            limit: the loop is late when it is silent for longer.
            jitter: move each turn a little.
            beats: False while another turn does the work: one that finds nothing to do must not hide its hang.
            turns: so many may run at a time.
            urgent: short, and must not wait until looks at registries have hashed their files.
        """
        seconds = every.total_seconds()
        kind = loop.partition(":")[0]

        def turn() -> None:
            with self._turn_ended:
                self._turns += 1
            try:
                if beats():
                    self.beat_unless_stopping(loop)
                with self._telemetry.cycle_duration.labels(kind).time():
                    sentence = cycle()
                _LOGGER.debug("%s", sentence)
            except Interrupted:
                return
            except StoreError as error:
                self._store_trouble(loop, kind, error)
            except Exception:
                _LOGGER.exception("unexpected error in loop %s; please report it", loop)
                self._telemetry.cycle_errors.labels(kind).inc()
            finally:
                if beats():
                    self._heartbeats.beat(loop)
                with self._turn_ended:
                    self._turns -= 1
                    self._turn_ended.notify_all()

        self._heartbeats.expect(loop, limit + first)
        self.scheduler.add_job(
            turn,
            "interval",
            seconds=seconds,
            # Many daemons that start together must not ask one registry at the same second for ever.
            jitter=min(seconds / 10, 30) if jitter else None,
            next_run_time=self._clock() + first,
            id=loop,
            max_instances=turns,
            executor=_URGENT if urgent else _ORDINARY,
        )

    def _store_trouble(self, loop: str, kind: str, error: StoreError) -> None:
        if self._stopping():
            return
        # Once a second for as long as a database server is away is once too often.
        news = self._store_troubles.is_news(f"{loop} {error.reason}", self._clock())
        _LOGGER.log(logging.ERROR if news else logging.DEBUG, "loop %s waits for the store: %s", loop, error)
        self._telemetry.cycle_errors.labels(kind).inc()

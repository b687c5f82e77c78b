"""Takes due events out of the outbox and hands them to their receivers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.outbox import Outbox, OutboxEntry, Result
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.alerts.retry import decide, next_delay
from layerwatch.alerts.telemetry import AlertTelemetry

BATCH = 200
"""Entries that are in memory for one receiver at a time."""

TIME_BUDGET = timedelta(minutes=1)
LONGEST_REST = timedelta(minutes=2)
"""Longest time that a receiver in trouble is left alone, unless it asked for more."""

_SETTLE_AFTER = 0.2
"""Seconds: a crash sends again what was delivered and not yet marked."""

# The receiver is in trouble, not this one event: the next one would fare no better.
_TROUBLES = frozenset(
    {
        DeliveryReason.BAD_SECRET,
        DeliveryReason.CLIENT_ERROR,
        DeliveryReason.CONNECTION,
        DeliveryReason.NAME_RESOLUTION,
        DeliveryReason.RATE_LIMITED,
        DeliveryReason.REDIRECTED,
        DeliveryReason.SERVER_ERROR,
        DeliveryReason.TIMEOUT,
        DeliveryReason.TLS,
    }
)

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class _Health:
    """How a receiver fares, in this process.

    Attributes:
        failures: troubles in a row.
        rested_at, rest_until: left alone from here to there; None when it is not.
        receiver: as it was asked last; another object of the same name was made by a reload, and begins anew.
        gone: it answered 410.
        was_asked: at least once by this process.
        unrecorded: results that the outbox could not take yet.
    """

    failures: int = 0
    rested_at: datetime | None = None
    rest_until: datetime | None = None
    receiver: Receiver | None = None
    gone: bool = False
    was_asked: bool = False
    unrecorded: list[Result] = field(default_factory=list)

    def rests(self, now: datetime) -> bool:
        # A clock that was set back must not make the rest longer.
        return (
            self.rest_until is not None
            and self.rested_at is not None
            and self.rested_at <= now < self.rest_until
        )


@dataclass(slots=True)
class _Turn:
    """One turn: its results that are not recorded yet, and its tally."""

    began: datetime
    results: list[Result] = field(default_factory=list)
    untried: list[int] = field(default_factory=list)
    held_up: set[str] = field(default_factory=set)
    recorded_at: float = 0.0
    delivered: int = 0
    failed: int = 0
    given_up: int = 0
    over: bool = False

    def __str__(self) -> str:
        return f"{self.delivered} delivered, {self.failed} failed, {self.given_up} given up"


class Dispatcher:
    """Delivers at least once: an entry is marked done only after its receiver took it.

    A crash between the two sends the event again under the same id. Events of one stream (one group of alerts, for one
    receiver) arrive in order: while one of them waits to be tried again, those behind it wait, too. A receiver in trouble
    is left alone for a while, rising to two minutes, and then asked with one event; one that answers 410 is asked no
    more until the configuration is loaded again, and its events are given up, to be seen and replayed.

    Args:
        outbox: where events wait.
        receivers: asked for the receivers of the moment, by name.
        telemetry: counters.
        clock: tz-aware time now.
        alive: called while a turn goes on.
    """

    def __init__(
        self,
        outbox: Outbox,
        receivers: Callable[[], Mapping[str, Receiver]],
        telemetry: AlertTelemetry,
        clock: Callable[[], datetime],
        alive: Callable[[str], None] = lambda receiver: None,
    ) -> None:
        self._outbox = outbox
        self._receivers = receivers
        self._telemetry = telemetry
        self._clock = clock
        self._alive = alive
        self._health: dict[str, _Health] = {}
        self._lock = threading.Lock()

    def deliver(self, name: str, stopping: Callable[[], bool] = lambda: False) -> str:
        """Try what is due for one receiver; called from one thread for each.

        Returns:
            A sentence for the log: ``3 delivered, 1 failed, 0 given up``. Whatever a receiver raises ends as a failed
            attempt; only errors of the outbox itself come out of here.
        """
        turn = _Turn(self._clock())
        receiver = self._receivers().get(name)
        if receiver is None:
            return str(turn)
        health = self._health_of(name)
        if health.receiver is not receiver:
            self._begin_anew(receiver, health, turn)
        # First of all: what was delivered must not be sent again because the outbox could not be written for a while.
        self._record(turn, health)
        if health.was_asked:
            # A clock that is wrong when the daemon starts must not cost what nobody tried to deliver.
            self._expire(receiver, turn)
        if health.gone:
            self._give_all_up(receiver, turn, health)
            return str(turn)
        if health.rests(turn.began):
            return str(turn)
        while not turn.over and not stopping() and self._clock() - turn.began < TIME_BUDGET:
            entries = self._outbox.claim(name, self._clock(), BATCH)
            if not entries:
                break
            # What is behind an entry that waits is not among these; one whose time came meanwhile is tried again.
            turn.held_up.clear()
            try:
                for entry in entries:
                    if turn.over or stopping() or entry.stream in turn.held_up:
                        turn.untried.append(entry.id)
                    else:
                        self._try(receiver, entry, health, turn)
            finally:
                self._record(turn, health)
        if turn.delivered or turn.failed or turn.given_up:
            _LOGGER.info("receiver %s: %s", name, turn)
        return str(turn)

    def is_disabled(self, name: str) -> bool:
        """Whether a receiver answered 410, and is asked no more until the configuration is loaded again."""
        return self._health_of(name).gone

    def _begin_anew(self, receiver: Receiver, health: _Health, turn: _Turn) -> None:
        """Settings that were mended take effect at once, whatever the receiver before them asked for."""
        if health.receiver is not None:
            self._outbox.hurry(receiver.name, turn.began)
        if health.gone:
            self._telemetry.disabled(receiver.name, False)
        health.receiver, health.gone, health.failures, health.rest_until = receiver, False, 0, None

    def _health_of(self, name: str) -> _Health:
        with self._lock:
            return self._health.setdefault(name, _Health())

    def _expire(self, receiver: Receiver, turn: _Turn) -> None:
        detail = f"older than max_age ({receiver.max_age})"
        expired = self._outbox.expire(receiver.name, turn.began - receiver.max_age, turn.began, detail)
        if expired:
            turn.given_up += expired
            for _ in range(expired):
                self._telemetry.failed(receiver.name, DeliveryReason.EXPIRED)
                self._telemetry.gave_up(receiver.name)
            _LOGGER.error("%d events will not reach %s: %s", expired, receiver.name, detail)

    def _give_all_up(self, receiver: Receiver, turn: _Turn, health: _Health) -> None:
        detail = (
            "the receiver answered 410 before: it is asked no more until the configuration is loaded again"
        )
        for entry in self._outbox.claim(receiver.name, turn.began, BATCH):
            self._telemetry.failed(receiver.name, DeliveryReason.GONE)
            self._give_up(entry, DeliveryReason.GONE, detail, turn)
        self._record(turn, health)

    def _try(self, receiver: Receiver, entry: OutboxEntry, health: _Health, turn: _Turn) -> None:
        self._alive(receiver.name)
        health.was_asked = True
        error = self._send(receiver, entry)
        self._telemetry.attempted(receiver.name)
        now = self._clock()
        if error is None:
            health.failures, health.rest_until = 0, None
            turn.results.append(Result(entry.id))
            turn.delivered += 1
            _LOGGER.debug("event %s delivered to %s", entry.event_id, receiver.name)
        else:
            self._telemetry.failed(receiver.name, error.reason)
            self._after_failure(receiver, entry, error, health, turn, now)
        if time.monotonic() - turn.recorded_at > _SETTLE_AFTER:
            self._record(turn, health)

    def _after_failure(
        self,
        receiver: Receiver,
        entry: OutboxEntry,
        error: DeliveryError,
        health: _Health,
        turn: _Turn,
        now: datetime,
    ) -> None:
        if error.reason is DeliveryReason.GONE:
            health.gone = turn.over = True
            self._telemetry.disabled(receiver.name, True)
            _LOGGER.error("receiver %s answered 410: it is told nothing until the next reload", receiver.name)
        if error.retryable and error.reason in _TROUBLES:
            turn.over = True
            health.failures += 1
            rest = next_delay(entry.event_id, health.failures, error.retry_after)
            health.rested_at = now
            health.rest_until = now + (rest if error.retry_after else min(rest, LONGEST_REST))
        # Once the receiver is well again, nothing waits for longer than it was left alone.
        decision = decide(entry, error, receiver.max_age, now, health.rest_until if turn.over else None)
        if decision.next_attempt_at is None:
            if decision.reason is not error.reason:
                self._telemetry.failed(receiver.name, decision.reason)
            self._give_up(entry, decision.reason, decision.detail, turn)
            return
        again = decision.next_attempt_at
        turn.failed += 1
        turn.results.append(Result(entry.id, (decision.reason, decision.detail), again))
        if entry.stream is not None:
            turn.held_up.add(entry.stream)
        _LOGGER.warning(
            "event %s not delivered to %s, tried again at %s: %s",
            entry.event_id,
            entry.receiver,
            again.isoformat(timespec="seconds"),
            error,
        )

    def _send(self, receiver: Receiver, entry: OutboxEntry) -> DeliveryError | None:
        try:
            receiver.send(entry, self._clock())
        except DeliveryError as error:
            return error
        except Exception as error:
            _LOGGER.exception("receiver %s broke down over event %s", receiver.name, entry.event_id)
            detail = f"{type(error).__name__} in receiver {receiver.name}; the log has the traceback"
            return DeliveryError(DeliveryReason.UNEXPECTED, detail, retryable=True)
        return None

    def _give_up(self, entry: OutboxEntry, reason: DeliveryReason, detail: str, turn: _Turn) -> None:
        self._telemetry.gave_up(entry.receiver)
        turn.given_up += 1
        turn.results.append(Result(entry.id, (reason, detail)))
        _LOGGER.error(
            "event %s will not reach %s: %s: %s", entry.event_id, entry.receiver, reason.value, detail
        )

    def _record(self, turn: _Turn, health: _Health) -> None:
        turn.recorded_at = time.monotonic()
        health.unrecorded += turn.results
        turn.results = []
        if health.unrecorded:
            self._outbox.settle(health.unrecorded, self._clock())
            health.unrecorded = []
        untried, turn.untried = turn.untried, []
        if untried:
            self._outbox.release(untried)

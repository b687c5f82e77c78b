"""Takes due events out of the outbox and hands them to their receivers."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.outbox import Outbox, OutboxEntry
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.alerts.retry import decide
from layerwatch.alerts.telemetry import AlertTelemetry

BATCH = 500
MOST_RECEIVERS_AT_ONCE = 8
TIME_BUDGET = timedelta(minutes=1)

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one entry: ``error`` is None when it was delivered; ``tried`` is False when it was not sent."""

    entry: OutboxEntry
    error: DeliveryError | None
    tried: bool = True


@dataclass(slots=True)
class _Tally:
    delivered: int = 0
    failed: int = 0
    given_up: int = 0

    def __str__(self) -> str:
        return f"{self.delivered} delivered, {self.failed} failed, {self.given_up} given up"


@dataclass(slots=True)
class Dispatcher:
    """Delivers at least once: an entry is marked done only after its receiver took it.

    A crash between the two sends the event again under the same id. Order is kept as far as it costs nothing:
    entries of a receiver are tried in the order they were stored, but one that fails does not hold up those
    behind it, so a later event of an alert may arrive before an earlier one. Payloads carry the alert's full
    state and a rising ``sequence``; receivers keep the highest. Receivers are served side by side, so that a
    slow one does not delay the others.

    Attributes:
        outbox: called from the thread that calls `dispatch_due` only.
        receivers: by name; entries of names not in here are given up.
        telemetry: counters.
        clock: tz-aware time now.
    """

    outbox: Outbox
    receivers: Mapping[str, Receiver]
    telemetry: AlertTelemetry
    clock: Callable[[], datetime]
    _tally: _Tally = field(default_factory=_Tally, init=False, repr=False)

    def dispatch_due(self) -> str:
        """Try every due entry once, starting none later than a minute after the call.

        Returns:
            A sentence for the log: ``3 delivered, 1 failed, 0 given up``. Whatever a receiver raises ends as a
            failed attempt; only errors of the outbox itself come out of here.
        """
        self._tally = _Tally()
        began = self.clock()
        waiting: dict[str, list[OutboxEntry]] = {}
        for entry in self.outbox.due(began, BATCH):
            given_up = self._hopeless(entry, began)
            if given_up is not None:
                self._give_up(entry, *given_up)
            else:
                waiting.setdefault(entry.receiver, []).append(entry)
        if waiting:
            self._send_side_by_side(waiting, began + TIME_BUDGET)
        return str(self._tally)

    def _hopeless(self, entry: OutboxEntry, now: datetime) -> tuple[DeliveryReason, str] | None:
        """Why an entry need not be tried at all; None when it must be."""
        receiver = self.receivers.get(entry.receiver)
        if receiver is None:
            detail = f"receiver {entry.receiver} is no longer configured"
            return DeliveryReason.RECEIVER_REMOVED, detail
        if now - entry.created_at > receiver.max_age:
            return DeliveryReason.EXPIRED, f"older than max_age ({receiver.max_age})"
        return None

    def _send_side_by_side(self, waiting: Mapping[str, Sequence[OutboxEntry]], stop_at: datetime) -> None:
        # Threads send, this one records: the outbox needs no lock, and each result is stored as it comes.
        outcomes: queue.SimpleQueue[_Outcome | None] = queue.SimpleQueue()
        with ThreadPoolExecutor(
            max_workers=min(len(waiting), MOST_RECEIVERS_AT_ONCE), thread_name_prefix="layerwatch-send"
        ) as pool:
            for name, entries in waiting.items():
                pool.submit(self._send_in_order, self.receivers[name], entries, stop_at, outcomes)
            unfinished = len(waiting)
            while unfinished:
                outcome = outcomes.get()
                if outcome is None:
                    unfinished -= 1
                else:
                    self._record(outcome)

    def _send_in_order(
        self,
        receiver: Receiver,
        entries: Sequence[OutboxEntry],
        stop_at: datetime,
        outcomes: queue.SimpleQueue[_Outcome | None],
    ) -> None:
        """Send the entries of one receiver; None in ``outcomes`` says that no more come."""
        try:
            timed_out = False
            for entry in entries:
                if timed_out:
                    # Every further entry would cost a whole timeout too.
                    detail = "not tried: the receiver timed out for another event just before"
                    skipped = DeliveryError(DeliveryReason.TIMEOUT, detail, retryable=True)
                    outcomes.put(_Outcome(entry, skipped, tried=False))
                    continue
                if self.clock() >= stop_at:
                    return
                error = self._send(receiver, entry)
                outcomes.put(_Outcome(entry, error))
                timed_out = error is not None and error.reason is DeliveryReason.TIMEOUT
        finally:
            outcomes.put(None)

    def _send(self, receiver: Receiver, entry: OutboxEntry) -> DeliveryError | None:
        try:
            receiver.send(entry, self.clock())
        except DeliveryError as error:
            return error
        except Exception as error:
            _LOGGER.exception("receiver %s broke down over event %s", receiver.name, entry.event_id)
            detail = f"{type(error).__name__} in receiver {receiver.name}; the log has the traceback"
            return DeliveryError(DeliveryReason.UNEXPECTED, detail, retryable=True)
        return None

    def _record(self, outcome: _Outcome) -> None:
        entry, error, now = outcome.entry, outcome.error, self.clock()
        if outcome.tried:
            self.telemetry.attempted(entry.receiver)
        if error is None:
            self.outbox.mark_delivered(entry.id, now)
            self._tally.delivered += 1
            _LOGGER.info("event %s delivered to %s", entry.event_id, entry.receiver)
            return
        decision = decide(entry, error, self.receivers[entry.receiver].max_age, now)
        if decision.next_attempt_at is None:
            if outcome.tried and decision.reason is not error.reason:
                self.telemetry.failed(entry.receiver, error.reason)
            self._give_up(entry, decision.reason, decision.detail)
            return
        if outcome.tried:
            self.telemetry.failed(entry.receiver, error.reason)
        self.outbox.mark_failed(entry.id, now, decision.next_attempt_at, decision.reason, decision.detail)
        self._tally.failed += 1
        _LOGGER.warning(
            "event %s not delivered to %s, tried again at %s: %s",
            entry.event_id,
            entry.receiver,
            decision.next_attempt_at.isoformat(timespec="seconds"),
            error,
        )

    def _give_up(self, entry: OutboxEntry, reason: DeliveryReason, detail: str) -> None:
        self.telemetry.failed(entry.receiver, reason)
        self.telemetry.gave_up(entry.receiver)
        self.outbox.mark_dead(entry.id, self.clock(), reason, detail)
        self._tally.given_up += 1
        _LOGGER.error(
            "event %s will not reach %s: %s: %s", entry.event_id, entry.receiver, reason.value, detail
        )

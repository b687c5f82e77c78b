"""Delivering what is due: at least once, to each receiver on its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Barrier, get_ident

import pytest
from prometheus_client import CollectorRegistry

from alertvalues import NOW, entry, firing
from layerwatch.alerts.dispatcher import Dispatcher
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.outbox import Outbox, OutboxEntry
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.alerts.telemetry import AlertTelemetry


class MemoryOutbox:
    """The outbox's contract in a dictionary, and a diary of what was marked."""

    def __init__(self, *entries: OutboxEntry) -> None:
        self.entries = {each.id: each for each in entries}
        self.dead: dict[int, tuple[DeliveryReason, str]] = {}
        self.diary: list[str] = []
        self.threads: set[int] = set()

    def due(self, now: datetime, limit: int) -> Sequence[OutboxEntry]:
        self.threads.add(get_ident())
        ready = [each for each in self.entries.values() if each.next_attempt_at <= now]
        return sorted(ready, key=lambda each: each.id)[:limit]

    def mark_delivered(self, entry_id: int, now: datetime) -> None:
        self.threads.add(get_ident())
        self.diary.append(f"delivered {entry_id}")
        del self.entries[entry_id]

    def mark_failed(
        self, entry_id: int, now: datetime, next_attempt_at: datetime, reason: DeliveryReason, detail: str
    ) -> None:
        self.diary.append(f"failed {entry_id}: {reason.value}")
        old = self.entries[entry_id]
        self.entries[entry_id] = replace(old, attempts=old.attempts + 1, next_attempt_at=next_attempt_at)

    def mark_dead(self, entry_id: int, now: datetime, reason: DeliveryReason, detail: str) -> None:
        self.diary.append(f"dead {entry_id}: {reason.value}")
        del self.entries[entry_id]
        self.dead[entry_id] = (reason, detail)


@dataclass
class ScriptedReceiver:
    """Takes events, or raises what the script says for an entry."""

    name: str = "oncall"
    send_resolved: bool = True
    max_age: timedelta = timedelta(days=3)
    script: dict[int, Exception] = field(default_factory=dict)
    got: list[OutboxEntry] = field(default_factory=list)
    before: Callable[[], object] = field(default=lambda: None)

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        self.before()
        self.got.append(entry)
        if entry.id in self.script:
            raise self.script[entry.id]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Bench:
    """A dispatcher with everything around it."""

    def __init__(self, outbox: MemoryOutbox, *receivers: ScriptedReceiver) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        by_name: dict[str, Receiver] = {receiver.name: receiver for receiver in receivers}
        typed: Outbox = outbox
        self.dispatcher = Dispatcher(typed, by_name, AlertTelemetry(self.registry), self.clock)

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"layerwatch_{name}_total", labels) or 0.0


def error(reason: DeliveryReason, *, retryable: bool = True, wait: timedelta | None = None) -> DeliveryError:
    return DeliveryError(reason, "it did not work", retryable=retryable, retry_after=wait)


BUSY = error(DeliveryReason.SERVER_ERROR)


def test_what_is_due_is_delivered_and_marked_only_afterwards() -> None:
    outbox = MemoryOutbox(entry(1), entry(2))
    receiver = ScriptedReceiver()
    receiver.before = lambda: outbox.diary.append("sending")
    bench = Bench(outbox, receiver)

    assert bench.dispatcher.dispatch_due() == "2 delivered, 0 failed, 0 given up"
    assert outbox.entries == {}
    assert outbox.diary.index("sending") < outbox.diary.index("delivered 1")
    assert bench.counted("notifications", receiver="oncall") == 2


def test_nothing_due_is_a_sentence_too() -> None:
    later = replace(entry(1), next_attempt_at=NOW + timedelta(seconds=1))
    receiver = ScriptedReceiver()

    assert (
        Bench(MemoryOutbox(later), receiver).dispatcher.dispatch_due() == "0 delivered, 0 failed, 0 given up"
    )
    assert receiver.got == []


def test_a_failure_is_tried_again_later_and_does_not_hold_up_those_behind_it() -> None:
    outbox = MemoryOutbox(entry(1), entry(2), entry(3))
    receiver = ScriptedReceiver(script={2: BUSY})
    bench = Bench(outbox, receiver)

    assert bench.dispatcher.dispatch_due() == "2 delivered, 1 failed, 0 given up"
    assert [each.id for each in receiver.got] == [1, 2, 3]
    assert outbox.entries[2].attempts == 1
    assert NOW < outbox.entries[2].next_attempt_at <= NOW + timedelta(seconds=1)
    assert bench.counted("notification_failures", receiver="oncall", reason="server_error") == 1

    receiver.script.clear()
    bench.clock.now = outbox.entries[2].next_attempt_at
    assert bench.dispatcher.dispatch_due() == "1 delivered, 0 failed, 0 given up"
    assert receiver.got[1].event_id == receiver.got[-1].event_id
    assert receiver.got[1].payload == receiver.got[-1].payload


def test_retry_after_is_kept_to() -> None:
    outbox = MemoryOutbox(entry(1))
    wait = error(DeliveryReason.RATE_LIMITED, wait=timedelta(hours=5))
    Bench(outbox, ScriptedReceiver(script={1: wait})).dispatcher.dispatch_due()

    assert outbox.entries[1].next_attempt_at == NOW + timedelta(hours=5)


@pytest.mark.parametrize(
    "reason", [DeliveryReason.GONE, DeliveryReason.REDIRECTED, DeliveryReason.FORBIDDEN_ADDRESS]
)
def test_what_cannot_succeed_is_given_up_with_its_reason(
    reason: DeliveryReason, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = MemoryOutbox(entry(1))
    bench = Bench(outbox, ScriptedReceiver(script={1: error(reason, retryable=False)}))

    assert bench.dispatcher.dispatch_due() == "0 delivered, 0 failed, 1 given up"
    assert outbox.dead == {1: (reason, "it did not work")}
    assert bench.counted("notification_failures", receiver="oncall", reason=reason.value) == 1
    assert bench.counted("notifications_given_up", receiver="oncall") == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_event_that_is_too_old_is_given_up_without_a_try() -> None:
    old = entry(1, created_at=NOW - timedelta(days=3, seconds=1))
    outbox, receiver = MemoryOutbox(old), ScriptedReceiver()
    bench = Bench(outbox, receiver)

    assert bench.dispatcher.dispatch_due() == "0 delivered, 0 failed, 1 given up"
    assert receiver.got == []
    assert outbox.dead[1][0] is DeliveryReason.EXPIRED
    assert bench.counted("notifications", receiver="oncall") == 0


def test_an_event_that_would_be_too_old_next_time_is_given_up_and_both_reasons_are_counted() -> None:
    outbox = MemoryOutbox(entry(1, created_at=NOW - timedelta(days=3), attempts=80))
    bench = Bench(outbox, ScriptedReceiver(script={1: BUSY}))

    assert bench.dispatcher.dispatch_due() == "0 delivered, 0 failed, 1 given up"
    assert outbox.dead[1][0] is DeliveryReason.EXPIRED
    assert "server_error" in outbox.dead[1][1]
    for reason in ("server_error", "expired"):
        assert bench.counted("notification_failures", receiver="oncall", reason=reason) == 1


def test_a_receiver_that_was_removed_from_the_configuration_gets_nothing() -> None:
    outbox = MemoryOutbox(entry(1, "old"), entry(2, "oncall"))
    receiver = ScriptedReceiver()

    assert Bench(outbox, receiver).dispatcher.dispatch_due() == "1 delivered, 0 failed, 1 given up"
    assert outbox.dead[1][0] is DeliveryReason.RECEIVER_REMOVED
    assert [each.id for each in receiver.got] == [2]


def test_a_receiver_that_breaks_down_is_logged_with_its_traceback_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outbox = MemoryOutbox(entry(1), entry(2))
    bench = Bench(outbox, ScriptedReceiver(script={1: ZeroDivisionError("division by zero")}))

    assert bench.dispatcher.dispatch_due() == "1 delivered, 1 failed, 0 given up"
    assert "failed 1: unexpected" in outbox.diary
    assert "ZeroDivisionError: division by zero" in caplog.text
    assert bench.counted("notification_failures", receiver="oncall", reason="unexpected") == 1


def test_after_a_timeout_the_receiver_is_left_alone_until_the_next_round() -> None:
    outbox = MemoryOutbox(entry(1), entry(2), entry(3, "other"))
    slow = ScriptedReceiver(script={1: error(DeliveryReason.TIMEOUT)})
    other = ScriptedReceiver("other")
    bench = Bench(outbox, slow, other)

    assert bench.dispatcher.dispatch_due() == "1 delivered, 2 failed, 0 given up"
    assert [each.id for each in slow.got] == [1]
    assert outbox.entries[2].next_attempt_at > NOW
    assert bench.counted("notifications", receiver="oncall") == 1
    assert bench.counted("notification_failures", receiver="oncall", reason="timeout") == 1


def test_receivers_are_served_side_by_side_and_the_outbox_from_one_thread() -> None:
    # Each waits for the other: served one after the other, they would break the barrier.
    together = Barrier(2, timeout=30)
    one, other = (ScriptedReceiver(name, before=together.wait) for name in ("one", "other"))
    outbox = MemoryOutbox(entry(1, "one"), entry(2, "other"))

    assert Bench(outbox, one, other).dispatcher.dispatch_due() == "2 delivered, 0 failed, 0 given up"
    assert outbox.threads == {get_ident()}


def test_a_round_ends_in_time_and_leaves_the_rest_due() -> None:
    outbox = MemoryOutbox(entry(1), entry(2), entry(3))
    receiver = ScriptedReceiver()
    bench = Bench(outbox, receiver)

    def take_forty_seconds() -> None:
        bench.clock.now += timedelta(seconds=40)

    receiver.before = take_forty_seconds
    assert bench.dispatcher.dispatch_due() == "2 delivered, 0 failed, 0 given up"
    assert bench.dispatcher.dispatch_due() == "1 delivered, 0 failed, 0 given up"


def test_an_outbox_that_cannot_mark_makes_the_event_come_again_under_the_same_id() -> None:
    class Failing(MemoryOutbox):
        broken = True

        def mark_delivered(self, entry_id: int, now: datetime) -> None:
            if self.broken:
                raise OSError("disk full")
            super().mark_delivered(entry_id, now)

    outbox, receiver = Failing(entry(1)), ScriptedReceiver()
    bench = Bench(outbox, receiver)

    with pytest.raises(OSError, match="disk full"):
        bench.dispatcher.dispatch_due()
    outbox.broken = False
    assert bench.dispatcher.dispatch_due() == "1 delivered, 0 failed, 0 given up"
    assert len({each.event_id for each in receiver.got}) == 1
    assert len(receiver.got) == 2


def test_a_delivery_is_logged_as_information(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Bench(MemoryOutbox(entry(1)), ScriptedReceiver()).dispatcher.dispatch_due()

    assert f"event {firing().event_id} delivered to oncall" in caplog.text

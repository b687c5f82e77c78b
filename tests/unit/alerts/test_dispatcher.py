"""Delivering what is due: at least once, in order, to each receiver on its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from alertvalues import NOW, entry, firing
from layerwatch.alerts.dispatcher import BATCH, LONGEST_REST, TIME_BUDGET, Dispatcher
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.outbox import Outbox, OutboxEntry, Result
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.alerts.telemetry import AlertTelemetry

NOTHING = "0 delivered, 0 failed, 0 given up"


class MemoryOutbox:
    """The outbox's contract in a dictionary, and a diary of what was asked of it."""

    def __init__(self, *entries: OutboxEntry) -> None:
        self.entries = {each.id: each for each in entries}
        self.failed_at: dict[int, datetime] = {}
        self.dead: dict[int, tuple[DeliveryReason, str]] = {}
        self.claimed: set[int] = set()
        self.diary: list[str] = []
        self.claims = 0

    def add(self, *entries: OutboxEntry) -> None:
        self.entries |= {each.id: each for each in entries}

    def claim(self, receiver: str, now: datetime, limit: int) -> Sequence[OutboxEntry]:
        self.claims += 1
        assert self.claims < 2000, "claims without end"
        found: list[OutboxEntry] = []
        waiting: set[str | None] = {None}
        for each in sorted(self.entries.values(), key=lambda each: each.id):
            if each.receiver != receiver or (each.stream in waiting and each.stream is not None):
                continue
            if each.next_attempt_at <= now or self.failed_at.get(each.id, each.created_at) > now:
                found.append(each)
            else:
                waiting.add(each.stream)
        self.claimed |= {each.id for each in found[:limit]}
        return found[:limit]

    def settle(self, results: Sequence[Result], now: datetime) -> None:
        for one in results:
            self.claimed.discard(one.entry_id)
            old = self.entries.get(one.entry_id)
            if old is None:
                continue
            if one.error is None:
                self.diary.append(f"delivered {one.entry_id}")
                del self.entries[one.entry_id]
            elif one.next_attempt_at is None:
                self.diary.append(f"dead {one.entry_id}: {one.error[0].value}")
                del self.entries[one.entry_id]
                self.dead[one.entry_id] = one.error
            else:
                self.diary.append(f"failed {one.entry_id}: {one.error[0].value}")
                self.failed_at[one.entry_id] = now
                self.entries[one.entry_id] = replace(
                    old, attempts=old.attempts + 1, next_attempt_at=one.next_attempt_at
                )

    def release(self, entry_ids: Sequence[int]) -> None:
        self.claimed -= set(entry_ids)

    def hurry(self, receiver: str, now: datetime) -> None:
        for number, each in self.entries.items():
            if each.receiver == receiver:
                self.entries[number] = replace(each, next_attempt_at=min(each.next_attempt_at, now))

    def expire(self, receiver: str, created_before: datetime, now: datetime, detail: str) -> int:
        old = [
            each.id
            for each in self.entries.values()
            if each.receiver == receiver and each.created_at < created_before
        ]
        for number in old:
            self.dead[number] = (DeliveryReason.EXPIRED, detail)
            del self.entries[number]
        return len(old)


class FullDisk(MemoryOutbox):
    """An outbox that cannot be written while ``full``."""

    full = True

    def settle(self, results: Sequence[Result], now: datetime) -> None:
        if self.full:
            raise OSError("disk full")
        super().settle(results, now)


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

    @property
    def asked_for(self) -> list[int]:
        return [each.id for each in self.got]


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
        self.receivers: dict[str, Receiver] = {receiver.name: receiver for receiver in receivers}
        self.beats: list[str] = []
        typed: Outbox = outbox
        self.dispatcher = Dispatcher(
            typed, lambda: self.receivers, AlertTelemetry(self.registry), self.clock, self.beats.append
        )

    def deliver(self, name: str = "oncall") -> str:
        return self.dispatcher.deliver(name)

    def later(self, time: timedelta) -> str:
        self.clock.now += time
        return self.deliver()

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"layerwatch_{name}_total", labels) or 0.0

    def is_disabled(self) -> bool:
        return bool(self.registry.get_sample_value("layerwatch_receiver_disabled", {"receiver": "oncall"}))


def error(reason: DeliveryReason, *, retryable: bool = True, wait: timedelta | None = None) -> DeliveryError:
    return DeliveryError(reason, "it did not work", retryable=retryable, retry_after=wait)


SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
BUSY = error(DeliveryReason.SERVER_ERROR)
MISSING = error(DeliveryReason.INVALID_RESPONSE)
"""The receiver is well and did not take this one event."""

GONE = error(DeliveryReason.GONE, retryable=False)


class TestDelivery:
    def test_what_is_due_is_delivered_in_order_and_marked_only_afterwards(self) -> None:
        outbox = MemoryOutbox(entry(2), entry(1))
        receiver = ScriptedReceiver()
        receiver.before = lambda: outbox.diary.append("sending")
        bench = Bench(outbox, receiver)

        assert bench.deliver() == "2 delivered, 0 failed, 0 given up"
        assert receiver.asked_for == [1, 2]
        assert outbox.entries == {}
        assert outbox.diary.index("sending") < outbox.diary.index("delivered 1")
        assert bench.counted("notifications", receiver="oncall") == 2
        assert bench.beats == ["oncall", "oncall"]

    def test_nothing_due_is_a_sentence_too(self) -> None:
        outbox = MemoryOutbox(replace(entry(1), next_attempt_at=NOW + SECOND))
        receiver = ScriptedReceiver()

        assert Bench(outbox, receiver).deliver() == NOTHING
        assert receiver.got == []

    def test_only_the_events_of_that_receiver_are_delivered(self) -> None:
        outbox = MemoryOutbox(entry(1, "oncall"), entry(2, "other"))
        receiver, other = ScriptedReceiver(), ScriptedReceiver("other")
        bench = Bench(outbox, receiver, other)

        assert bench.deliver() == "1 delivered, 0 failed, 0 given up"
        assert (receiver.asked_for, other.asked_for) == ([1], [])
        assert bench.deliver("other") == "1 delivered, 0 failed, 0 given up"

    def test_a_receiver_that_is_not_there_gets_nothing_and_its_events_stay(self) -> None:
        """Who gives them up is whoever knows the configuration."""
        outbox = MemoryOutbox(entry(1))

        assert Bench(outbox).deliver() == NOTHING
        assert list(outbox.entries) == [1]
        assert outbox.claimed == set()

    def test_more_than_one_batch_is_delivered_in_one_turn(self) -> None:
        outbox = MemoryOutbox(*(entry(number) for number in range(BATCH + 5)))

        assert Bench(outbox, ScriptedReceiver()).deliver() == f"{BATCH + 5} delivered, 0 failed, 0 given up"

    def test_a_turn_ends_in_time_and_leaves_the_rest_due(self) -> None:
        outbox = MemoryOutbox(*(entry(number) for number in range(3 * BATCH)))
        receiver = ScriptedReceiver()
        bench = Bench(outbox, receiver)

        def take_a_while() -> None:
            bench.clock.now += TIME_BUDGET / BATCH

        receiver.before = take_a_while
        assert bench.deliver() == f"{BATCH} delivered, 0 failed, 0 given up"
        assert outbox.claimed == set()
        assert bench.deliver() == f"{BATCH} delivered, 0 failed, 0 given up"

    def test_a_turn_that_is_told_to_stop_gives_back_what_it_did_not_try(self) -> None:
        outbox = MemoryOutbox(entry(1), entry(2), entry(3))
        receiver = ScriptedReceiver()
        bench = Bench(outbox, receiver)

        told = bench.dispatcher.deliver("oncall", lambda: len(receiver.got) >= 1)
        assert told == "1 delivered, 0 failed, 0 given up"
        assert list(outbox.entries) == [2, 3]
        assert outbox.claimed == set()

    def test_a_turn_is_logged_as_information_and_one_that_did_nothing_is_not(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        bench = Bench(MemoryOutbox(entry(1)), ScriptedReceiver())
        bench.deliver()

        assert f"event {firing().event_id} delivered to oncall" in caplog.text
        assert "receiver oncall: 1 delivered, 0 failed, 0 given up" in caplog.text
        caplog.clear()
        bench.deliver()
        assert caplog.text == ""


class TestFailures:
    def test_a_failure_is_tried_again_later_and_does_not_hold_up_those_behind_it(self) -> None:
        outbox = MemoryOutbox(entry(1), entry(2), entry(3))
        receiver = ScriptedReceiver(script={2: MISSING})
        bench = Bench(outbox, receiver)

        assert bench.deliver() == "2 delivered, 1 failed, 0 given up"
        assert receiver.asked_for == [1, 2, 3]
        assert outbox.entries[2].attempts == 1
        assert NOW < outbox.entries[2].next_attempt_at <= NOW + SECOND
        assert bench.counted("notification_failures", receiver="oncall", reason="invalid_response") == 1

        receiver.script.clear()
        bench.clock.now = outbox.entries[2].next_attempt_at
        assert bench.deliver() == "1 delivered, 0 failed, 0 given up"
        assert receiver.got[1].event_id == receiver.got[-1].event_id
        assert receiver.got[1].payload == receiver.got[-1].payload

    def test_retry_after_is_kept_to(self) -> None:
        outbox = MemoryOutbox(entry(1))
        receiver = ScriptedReceiver(script={1: error(DeliveryReason.RATE_LIMITED, wait=5 * HOUR)})
        bench = Bench(outbox, receiver)
        bench.deliver()

        assert outbox.entries[1].next_attempt_at == NOW + 5 * HOUR
        outbox.add(entry(2))
        assert bench.later(5 * HOUR - SECOND) == NOTHING
        receiver.script.clear()
        assert bench.later(SECOND) == "2 delivered, 0 failed, 0 given up"

    @pytest.mark.parametrize("reason", [DeliveryReason.REDIRECTED, DeliveryReason.FORBIDDEN_ADDRESS])
    def test_what_cannot_succeed_is_given_up_with_its_reason(
        self, reason: DeliveryReason, caplog: pytest.LogCaptureFixture
    ) -> None:
        outbox = MemoryOutbox(entry(1), entry(2))
        bench = Bench(outbox, ScriptedReceiver(script={1: error(reason, retryable=False)}))

        assert bench.deliver() == "1 delivered, 0 failed, 1 given up"
        assert outbox.dead == {1: (reason, "it did not work")}
        assert bench.counted("notification_failures", receiver="oncall", reason=reason.value) == 1
        assert bench.counted("notifications_given_up", receiver="oncall") == 1
        assert [record.levelname for record in caplog.records] == ["ERROR"]

    def test_what_is_too_old_when_the_daemon_starts_is_tried_once(self) -> None:
        """The clock may be wrong then."""
        old = [entry(number, created_at=NOW - timedelta(days=3, seconds=1)) for number in (1, 2)]
        outbox = MemoryOutbox(*old)
        bench = Bench(outbox, ScriptedReceiver(script={2: BUSY}))

        assert bench.deliver() == "1 delivered, 0 failed, 1 given up"
        assert outbox.dead[2][0] is DeliveryReason.EXPIRED

    def test_an_event_that_is_too_old_is_given_up_without_a_try(self) -> None:
        outbox, receiver = MemoryOutbox(entry(1)), ScriptedReceiver()
        bench = Bench(outbox, receiver)
        bench.deliver()
        outbox.add(entry(2, created_at=NOW - timedelta(days=3, seconds=1)))

        assert bench.deliver() == "0 delivered, 0 failed, 1 given up"
        assert receiver.asked_for == [1]
        assert outbox.dead[2] == (DeliveryReason.EXPIRED, "older than max_age (3 days, 0:00:00)")
        assert bench.counted("notifications_given_up", receiver="oncall") == 1
        assert bench.counted("notification_failures", receiver="oncall", reason="expired") == 1

    def test_an_event_that_would_be_too_old_next_time_is_given_up_and_both_reasons_are_counted(self) -> None:
        outbox = MemoryOutbox(entry(1, created_at=NOW - timedelta(days=3), attempts=80))
        bench = Bench(outbox, ScriptedReceiver(script={1: MISSING}))

        assert bench.deliver() == "0 delivered, 0 failed, 1 given up"
        assert outbox.dead[1][0] is DeliveryReason.EXPIRED
        assert "invalid_response" in outbox.dead[1][1]
        for reason in ("invalid_response", "expired"):
            assert bench.counted("notification_failures", receiver="oncall", reason=reason) == 1

    def test_a_receiver_that_breaks_down_is_logged_with_its_traceback_and_tried_again(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        outbox = MemoryOutbox(entry(1), entry(2))
        bench = Bench(outbox, ScriptedReceiver(script={1: ZeroDivisionError("division by zero")}))

        assert bench.deliver() == "1 delivered, 1 failed, 0 given up"
        assert "failed 1: unexpected" in outbox.diary
        assert "ZeroDivisionError: division by zero" in caplog.text
        assert bench.counted("notification_failures", receiver="oncall", reason="unexpected") == 1

    def test_the_last_failure_can_be_read_off_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        Bench(MemoryOutbox(entry(1)), ScriptedReceiver(script={1: MISSING})).deliver()

        assert f"event {firing().event_id} not delivered to oncall, tried again at 2026-03-01T12:00" in (
            caplog.text
        )


class TestStreams:
    def test_what_is_behind_a_failure_in_its_stream_waits_and_nothing_else_does(self) -> None:
        outbox = MemoryOutbox(
            entry(1, stream="a"),
            entry(2, stream="b"),
            entry(3, stream="a"),
            entry(4),
            entry(5, stream="b"),
        )
        receiver = ScriptedReceiver(script={1: MISSING})
        bench = Bench(outbox, receiver)

        assert bench.deliver() == "3 delivered, 1 failed, 0 given up"
        assert receiver.asked_for == [1, 2, 4, 5]
        assert outbox.claimed == set()
        receiver.script.clear()
        assert bench.later(SECOND) == "2 delivered, 0 failed, 0 given up"
        assert receiver.asked_for[4:] == [1, 3]

    def test_what_is_given_up_holds_up_nothing(self) -> None:
        refused = error(DeliveryReason.CLIENT_ERROR, retryable=False)
        outbox = MemoryOutbox(entry(1, stream="a"), entry(2, stream="a"))

        bench = Bench(outbox, ScriptedReceiver(script={1: refused}))
        assert bench.deliver() == "1 delivered, 0 failed, 1 given up"

    def test_a_failure_whose_time_comes_within_the_turn_is_tried_again_in_order(self) -> None:
        outbox = MemoryOutbox(
            entry(1, stream="a"), *(entry(number) for number in range(2, BATCH + 2)), entry(999, stream="a")
        )
        receiver = ScriptedReceiver(script={1: MISSING})
        bench = Bench(outbox, receiver)

        def take_a_while() -> None:
            bench.clock.now += TIME_BUDGET / (2 * BATCH)
            if len(receiver.got) > 1:
                receiver.script.clear()

        receiver.before = take_a_while
        assert bench.deliver() == f"{BATCH + 2} delivered, 1 failed, 0 given up"
        assert receiver.asked_for.index(999) > receiver.asked_for.index(1, 1)
        assert outbox.claims < 10


class TestReload:
    def test_a_receiver_with_other_settings_is_asked_at_once(self) -> None:
        outbox = MemoryOutbox(entry(1))
        asked_for_a_day = error(DeliveryReason.RATE_LIMITED, wait=timedelta(days=1))
        bench = Bench(outbox, ScriptedReceiver(script={1: asked_for_a_day}))
        bench.deliver()
        assert bench.later(HOUR) == "0 delivered, 0 failed, 0 given up"
        bench.receivers["oncall"] = ScriptedReceiver()

        assert bench.later(SECOND) == "1 delivered, 0 failed, 0 given up"

    def test_an_event_over_which_a_receiver_always_breaks_down_is_given_up(self) -> None:
        outbox = MemoryOutbox(entry(1, attempts=9), entry(2, attempts=8))
        broken = error(DeliveryReason.UNEXPECTED)
        bench = Bench(outbox, ScriptedReceiver(script={1: broken, 2: broken}))

        assert bench.deliver() == "0 delivered, 1 failed, 1 given up"
        assert set(outbox.dead) == {1}


class TestTrouble:
    @pytest.mark.parametrize(
        "reason",
        [
            DeliveryReason.BAD_SECRET,
            DeliveryReason.CONNECTION,
            DeliveryReason.NAME_RESOLUTION,
            DeliveryReason.RATE_LIMITED,
            DeliveryReason.SERVER_ERROR,
            DeliveryReason.TIMEOUT,
            DeliveryReason.TLS,
        ],
    )
    def test_a_receiver_in_trouble_is_left_alone_for_a_while(self, reason: DeliveryReason) -> None:
        outbox = MemoryOutbox(entry(1), entry(2), entry(3))
        receiver = ScriptedReceiver(script={1: error(reason)})
        bench = Bench(outbox, receiver)

        assert bench.deliver() == "0 delivered, 1 failed, 0 given up"
        assert receiver.asked_for == [1]
        assert [each.attempts for each in outbox.entries.values()] == [1, 0, 0]
        assert outbox.claimed == set()
        assert bench.deliver() == NOTHING

        receiver.script.clear()
        assert bench.later(SECOND) == "3 delivered, 0 failed, 0 given up"

    def test_it_is_asked_with_one_event_and_ever_more_seldom_up_to_two_minutes(self) -> None:
        outbox = MemoryOutbox(*(entry(number) for number in range(1, 30)))
        receiver = ScriptedReceiver(script=dict.fromkeys(range(1, 30), BUSY))
        bench = Bench(outbox, receiver)

        asked_at = []
        while bench.clock.now < NOW + HOUR:
            before = len(receiver.got)
            bench.deliver()
            assert len(receiver.got) - before <= 1
            asked_at += [bench.clock.now] * (len(receiver.got) - before)
            bench.clock.now += SECOND
        pauses = [later - earlier for earlier, later in pairwise(asked_at)]
        assert pauses[0] <= 2 * SECOND
        assert max(pauses) <= LONGEST_REST + SECOND
        assert all(pause >= LONGEST_REST / 2 for pause in pauses[-10:])

        receiver.script.clear()
        assert bench.later(LONGEST_REST) == "29 delivered, 0 failed, 0 given up"
        assert receiver.asked_for[-29:] == list(range(1, 30))

    def test_a_success_makes_the_next_rest_short_again(self) -> None:
        outbox = MemoryOutbox(entry(1))
        receiver = ScriptedReceiver(script={1: BUSY, 2: BUSY})
        bench = Bench(outbox, receiver)
        for _ in range(8):
            bench.later(LONGEST_REST)
        receiver.script.pop(1)
        bench.later(LONGEST_REST)
        outbox.add(entry(2, created_at=bench.clock.now))
        bench.deliver()

        receiver.script.clear()
        assert bench.later(SECOND) == "1 delivered, 0 failed, 0 given up"

    def test_a_clock_that_is_set_back_does_not_make_the_rest_longer(self) -> None:
        outbox = MemoryOutbox(entry(1))
        receiver = ScriptedReceiver(script={1: BUSY})
        bench = Bench(outbox, receiver)
        bench.deliver()
        receiver.script.clear()

        assert bench.later(timedelta(days=-1)) == "1 delivered, 0 failed, 0 given up"

    def test_another_receiver_is_not_left_alone(self) -> None:
        outbox = MemoryOutbox(entry(1), entry(2, "other"))
        bench = Bench(outbox, ScriptedReceiver(script={1: BUSY}), ScriptedReceiver("other"))
        bench.deliver()

        assert bench.deliver("other") == "1 delivered, 0 failed, 0 given up"

    def test_an_event_is_not_given_up_before_its_age_because_it_was_tried_often(self) -> None:
        outbox = MemoryOutbox(entry(1))
        receiver = ScriptedReceiver(script={1: BUSY}, max_age=2 * HOUR)
        bench = Bench(outbox, receiver)
        while 1 in outbox.entries:
            bench.later(10 * SECOND)

        assert outbox.dead[1][0] is DeliveryReason.EXPIRED
        assert 2 * HOUR - LONGEST_REST <= bench.clock.now - NOW <= 2 * HOUR + MINUTE

    def test_what_expires_meanwhile_is_given_up_while_it_is_left_alone(self) -> None:
        wait = error(DeliveryReason.RATE_LIMITED, wait=timedelta(hours=20))
        outbox = MemoryOutbox(entry(1), entry(2))
        bench = Bench(outbox, ScriptedReceiver(script={1: wait}, max_age=10 * HOUR))
        assert bench.deliver() == "0 delivered, 0 failed, 1 given up"

        assert bench.later(11 * HOUR) == "0 delivered, 0 failed, 1 given up"


class TestGone:
    """A receiver that answered 410 wants nothing any more."""

    def disabled(self) -> tuple[MemoryOutbox, ScriptedReceiver, Bench]:
        outbox = MemoryOutbox(entry(1), entry(2))
        receiver = ScriptedReceiver(script={1: GONE})
        bench = Bench(outbox, receiver)
        assert bench.deliver() == "0 delivered, 0 failed, 1 given up"
        return outbox, receiver, bench

    def test_it_is_asked_no_more_and_its_events_are_given_up_where_they_can_be_seen(self) -> None:
        outbox, receiver, bench = self.disabled()

        assert receiver.asked_for == [1]
        assert bench.is_disabled()
        assert bench.deliver() == "0 delivered, 0 failed, 1 given up"
        outbox.add(entry(3))
        assert bench.later(timedelta(days=1)) == "0 delivered, 0 failed, 1 given up"
        assert receiver.asked_for == [1]
        assert {number: reason for number, (reason, _) in outbox.dead.items()} == dict.fromkeys(
            (1, 2, 3), DeliveryReason.GONE
        )
        assert "until the configuration is loaded again" in outbox.dead[3][1]
        assert bench.counted("notifications", receiver="oncall") == 1
        assert bench.counted("notifications_given_up", receiver="oncall") == 3
        assert bench.counted("notification_failures", receiver="oncall", reason="gone") == 3

    def test_one_of_the_same_name_that_a_reload_made_is_asked_again(self) -> None:
        outbox, _, bench = self.disabled()
        fresh = ScriptedReceiver()
        bench.receivers = {"oncall": fresh}

        assert bench.deliver() == "1 delivered, 0 failed, 0 given up"
        assert fresh.asked_for == [2]
        assert not bench.is_disabled()
        assert list(outbox.dead) == [1]

    def test_it_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        _, _, bench = self.disabled()
        bench.deliver()

        assert caplog.text.count("it is told nothing until the next reload") == 1


class TestOutboxThatCannotBeWritten:
    def test_what_was_delivered_is_recorded_first_and_not_sent_again(self) -> None:
        outbox, receiver = FullDisk(entry(1), entry(2)), ScriptedReceiver()
        bench = Bench(outbox, receiver)

        with pytest.raises(OSError, match="disk full"):
            bench.deliver()
        sent = list(receiver.asked_for)
        assert sent
        with pytest.raises(OSError, match="disk full"):
            bench.deliver()
        assert receiver.asked_for == sent

        outbox.full = False
        bench.deliver()
        assert sorted(receiver.asked_for) == [1, 2]
        assert outbox.entries == {}

    def test_failures_are_recorded_later_too(self) -> None:
        outbox, receiver = FullDisk(entry(1)), ScriptedReceiver(script={1: MISSING})
        bench = Bench(outbox, receiver)
        with pytest.raises(OSError, match="disk full"):
            bench.deliver()
        outbox.full = False

        assert bench.deliver() == NOTHING
        assert outbox.entries[1].attempts == 1

    def test_a_crash_in_between_makes_the_event_come_again_under_the_same_id(self) -> None:
        outbox, receiver = FullDisk(entry(1)), ScriptedReceiver()
        with pytest.raises(OSError, match="disk full"):
            Bench(outbox, receiver).deliver()
        outbox.full = False

        assert Bench(outbox, receiver).deliver() == "1 delivered, 0 failed, 0 given up"
        assert receiver.asked_for == [1, 1]
        assert len({each.event_id for each in receiver.got}) == 1


outcomes = st.sampled_from(
    [
        None,
        None,
        BUSY,
        MISSING,
        error(DeliveryReason.TIMEOUT),
        error(DeliveryReason.RATE_LIMITED, wait=timedelta(minutes=3)),
        error(DeliveryReason.CLIENT_ERROR, retryable=False),
        RuntimeError("a bug"),
    ]
)


class TestEveryReceiver:
    @settings(deadline=None)
    @given(
        st.lists(st.sampled_from(["a", "b", None]), max_size=12),
        st.lists(outcomes, max_size=40),
        st.lists(st.booleans(), max_size=10),
    )
    def test_everything_is_delivered_or_given_up_and_every_stream_arrives_in_order(
        self, streams: list[str | None], script: list[Exception | None], full: list[bool]
    ) -> None:
        outbox = FullDisk(*(entry(number, stream=stream) for number, stream in enumerate(streams, 1)))
        answers = iter(script)
        taken: list[int] = []

        class Moody(ScriptedReceiver):
            def send(self, entry: OutboxEntry, now: datetime) -> None:
                self.got.append(entry)
                answer = next(answers, None)
                if answer is not None:
                    raise answer
                taken.append(entry.id)

        receiver = Moody()
        bench = Bench(outbox, receiver)
        for is_full in [*full, *[False] * 200]:
            outbox.full = is_full
            bench.clock.now += MINUTE
            try:
                bench.deliver()
            except OSError:
                assert is_full

        assert outbox.entries == {}
        assert outbox.claimed == set()
        assert sorted([*taken, *outbox.dead]) == list(range(1, len(streams) + 1))
        for stream in ("a", "b"):
            order = [number for number in taken if streams[number - 1] == stream]
            assert order == sorted(order)

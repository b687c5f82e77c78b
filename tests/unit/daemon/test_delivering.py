"""The loops that deliver: one for each receiver, over a real outbox; threads meet at events, never after a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from layerwatch.alerts.dispatcher import Dispatcher
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.alerts.telemetry import AlertTelemetry
from layerwatch.daemon.delivering import DeliveryLoops
from layerwatch.daemon.health import Heartbeats
from layerwatch.daemon.store import outbox
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.outbox import Backlog, DatabaseOutbox
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch_testing.waiting import until

LIMIT = timedelta(minutes=5)
PATIENCE = timedelta(seconds=30)


class Taker:
    """A receiver that keeps what it is sent; while its gate is closed it does not answer."""

    send_resolved = True
    max_age = timedelta(days=3)

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken: list[str] = []
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.fails_with: BaseException | None = None

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        self.asked.set()
        assert self.gate.wait(60)
        if self.fails_with is not None:
            raise self.fails_with
        self.taken.append(entry.event_id)


class Deliveries:
    """Loops with everything they need.

    Attributes:
        receivers: as configured at the moment.
        at_turn: called at the beginning of each turn of a receiver, in its thread.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.receivers: dict[str, Receiver] = {}
        self.metrics = CollectorRegistry()
        self.telemetry = DaemonTelemetry(self.metrics)
        self.telemetry.init_for([], ["dispatch"])
        self.heartbeats = Heartbeats(self.now)
        store = DatabaseOutbox(database, "daemon")
        self.dispatcher = Dispatcher(store, self._current, AlertTelemetry(self.metrics), self.now, self.alive)
        self.loops = DeliveryLoops(self.dispatcher, self.heartbeats, self.telemetry, self.now)
        self.at_turn: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def alive(self, receiver: str) -> None:
        self.loops.alive(receiver)

    def _current(self) -> dict[str, Receiver]:
        self.at_turn()
        return dict(self.receivers)

    def serve(self, *takers: Taker) -> None:
        self.receivers = {one.name: one for one in takers}
        self.loops.serve(self.receivers, LIMIT)

    def queue(self, receiver: str, *event_ids: str) -> None:
        with self.database.write() as connection:
            for event_id in event_ids:
                outbox.enqueue(connection, event_id, receiver, "{}", self.now(), "stream")
        self.loops.wake([receiver])

    def waiting(self) -> dict[str, int]:
        with self.database.read() as connection:
            backlogs: list[Backlog] = outbox.backlogs(connection)
        return {one.receiver: one.waiting for one in backlogs}

    def expected(self) -> list[str]:
        """Loops that must give a sign of life."""
        return [beat.loop for beat in self.heartbeats.beats()]


@pytest.fixture
def deliveries(database: Database) -> Iterator[Deliveries]:
    made = Deliveries(database)
    yield made
    made.loops.stop(PATIENCE)


def threads() -> set[str]:
    """The delivering threads that run."""
    return {one.name for one in threading.enumerate() if one.name.startswith("layerwatch-dispatch-")}


def test_what_is_queued_is_delivered_in_its_order(deliveries: Deliveries) -> None:
    taker = Taker("oncall")
    deliveries.queue("oncall", "a", "b")
    deliveries.serve(taker)
    deliveries.queue("oncall", "c")
    until(lambda: not deliveries.waiting(), "an empty outbox")
    assert taker.taken == ["a", "b", "c"]


def test_a_receiver_that_does_not_answer_delays_no_other(deliveries: Deliveries) -> None:
    slow, quick = Taker("slow"), Taker("quick")
    slow.gate.clear()
    deliveries.serve(slow, quick)
    deliveries.queue("slow", "s1", "s2")
    assert slow.asked.wait(60)
    deliveries.queue("quick", *(f"q{number}" for number in range(50)))
    until(lambda: len(quick.taken) == 50, "all that is for the quick one")
    # The slow one has been asked all the time, and has answered nothing.
    assert slow.taken == []
    assert deliveries.waiting()["slow"] == 2
    slow.gate.set()
    until(lambda: not deliveries.waiting(), "an empty outbox")
    assert slow.taken == ["s1", "s2"]


def test_a_reload_ends_the_loops_of_receivers_that_are_gone_and_begins_those_of_new_ones(
    deliveries: Deliveries,
) -> None:
    old, stays, new = Taker("old"), Taker("stays"), Taker("new")
    deliveries.serve(old, stays)
    assert deliveries.expected() == ["dispatch:old", "dispatch:stays"]
    running = {one.ident for one in threading.enumerate() if one.name == "layerwatch-dispatch-stays"}
    deliveries.serve(stays, new)
    assert deliveries.expected() == ["dispatch:new", "dispatch:stays"]
    until(
        lambda: threads() == {"layerwatch-dispatch-new", "layerwatch-dispatch-stays"},
        "the end of the old loop",
    )
    assert running == {one.ident for one in threading.enumerate() if one.name == "layerwatch-dispatch-stays"}
    deliveries.queue("old", "o")
    deliveries.queue("new", "n")
    deliveries.queue("stays", "s")
    until(lambda: deliveries.waiting() == {"old": 1}, "what is for those that are there")
    assert (old.taken, stays.taken, new.taken) == ([], ["s"], ["n"])


def test_a_receiver_of_the_same_name_takes_over_where_the_one_before_it_was(deliveries: Deliveries) -> None:
    before, after = Taker("oncall"), Taker("oncall")
    before.gate.clear()
    before.fails_with = DeliveryError(DeliveryReason.CLIENT_ERROR, "400", retryable=True)
    deliveries.serve(before)
    deliveries.queue("oncall", "a", "b")
    assert before.asked.wait(60)
    deliveries.serve(after)
    before.gate.set()
    until(lambda: after.taken == ["a", "b"], "both at the new one")
    assert before.taken == []


def test_a_receiver_that_is_taken_out_and_put_back_while_it_is_asked_is_not_asked_twice_at_a_time(
    deliveries: Deliveries,
) -> None:
    taker = Taker("oncall")
    taker.gate.clear()
    deliveries.serve(taker)
    deliveries.queue("oncall", "a")
    assert taker.asked.wait(60)
    again = Taker("oncall")
    deliveries.serve()
    deliveries.serve(again)
    try:
        # Long enough for the new loop to have its first turn, which would send the same event.
        assert not again.asked.wait(2)
    finally:
        taker.gate.set()
    until(lambda: not deliveries.waiting(), "an empty outbox")
    assert (taker.taken, again.taken) == (["a"], [])


def test_an_error_of_the_store_is_survived_counted_and_said_once(
    deliveries: Deliveries, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    taker = Taker("oncall")
    refused = threading.Semaphore(0)

    def refuse(connection: object) -> None:
        refused.release()
        raise StoreError(StoreReason.DISK_FULL, "no space left")

    deliveries.queue("oncall", "a")
    database.fence(refuse)
    with caplog.at_level(logging.ERROR, "layerwatch.daemon.delivering"):
        deliveries.serve(taker)
        for _ in range(3):
            assert refused.acquire(timeout=60)
            deliveries.loops.wake(["oncall"])
    database.fence(lambda connection: None)
    until(lambda: not deliveries.waiting(), "an empty outbox")
    assert taker.taken == ["a"]
    errors = deliveries.metrics.get_sample_value("layerwatch_cycle_errors_total", {"loop": "dispatch"})
    assert errors is not None
    assert errors >= 3
    said = [record.message for record in caplog.records if "waits for the store" in record.message]
    assert len(said) == 1
    assert "dispatch:oncall" in said[0]


def test_whatever_breaks_in_a_turn_the_loop_goes_on(
    deliveries: Deliveries, caplog: pytest.LogCaptureFixture
) -> None:
    taker = Taker("oncall")
    broke = threading.Event()

    def break_once() -> None:
        if not broke.is_set():
            broke.set()
            raise RuntimeError("a fault of ours")

    deliveries.at_turn = break_once
    deliveries.serve(taker)
    deliveries.queue("oncall", "a")
    until(lambda: not deliveries.waiting(), "an empty outbox")
    assert broke.is_set()
    assert "unexpected error in loop dispatch:oncall" in caplog.text


def test_what_was_delivered_while_the_store_could_not_be_written_is_not_sent_again(
    deliveries: Deliveries, database: Database
) -> None:
    taker = Taker("oncall")
    taker.gate.clear()
    deliveries.queue("oncall", "a")
    deliveries.serve(taker)
    assert taker.asked.wait(60)
    refused = threading.Semaphore(0)

    def refuse(connection: object) -> None:
        refused.release()
        raise StoreError(StoreReason.IO_ERROR, "the disk is gone")

    database.fence(refuse)
    taker.gate.set()
    for _ in range(2):
        assert refused.acquire(timeout=60)
        deliveries.loops.wake(["oncall"])
    database.fence(lambda connection: None)
    until(lambda: not deliveries.waiting(), "an empty outbox")
    assert taker.taken == ["a"]


def test_turns_and_attempts_are_signs_of_life(deliveries: Deliveries) -> None:
    beats: list[str] = []
    real = deliveries.heartbeats.beat

    def beat(loop: str) -> None:
        beats.append(loop)
        real(loop)

    deliveries.heartbeats.beat = beat  # type: ignore[method-assign]
    taker = Taker("oncall")
    taker.gate.clear()
    deliveries.queue("oncall", "a", "b", "c")
    deliveries.serve(taker)
    assert taker.asked.wait(60)
    # Before it waits for an answer, not only when the turn is over.
    assert beats == ["dispatch:oncall"]
    taker.gate.set()
    until(lambda: not deliveries.waiting(), "an empty outbox")
    until(lambda: len(beats) >= 4, "a beat for each attempt and one for the turn")
    deliveries.loops.alive("nobody")
    assert set(beats) == {"dispatch:oncall"}


def test_stopping_ends_all_loops_and_what_was_not_sent_is_sent_after_the_next_start(
    database: Database,
) -> None:
    first = Deliveries(database)
    slow, idle = Taker("slow"), Taker("idle")
    slow.gate.clear()
    first.serve(slow, idle)
    first.queue("slow", "a", "b", "c")
    assert slow.asked.wait(60)
    first.loops.stop(timedelta(0))
    assert slow.taken == []
    slow.gate.set()
    until(lambda: not threads(), "the end of all loops")
    # What was being sent may still arrive; nothing else is begun.
    assert slow.taken == ["a"]

    second = Deliveries(database)
    DatabaseOutbox(database, "daemon").release_all()
    again = Taker("slow")
    second.serve(again)
    until(lambda: not second.waiting(), "an empty outbox")
    second.loops.stop(PATIENCE)
    assert again.taken == ["b", "c"]
    assert threads() == set()


def test_stopping_without_loops_or_twice_is_nothing(deliveries: Deliveries) -> None:
    deliveries.loops.stop(PATIENCE)
    deliveries.serve(Taker("oncall"))
    deliveries.loops.stop(PATIENCE)
    deliveries.loops.stop(PATIENCE)
    deliveries.loops.wake(["oncall"])
    assert threads() == set()

"""Alert states and the outbox."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.outbox import Outbox, OutboxEntry
from layerwatch.daemon.store import alerts
from layerwatch.daemon.store.alerts import DatabaseOutbox, OutboxStatus
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from storetools import NOW, firing, judged, later


def _outbox(database: Database) -> Outbox:
    return DatabaseOutbox(database)


def _queue(database: Database, *event_ids: str, receiver: str = "oncall") -> None:
    with database.write() as connection:
        for event_id in event_ids:
            alerts.enqueue(connection, event_id, receiver, f'{{"id": "{event_id}"}}', NOW)


def _only(database: Database) -> alerts.OutboxRecord:
    with database.read() as connection:
        (record,) = alerts.list_outbox(connection)
    return record


def test_an_alert_state_is_replaced_by_the_next(database: Database) -> None:
    with database.write() as connection:
        state = firing(judged(connection, "1"))
        assert alerts.load_state(connection, state.identity) is None
        alerts.save_state(connection, state)
        assert alerts.load_state(connection, state.identity) == state
        resolved = replace(state, phase=AlertPhase.RESOLVED, episode=2, sequence=2, layers=())
        alerts.save_state(connection, resolved)
        assert alerts.list_states(connection) == [resolved]


def test_alert_states_are_listed_by_phase_registry_and_model(database: Database) -> None:
    with database.write() as connection:
        states = [
            replace(firing(judged(connection, "1", model=model, registry=registry)), phase=phase)
            for registry, model, phase in (
                ("r1", "a", AlertPhase.FIRING),
                ("r1", "b", AlertPhase.RESOLVED),
                ("r2", "a", AlertPhase.FIRING),
            )
        ]
        for state in reversed(states):
            alerts.save_state(connection, state)
        assert alerts.list_states(connection) == states
        assert alerts.list_states(connection, AlertPhase.FIRING) == [states[0], states[2]]
        assert alerts.list_states(connection, registry="r1") == states[:2]
        assert alerts.list_states(connection, registry="r1", model="b") == [states[1]]
        assert alerts.list_states(connection, AlertPhase.RESOLVED, "r2") == []


def test_an_event_is_queued_once_for_each_receiver(database: Database) -> None:
    with database.write() as connection:
        assert alerts.enqueue(connection, "e", "oncall", "{}", NOW)
        assert not alerts.enqueue(connection, "e", "oncall", "{...}", later(1))
        assert alerts.enqueue(connection, "e", "chat", "{}", NOW)
    due = _outbox(database).due(NOW, 10)
    assert [(entry.receiver, entry.payload, entry.created_at) for entry in due] == [
        ("oncall", "{}", NOW),
        ("chat", "{}", NOW),
    ]


def test_an_event_that_was_delivered_is_not_queued_again(database: Database) -> None:
    _queue(database, "e")
    outbox = _outbox(database)
    outbox.mark_delivered(outbox.due(NOW, 1)[0].id, NOW)
    _queue(database, "e")
    assert outbox.due(later(99), 10) == []


def test_an_event_shares_the_fate_of_its_transaction(database: Database) -> None:
    def fail() -> None:
        with database.write() as connection:
            alerts.enqueue(connection, "e", "oncall", "{}", NOW)
            raise RuntimeError("after the event was queued")

    with pytest.raises(RuntimeError):
        fail()
    assert _outbox(database).due(later(99), 10) == []


def test_due_entries_come_lowest_id_first_and_no_more_than_asked(database: Database) -> None:
    _queue(database, "a", "b", "c")
    outbox = _outbox(database)
    first = outbox.due(NOW, 10)[0]
    assert first == OutboxEntry(first.id, "a", "oncall", '{"id": "a"}', NOW, 0, NOW)
    outbox.mark_failed(first.id, NOW, later(10), DeliveryReason.TIMEOUT, "10 s")
    assert [entry.event_id for entry in outbox.due(later(9), 10)] == ["b", "c"]
    assert [entry.event_id for entry in outbox.due(later(10), 2)] == ["a", "b"]


def test_failures_are_counted_and_the_last_one_is_shown(database: Database) -> None:
    _queue(database, "e")
    outbox = _outbox(database)
    number = outbox.due(NOW, 1)[0].id
    outbox.mark_failed(number, later(1), later(2), DeliveryReason.TIMEOUT, "no answer")
    outbox.mark_failed(number, later(3), later(4), DeliveryReason.SERVER_ERROR, "503")
    record = _only(database)
    assert record.status is OutboxStatus.WAITING
    assert (record.entry.attempts, record.entry.next_attempt_at) == (2, later(4))
    assert (record.failed_at, record.error_reason, record.error_detail) == (
        later(3),
        DeliveryReason.SERVER_ERROR,
        "503",
    )


def test_a_late_failure_does_not_bring_back_what_was_delivered(database: Database) -> None:
    _queue(database, "e")
    outbox = _outbox(database)
    number = outbox.due(NOW, 1)[0].id
    outbox.mark_delivered(number, later(1))
    outbox.mark_failed(number, later(2), later(3), DeliveryReason.TIMEOUT, "")
    outbox.mark_dead(number, later(2), DeliveryReason.EXPIRED, "")
    record = _only(database)
    assert (record.status, record.delivered_at, record.dead_at) == (OutboxStatus.DELIVERED, later(1), None)
    assert record.entry.attempts == 0


def test_a_dead_event_is_kept_and_can_be_replayed_under_its_id(database: Database) -> None:
    _queue(database, "e")
    outbox = _outbox(database)
    number = outbox.due(NOW, 1)[0].id
    outbox.mark_failed(number, NOW, later(1), DeliveryReason.TIMEOUT, "")
    outbox.mark_dead(number, later(2), DeliveryReason.EXPIRED, "older than 1 h")
    assert outbox.due(later(99), 10) == []
    record = _only(database)
    assert (record.status, record.dead_at) == (OutboxStatus.DEAD, later(2))
    assert (record.error_reason, record.error_detail) == (DeliveryReason.EXPIRED, "older than 1 h")

    with database.write() as connection:
        alerts.replay(connection, number, later(500))
    assert outbox.due(later(500), 10) == [
        OutboxEntry(number, "e", "oncall", '{"id": "e"}', later(500), 0, later(500))
    ]


def test_only_dead_events_are_replayed(database: Database) -> None:
    _queue(database, "e")
    number = _only(database).entry.id
    with database.write() as connection:
        for entry_id, reason in ((number, StoreReason.WRONG_STATE), (4711, StoreReason.NOT_FOUND)):
            with pytest.raises(StoreError) as caught:
                alerts.replay(connection, entry_id, NOW)
            assert caught.value.reason is reason


def test_the_oldest_undelivered_event_counts_neither_delivered_nor_dead_ones(database: Database) -> None:
    def oldest(connection: sa.Connection) -> object:
        return alerts.oldest_undelivered(connection)

    outbox = _outbox(database)
    with database.write() as connection:
        assert oldest(connection) is None
        for step in range(3):
            alerts.enqueue(connection, f"e{step}", "oncall", "{}", later(step))
        assert oldest(connection) == NOW
    one, two, three = outbox.due(later(9), 9)
    outbox.mark_delivered(one.id, later(9))
    outbox.mark_dead(two.id, later(9), DeliveryReason.GONE, "410")
    with database.read() as connection:
        assert oldest(connection) == three.created_at


def test_the_outbox_is_listed_latest_first_by_status(database: Database) -> None:
    _queue(database, "a", "b", "c", "d")
    outbox = _outbox(database)
    a, b, _, _ = outbox.due(NOW, 9)
    outbox.mark_delivered(a.id, NOW)
    outbox.mark_dead(b.id, NOW, DeliveryReason.GONE, "410")
    with database.read() as connection:

        def listed(limit: int, status: OutboxStatus | None = None) -> list[str]:
            return [record.entry.event_id for record in alerts.list_outbox(connection, limit, status)]

        assert listed(3) == ["d", "c", "b"]
        assert listed(9, OutboxStatus.WAITING) == ["d", "c"]
        assert listed(9, OutboxStatus.DELIVERED) == ["a"]
        assert listed(9, OutboxStatus.DEAD) == ["b"]

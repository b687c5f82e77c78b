"""Alerts that ended, and where the messages about those that fire are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from firedalerts import ended, fired
from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.model import AlertState, TransitionReason
from layerwatch.alerts.outbox import Result
from layerwatch.daemon.store import alerts, outbox
from layerwatch.daemon.store.alertdeliveries import deliveries_of
from layerwatch.daemon.store.alertends import ended_alerts
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.outbox import DatabaseOutbox, OutboxStatus
from layerwatch.metrics.findings import Severity
from storetools import NOW, later

TIMEOUT = (DeliveryReason.TIMEOUT, "no answer in 15 s")


def test_the_alerts_that_ended_come_with_their_beginning_the_last_one_first(database: Database) -> None:
    with database.write() as connection:
        fired(connection, "prod/fires", now=later(-9))
        mild = fired(connection, severity=Severity.WARNING, version="v1", now=later(-100))
        worse = fired(connection, version="v2", layers=("fc1", "fc2"), now=later(-90))
        ended(connection, worse, version="v3", now=later(-80))
        again = fired(connection, version="v4", now=later(-70))
        ended(connection, again, version="v5", now=later(-60))
        ended(connection, fired(connection, "prod/other", now=later(-50)), now=later(-40))
        ended(connection, fired(connection, "prod/early", now=later(-500)), now=later(-400))
        found = ended_alerts(connection, later(-300), 10)
        assert [one.ended_at for one in found] == [later(-40), later(-60), later(-80)]
        other, second, first = found
        assert first.episode.identity == mild.identity
        assert (first.episode.versions, first.episode.ended_with) == (("v1", "v2"), "v3")
        assert (first.episode.began_at, first.episode.severity) == (later(-100), Severity.CRITICAL)
        assert (second.episode.versions, second.episode.ended_with) == (("v4",), "v5")
        assert {one.reason for one in found} == {TransitionReason.VERSION_PASSED}
        assert other.episode.identity.model == "other"
        assert ended_alerts(connection, later(-300), 1) == [other]


def test_an_end_whose_beginning_is_not_kept_any_more_stands_alone(database: Database) -> None:
    with database.write() as connection:
        ended(connection, fired(connection, now=later(-100)), now=later(-10))
        alerts.prune_alerts(connection, later(-50))
        (found,) = ended_alerts(connection, later(-300), 10)
    assert (found.episode.versions, found.episode.began_at, found.ended_at) == ((), later(-10), later(-10))


def test_ends_are_found_without_a_look_at_every_transition(sqlite_database: Database) -> None:
    with sqlite_database.read() as connection:
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT * FROM alert_transitions WHERE phase = 'resolved' AND at > 1 "
            "ORDER BY at DESC, id DESC LIMIT 9"
        ).all()
    assert "ix_alert_transitions_phase_at" in str(plan)
    assert "TEMP B-TREE" not in str(plan)


def told(connection: sa.Connection, receiver: str, group: str, event: str, *states: AlertState) -> None:
    alerts.save_told_to(
        connection,
        [(receiver, state) for state in states],
        {(receiver, state.identity): group for state in states},
    )
    outbox.enqueue(connection, event, receiver, "{}", NOW, group)


def test_each_receiver_shows_the_last_message_or_the_first_that_waits(database: Database) -> None:
    deliveries = DatabaseOutbox(database, "daemon")
    with database.write() as connection:
        state = fired(connection)
        same_group = fired(connection, "prod/same")
        quiet = fired(connection, "prod/quiet")
        for receiver in ("a", "b"):
            told(connection, receiver, "group", "first", state)
            told(connection, receiver, "group", "second", state, same_group)
        told(connection, "a", "another", "third", quiet)
        outbox.enqueue(connection, "no-stream", "a", "{}", NOW)
    first_to_a, *_ = deliveries.claim("a", NOW, 1)
    deliveries.settle([Result(first_to_a.id, TIMEOUT, later(60))], NOW)
    for entry in deliveries.claim("b", NOW, 9):
        deliveries.settle([Result(entry.id)], later(entry.id))
    with database.read() as connection:
        found = deliveries_of(connection, [state.identity, same_group.identity])
        none = deliveries_of(connection, [])
    assert none == {}
    assert found[same_group.identity] == found[state.identity]
    to_a, to_b = found[state.identity]
    assert (to_a.receiver, to_a.id, to_a.status) == ("a", first_to_a.id, OutboxStatus.WAITING)
    assert (to_a.attempts, to_a.next_attempt_at, to_a.settled_at) == (1, later(60), None)
    assert (to_a.error_reason, to_a.error_detail) == TIMEOUT
    assert (to_b.receiver, to_b.status) == ("b", OutboxStatus.DELIVERED)
    assert to_b.settled_at == later(to_b.id)


@pytest.mark.parametrize("number", [1, 1200])
def test_alerts_that_nobody_was_told_of_are_left_out_of_however_many(database: Database, number: int) -> None:
    with database.write() as connection:
        state = fired(connection)
        told(connection, "a", "group", "evt", state)
    others = [replace(state.identity, model=f"m{place}") for place in range(number)]
    with database.read() as connection:
        found = deliveries_of(connection, [*others, state.identity])
    assert found.keys() == {state.identity}


def test_a_group_whose_messages_are_forgotten_is_left_out(database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)
        alerts.save_told_to(connection, [("a", state)], {("a", state.identity): "group"})
        assert deliveries_of(connection, [state.identity]) == {}

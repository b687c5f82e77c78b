"""How things are in the store as a whole."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from firedalerts import ended, fired
from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.outbox import Result
from layerwatch.daemon.store import alerts, auditlog, condition, outbox, versions
from layerwatch.daemon.store.alertdeliveries import deliveries_of
from layerwatch.daemon.store.alertends import ended_alerts
from layerwatch.daemon.store.condition import ReceiverState
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.outbox import DatabaseOutbox
from layerwatch.daemon.store.records import VersionKey
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from storetools import NOW, judged, later, registered


def test_the_kind_of_a_database_and_its_size_are_known(database: Database) -> None:
    with database.read() as connection:
        kind, size = condition.kind_and_size(connection)
        assert kind.lower() == connection.dialect.name
    assert size > 10_000


def test_versions_that_a_registry_offers_are_counted(database: Database) -> None:
    with database.write() as connection:
        for version in ("v1", "v2"):
            judged(connection, version, model="fraud", registry="prod")
        registered(connection, "v1", "spam", "hub")
        registered(connection, "v1", "spam", "hub", fingerprint="other-bytes")
        judged(connection, "v9", model="fraud", registry="prod")
        versions.mark_gone(connection, "prod", "fraud", "v9", NOW)
        assert condition.versions_by_registry(connection) == {"prod": 2, "hub": 1}


def test_the_queue_tells_what_waits_what_runs_and_what_failed(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "v1", "running", now=later(-50))
        running = versions.claim_next(connection, NOW)
        registered(connection, "v1", "retried", now=later(-40))
        retried = versions.claim_next(connection, NOW)
        assert running is not None and retried is not None
        versions.release(connection, retried.id, later(60))
        registered(connection, "v1", "fresh", now=later(-30))
        for number in range(3):
            record = registered(connection, f"v{number}", "cut")
            found = [
                Finding(
                    "unreadable",
                    RuleGroup.EXAMINATION,
                    Severity.WARNING,
                    layer,
                    f"could not be examined: {layer}",
                    {"reason": "truncated"},
                )
                for layer in (None, "fc1")
            ]
            versions.record_verdict(
                connection, record.id, Verdict.UNDECIDED, "{}", found if number else [], later(number)
            )
        versions.mark_gone(connection, "r", "cut", "v1", NOW)
        queue = condition.queue(connection, 10)
        short = condition.queue(connection, 1)
    assert (queue.waiting, queue.oldest) == (2, later(-40))
    assert [one.key.model for one in queue.running] == ["running"]
    assert [(one.id, one.attempts, one.not_before) for one in queue.retrying] == [(retried.id, 1, later(60))]
    assert queue.unexamined == 2
    last, first = queue.last_unexamined
    assert (last.key, last.judged_at) == (VersionKey("r", "cut", "v2"), later(2))
    assert (last.layer, last.reason, last.words) == (None, "truncated", "could not be examined: None")
    assert (first.layer, first.reason, first.words) == (None, "", "")
    assert (short.unexamined, len(short.last_unexamined)) == (2, 1)


def test_each_receiver_is_told_of_apart(database: Database) -> None:
    deliveries = DatabaseOutbox(database, "daemon")
    refused = (DeliveryReason.CLIENT_ERROR, "it answered 404")
    with database.write() as connection:
        for receiver in ("fine", "stuck", "dead"):
            outbox.enqueue(connection, "first", receiver, "{}", later(-100))
            outbox.enqueue(connection, "second", receiver, "{}", later(-50))
    for entry in deliveries.claim("fine", NOW, 9):
        deliveries.settle([Result(entry.id)], later(-entry.id))
    stuck, _ = deliveries.claim("stuck", NOW, 9)
    deliveries.settle([Result(stuck.id, (DeliveryReason.TIMEOUT, "no answer"), later(9))], NOW)
    deliveries.settle([Result(entry.id, refused) for entry in deliveries.claim("dead", NOW, 9)], later(-5))
    with database.read() as connection:
        found = condition.receivers(connection, ["fine", "stuck", "dead", "new"], NOW)
    assert found["new"] == ReceiverState()
    assert found["fine"].delivered_at is not None
    assert (found["fine"].backlog, found["fine"].given_up) == (None, None)
    assert found["stuck"].backlog is not None
    assert (found["stuck"].backlog.waiting, found["stuck"].backlog.oldest) == (2, later(-100))
    assert (found["stuck"].error_reason, found["stuck"].error) == (DeliveryReason.TIMEOUT, "no answer")
    assert found["stuck"].next_attempt_at == later(9)
    assert found["dead"].given_up is not None
    assert (found["dead"].given_up.events, found["dead"].given_up.detail) == (2, "it answered 404")


def test_the_alerts_that_fire_about_models_are_counted(database: Database) -> None:
    with database.write() as connection:
        assert condition.firing_alerts(connection) == 0
        fired(connection)
        fired(connection, "layerwatch/oncall", ref="deliveries", group=RuleGroup.DELIVERY)
        assert condition.firing_alerts(connection) == 1


def test_nothing_of_it_looks_at_every_version_event_or_transition(sqlite_database: Database) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []

    def remember(
        connection: sa.Connection, cursor: object, statement: str, parameters: Any, *_: object
    ) -> None:
        asked.append((statement, parameters))

    with sqlite_database.write() as connection:
        state = fired(connection)
        ended(connection, fired(connection, "prod/other", now=later(-9)))
        alerts.save_told_to(connection, [("oncall", state)], {("oncall", state.identity): "group"})
        for event in ("first", "second"):
            outbox.enqueue(connection, event, "oncall", "{}", NOW, "group")
    with sqlite_database.read() as connection:
        sa.event.listen(connection, "before_cursor_execute", remember)
        condition.versions_by_registry(connection)
        condition.queue(connection, 5)
        condition.receivers(connection, ["oncall"], NOW)
        assert deliveries_of(connection, [state.identity])
        assert ended_alerts(connection, later(-99), 5)
        auditlog.list_(connection, 5)
        sa.event.remove(connection, "before_cursor_execute", remember)
        plans = {
            statement: [
                row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            ]
            for statement, values in asked
        }
    assert len(plans) > 10
    slow = {
        (statement, step)
        for statement, steps in plans.items()
        for step in steps
        if step in {f"SCAN {table}" for table in ("versions", "outbox", "alert_transitions", "findings")}
    }
    assert slow == set()

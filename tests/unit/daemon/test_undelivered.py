"""Events that a receiver never took are an alert of their own, told to whoever can be told."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

import pytest
import sqlalchemy as sa

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.model import AlertIdentity, AlertPhase, AlertState
from layerwatch.alerts.outbox import Result
from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.notifying import Notifier, Routing
from layerwatch.daemon.store import alerts, outbox
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.outbox import DatabaseOutbox, OutboxStatus
from layerwatch.daemon.undelivered import follow_deliveries
from layerwatch.metrics.findings import RuleGroup, Severity
from storetools import NOW, later
from tellings import events, routing
from verdicts import critical, judge

POLICY = AlertPolicy(Severity.CRITICAL, "https://watch.example")
REFUSED = (DeliveryReason.CLIENT_ERROR, "400")
BOTH = ("oncall", "chat")
FORK = {"routes": [{"receiver": "chat", "continue": True}, {}]}


def follow(connection: sa.Connection, now: datetime, receivers: Collection[str] = BOTH) -> bool:
    return follow_deliveries(connection, outbox.given_up(connection, now), receivers, POLICY, now)


def state(connection: sa.Connection, receiver: str = "chat") -> AlertState | None:
    identity = AlertIdentity("layerwatch", receiver, "deliveries", RuleGroup.DELIVERY)
    return alerts.load_state(connection, identity)


def phase(database: Database, receiver: str = "chat") -> AlertPhase | None:
    with database.read() as connection:
        found = state(connection, receiver)
    return None if found is None else found.phase


def refuse(database: Database, *names: str, seconds: float = 0, receiver: str = "chat") -> None:
    """Events that are queued and refused for good."""
    with database.write() as connection:
        for name in names:
            outbox.enqueue(connection, name, receiver, "{}", later(seconds))
    settle(database, receiver, seconds, taken=False)


def settle(database: Database, receiver: str, seconds: float, taken: bool) -> list[str]:
    """All that waits for a receiver is taken, or refused for good; the ids."""
    deliveries = DatabaseOutbox(database, "daemon")
    entries = deliveries.claim(receiver, later(seconds), 1000)
    deliveries.settle([Result(one.id, None if taken else REFUSED) for one in entries], later(seconds))
    return [one.event_id for one in entries]


def turn(database: Database, seconds: float, receivers: Collection[str] = BOTH) -> bool:
    with database.write() as connection:
        return follow(connection, later(seconds), receivers)


# The alert


def test_without_events_that_were_given_up_there_is_no_alert(database: Database) -> None:
    with database.write() as connection:
        outbox.enqueue(connection, "e", "chat", "{}", NOW)
        assert not follow(connection, later(1))
        assert alerts.list_states(connection) == []


def test_events_that_were_given_up_raise_a_critical_alert_about_their_receiver(database: Database) -> None:
    refuse(database, "a", "b", seconds=5)
    assert turn(database, 6)
    with database.read() as connection:
        found = state(connection)
        assert found is not None
        assert (found.phase, found.severity, found.rules) == (
            AlertPhase.FIRING,
            Severity.CRITICAL,
            ("undelivered",),
        )
        assert state(connection, "oncall") is None
        told = alerts.told_of(connection, found.identity) or ""
    assert (
        "2 events will not reach the receiver, given up since 2025-03-01 12:00 UTC (client_error: 400)"
        in (told)
    )
    assert "layerwatch delivery replay" in told


def test_looking_again_changes_nothing(database: Database) -> None:
    refuse(database, "a")
    assert turn(database, 1)
    assert not turn(database, 2)
    refuse(database, "b", seconds=3)
    assert not turn(database, 4)


@pytest.mark.parametrize("how", ["delivery", "replay", "replay of all", "removal"])
def test_it_ends_once_nothing_is_left_behind(database: Database, how: str) -> None:
    refuse(database, "a")
    turn(database, 1)
    with database.write() as connection:
        if how == "delivery":
            outbox.enqueue(connection, "b", "chat", "{}", later(2))
        elif how == "replay":
            (dead,) = outbox.list_outbox(connection, status=OutboxStatus.DEAD)
            outbox.replay(connection, dead.entry.id, later(2))
        elif how == "replay of all":
            outbox.replay_all(connection, "chat", later(2))
    if how == "delivery":
        settle(database, "chat", 3, taken=True)
    assert turn(database, 4, ["oncall"] if how == "removal" else BOTH)
    with database.read() as connection:
        found = state(connection)
    assert found is not None
    assert found.phase is AlertPhase.RESOLVED
    assert found.reason == ("ref_gone" if how == "removal" else "delivered")
    assert not turn(database, 5, ["oncall"] if how == "removal" else BOTH)


def test_one_of_two_that_is_replayed_leaves_the_other_behind(database: Database) -> None:
    refuse(database, "a", "b")
    turn(database, 1)
    with database.write() as connection:
        dead = outbox.list_outbox(connection, status=OutboxStatus.DEAD)
        outbox.replay(connection, dead[0].entry.id, later(2))
    assert not turn(database, 3)
    assert phase(database) is AlertPhase.FIRING


def test_what_is_refused_after_a_delivery_is_a_new_episode(database: Database) -> None:
    for episode, name in enumerate(["a", "b"], start=1):
        refuse(database, name, seconds=10 * episode)
        turn(database, 10 * episode + 1)
        with database.read() as connection:
            found = state(connection)
        assert found is not None
        assert (found.phase, found.episode) == (AlertPhase.FIRING, episode)
        with database.write() as connection:
            outbox.enqueue(connection, f"after {name}", "chat", "{}", later(10 * episode + 2))
        settle(database, "chat", 10 * episode + 3, taken=True)
        turn(database, 10 * episode + 4)


def test_receivers_that_are_not_configured_leave_nothing_behind(database: Database) -> None:
    refuse(database, "a", receiver="gone long ago")
    assert not turn(database, 1)


def test_alerts_about_a_registry_of_that_name_are_left_alone(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical(), model="chat")
        follow_refs(connection, "r", "chat", {"latest": "v5"}, POLICY, NOW)
        (fired,) = alerts.list_states(connection)
        named = replace(fired, identity=replace(fired.identity, registry="layerwatch"))
        alerts.save_state(connection, named)
        assert not follow(connection, later(1), receivers=["oncall"])
        assert alerts.load_state(connection, named.identity) == named


# Told


class Loop:
    """A notifier, and receivers that take what they are given or refuse it for good."""

    def __init__(self, database: Database, told: Routing) -> None:
        self.database = database
        self.seconds = 0.0
        self.routing = told
        self.notifier = Notifier(
            database,
            lambda: self.routing,
            lambda: POLICY,
            lambda: later(self.seconds),
            lambda receivers: None,
            lambda receiver, count: None,
        )

    def turn(self, seconds: float, **takes: bool) -> None:
        """The notifier looks, then each receiver gets what waits for it."""
        self.seconds = seconds
        self.notifier.wake()
        self.notifier.turn()
        for receiver, taken in takes.items():
            settle(self.database, receiver, seconds, taken)

    def told(self, receiver: str) -> list[tuple[str, str]]:
        """Subject and phase of everything that was ever queued for a receiver."""
        with self.database.read() as connection:
            return [(event["subject"], event["phase"]) for event in events(connection, receiver)]


def _break(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow_refs(connection, "r", "m", {"latest": "v5"}, POLICY, NOW)


def test_the_other_receivers_are_told_that_one_does_not_take_its_events_and_that_it_does_again(
    database: Database,
) -> None:
    _break(database)
    loop = Loop(database, routing(*BOTH, route=FORK))
    loop.turn(0, oncall=True, chat=False)
    loop.turn(1, oncall=True, chat=False)
    assert loop.told("oncall") == [("m v5 (latest)", "firing"), ("receiver chat", "firing")]
    with database.write() as connection:
        outbox.replay_all(connection, "chat", later(2))
    loop.turn(2, oncall=True, chat=True)
    loop.turn(3, oncall=True, chat=True)
    assert loop.told("oncall")[2:] == [("receiver chat", "resolved")]
    assert phase(database) is AlertPhase.RESOLVED


def test_a_receiver_that_is_removed_ends_the_alert_about_it(database: Database) -> None:
    _break(database)
    loop = Loop(database, routing(*BOTH, route=FORK))
    loop.turn(0, oncall=True, chat=False)
    loop.turn(1, oncall=True)
    loop.routing = routing("oncall")
    loop.turn(2, oncall=True)
    assert loop.told("oncall")[1:] == [("receiver chat", "firing"), ("receiver chat", "resolved")]


def test_a_dead_receiver_that_is_the_only_one_makes_no_loop(database: Database) -> None:
    _break(database)
    loop = Loop(database, routing("oncall"))
    for seconds in range(0, 3600, 30):
        loop.turn(seconds, oncall=False)
    assert loop.told("oncall") == [("m v5 (latest)", "firing")]
    assert phase(database, "oncall") is AlertPhase.FIRING
    # Of itself it is told nothing, not even that this is over.
    with database.write() as connection:
        outbox.replay_all(connection, "oncall", later(3600))
    loop.turn(3600, oncall=True)
    loop.turn(3601, oncall=True)
    loop.turn(3602, oncall=True)
    assert loop.told("oncall")[1:] == []
    assert phase(database, "oncall") is AlertPhase.RESOLVED


def test_two_dead_receivers_make_no_loop(database: Database) -> None:
    _break(database)
    loop = Loop(database, routing(*BOTH, route=FORK))
    for seconds in range(0, 3600, 30):
        loop.turn(seconds, oncall=False, chat=False)
    for receiver, other in zip(BOTH, reversed(BOTH), strict=True):
        assert sorted(loop.told(receiver)) == [("m v5 (latest)", "firing"), (f"receiver {other}", "firing")]


def test_a_receiver_that_refuses_nothing_but_ends_makes_no_loop(database: Database) -> None:
    _break(database)
    loop = Loop(database, routing("oncall"))
    loop.turn(0, oncall=True)
    with database.write() as connection:
        judge(connection, "v6")
        follow_refs(connection, "r", "m", {"latest": "v6"}, POLICY, later(1))
    deliveries = DatabaseOutbox(database, "daemon")
    for seconds in range(10, 3600, 10):
        loop.turn(seconds)
        entries = deliveries.claim("oncall", later(seconds), 100)
        refused = [REFUSED if '"layerwatch.alert.resolved"' in one.payload else None for one in entries]
        deliveries.settle(
            [Result(one.id, error) for one, error in zip(entries, refused, strict=True)], later(seconds)
        )
    assert len(loop.told("oncall")) < 6

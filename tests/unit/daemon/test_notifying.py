"""From alerts to queued events, on a real database: who is told of what, when, and that nothing is lost or told twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.alerts.grouping import Told
from layerwatch.alerts.model import AlertIdentity, AlertPhase
from layerwatch.alerts.outbox import Result
from layerwatch.alerts.silences import NewSilence
from layerwatch.config.matchers import parsed
from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.notifying import Notifier, Routing, due_now, queue
from layerwatch.daemon.store import alerts, outbox, silences, tables
from layerwatch.daemon.store.acknowledging import acknowledge
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.outbox import DatabaseOutbox, OutboxStatus
from layerwatch.daemon.store.records import Lineage
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from storetools import NOW, later
from tellings import ONCALL, event_ids, events, routing, tell
from verdicts import critical, judge, unread, warning

POLICY = AlertPolicy(fire_on=Severity.CRITICAL, external_url="https://watch.example")
HOUR = 3600.0
DAY = 24 * HOUR


def follow(
    connection: sa.Connection, seconds: float = 0, model: str = "m", policy: AlertPolicy = POLICY, **refs: str
) -> None:
    follow_refs(connection, "r", model, refs, policy, later(seconds))


def identity(model: str = "m", ref: str = "latest", group: RuleGroup = RuleGroup.WEIGHTS) -> AlertIdentity:
    return AlertIdentity("r", model, ref, group)


def about(event: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(model, ref, rule group, phase) of what an event tells."""
    return [(one["model"], one["ref"], one["group"], one["phase"]) for one in event["alerts"]]


def silence(connection: sa.Connection, matcher: str, ends: float, begins: float = 0) -> int:
    new = NewSilence(parsed([matcher]), "ann", "maintenance", later(begins), later(ends))
    return silences.add(connection, new, NOW).id


# One message


def test_two_refs_of_one_model_are_one_message(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5", champion="v5")
        (event,) = tell(connection, NOW)
    assert event["subject"] == "m v5 (champion, latest)"
    assert sorted(about(event)) == [
        ("m", "champion", "weights", "firing"),
        ("m", "latest", "weights", "firing"),
    ]
    assert event["labels"] == {"model": ["m"], "registry": ["r"]}
    assert (event["sequence"], event["reason"], event["muted"]) == (1, "first", 0)


def test_two_rule_groups_of_one_model_are_one_message_with_the_worst_first(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", warning(), critical(None, RuleGroup.INTEGRITY), unread("fc3"))
        follow(connection, policy=replace(POLICY, fire_on=Severity.WARNING), latest="v5")
        (event,) = tell(connection, NOW)
    worst, *others = event["alerts"]
    assert (worst["group"], worst["severity"]) == ("integrity", "critical")
    assert {one["group"] for one in others} == {"weights", "examination"}


def test_models_are_told_apart_unless_the_route_says_otherwise(database: Database) -> None:
    with database.write() as connection:
        for model in ("a", "b"):
            judge(connection, "v5", critical(), model=model)
            follow(connection, model=model, latest="v5")
        apart = tell(connection, NOW)
        assert [event["subject"] for event in apart] == ["a v5 (latest)", "b v5 (latest)"]
        # Under another name the same alerts are news.
        (together,) = tell(connection, NOW, routing("mail", route={"group_by": []}))
    assert (together["subject"], together["labels"]) == ("a v5 (latest) and 1 more version", {})


def test_what_is_told_names_links_numbers_and_labels_of_owners(database: Database) -> None:
    owners = [{"models": ["r/*"], "labels": {"team": "fraud"}}]
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        (event,) = tell(connection, NOW, routing("oncall", route={"group_by": ["team"]}, owners=owners))
    assert event["labels"] == {"team": ["fraud"]}
    (alert,) = event["alerts"]
    assert alert["links"]["report"].startswith("https://watch.example/report?")
    assert alert["acknowledged_by"] is None


# When


def test_the_first_alert_of_a_group_waits_for_others(database: Database) -> None:
    patient = routing("oncall", route={"group_wait": "30s"})
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        assert tell(connection, NOW, patient) == []
        assert due_now(connection, patient, NOW).plan.look_again == later(30)
        follow(connection, 20, latest="v5", champion="v5")
        assert tell(connection, later(29.9), patient) == []
        (event,) = tell(connection, later(30), patient)
    assert len(event["alerts"]) == 2


def test_an_alert_that_ends_before_anybody_was_told_is_told_to_nobody(database: Database) -> None:
    patient = routing("oncall", route={"group_wait": "30s"})
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6")
        follow(connection, latest="v5")
        tell(connection, NOW, patient)
        follow(connection, 20, latest="v6")
        assert tell(connection, later(60), patient) == []
        assert due_now(connection, patient, later(60)).plan.look_again is None


def test_between_two_messages_of_a_group_there_is_its_interval(database: Database) -> None:
    patient = routing("oncall", route={"group_interval": "5m"})
    with database.write() as connection:
        judge(connection, "v5", critical("fc1"))
        judge(connection, "v6", critical("fc1"), critical("fc2"))
        judge(connection, "v7")
        follow(connection, latest="v5")
        assert len(tell(connection, NOW, patient)) == 1
        follow(connection, 10, latest="v6")
        assert tell(connection, later(299), patient) == []
        (event,) = tell(connection, later(300), patient)
        assert (event["reason"], event["alerts"][0]["version"]) == ("new_layers", "v6")
        follow(connection, 310, latest="v7")
        assert tell(connection, later(599), patient) == []
        (event,) = tell(connection, later(600), patient)
        assert (event["phase"], event["reason"], event["sequence"]) == ("resolved", "version_passed", 3)


def test_an_alert_that_goes_on_is_told_again_under_a_new_id(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        tell(connection, NOW)
        assert tell(connection, later(12 * HOUR - 1)) == []
        (again,) = tell(connection, later(12 * HOUR))
        assert (again["reason"], again["transitions"], again["sequence"]) == ("repeat_interval", [], 2)
        assert "still firing since" in again["summary"]
        assert tell(connection, later(12 * HOUR + 1)) == []
        assert len(tell(connection, later(24 * HOUR))) == 1
        assert len(set(event_ids(connection))) == 3


def test_telling_a_second_time_at_the_same_moment_tells_nothing_and_writes_nothing(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        assert len(tell(connection, NOW)) == 1
    written: list[str] = []
    with database.write() as connection:

        @sa.event.listens_for(connection, "before_cursor_execute")
        def hear(connection: object, cursor: object, statement: str, *rest: object) -> None:
            if not statement.startswith("SELECT"):
                written.append(statement)

        assert tell(connection, later(1)) == []
    assert written == []


# How far receivers were told


def test_how_far_a_receiver_was_told_is_noted_with_the_event(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical("fc1"))
        judge(connection, "v6", critical("fc2"))
        judge(connection, "v7")
        for number, version in enumerate(["v5", "v6", "v7"], start=1):
            follow(connection, number, latest=version)
            (event,) = tell(connection, later(number))
            group = event["group_id"]
            assert alerts.load_told(connection) == {("oncall", identity()): Told(number, number < 3, group)}
            (record,) = alerts.load_groups(connection).values()
            assert (record.told_at, record.sequence) == (later(number), number)
            assert record.receiver == "oncall"
            assert len(event["transitions"]) == 1


def test_a_receiver_that_wants_no_ends_is_told_none(database: Database) -> None:
    quiet = routing("oncall", no_ends=["oncall"])
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6")
        follow(connection, latest="v5")
        tell(connection, NOW, quiet)
        follow(connection, 10, latest="v6")
        assert tell(connection, later(10), quiet) == []
        assert alerts.load_told(connection) == {("oncall", identity()): Told(2, False)}
        # The next begin is told.
        follow(connection, 20, latest="v5")
        (event,) = tell(connection, later(20), quiet)
        assert event["alerts"][0]["episode"] == 2


def test_an_alert_that_ended_and_began_again_in_between_is_told_as_what_it_is_now(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6")
        follow(connection, latest="v5")
        (first,) = tell(connection, NOW)
        follow(connection, 10, latest="v6")
        follow(connection, 20, latest="v5")
        (event,) = tell(connection, later(20))
    assert event["phase"] == "firing"
    assert event["alerts"][0]["alert_id"] != first["alerts"][0]["alert_id"]
    assert len(event["transitions"]) == 2


# Other configurations


def test_a_receiver_that_is_added_later_is_told_of_what_fires(database: Database) -> None:
    both = routing("oncall", "chat", route={"routes": [{"receiver": "chat", "continue": True}, {}]})
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6")
        follow(connection, latest="v5", champion="v6", old="v5")
        tell(connection, NOW)
        follow(connection, 5, latest="v5", champion="v6")
        tell(connection, later(5))
        told = tell(connection, later(60), both)
        assert events(connection, "chat") == told
    assert [about(event) for event in told] == [[("m", "latest", "weights", "firing")]]


def test_nobody_is_told_without_a_route_and_all_of_it_once_there_is_one(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        assert tell(connection, NOW, routing()) == []
        assert len(tell(connection, later(60))) == 1


def test_other_matchers_times_and_groups_tell_nothing_twice(database: Database) -> None:
    others: list[dict[str, Any]] = [
        {"group_by": ["model", "ref"]},
        {"group_by": ["..."]},
        {"group_by": []},
        {"routes": [{"matchers": ["severity=critical"]}]},
        {"routes": [{"matchers": ["model=m"], "continue": True}, {"matchers": ["registry=r"]}]},
    ]
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6")
        follow(connection, latest="v5", champion="v5")
        assert len(tell(connection, NOW)) == 1
        for number, route in enumerate(others):
            assert tell(connection, later(number), routing("oncall", route=route)) == []
        # Nor is anything lost: the ends are told, together as their beginnings were.
        follow(connection, 10, latest="v6", champion="v6")
        told = tell(connection, later(10), routing("oncall", route=others[0]))
        assert [(event["phase"], len(event["alerts"])) for event in told] == [("resolved", 2)]


def test_a_receiver_to_which_no_route_leads_any_more_is_told_of_the_end_alone(database: Database) -> None:
    moved = routing("oncall", "chat", route={"routes": [{"matchers": ["model=m"], "receiver": "chat"}]})
    with database.write() as connection:
        judge(connection, "v5", critical("fc1"))
        judge(connection, "v6", critical("fc2"))
        judge(connection, "v7")
        follow(connection, latest="v5")
        tell(connection, NOW)
        follow(connection, 1, latest="v6")
        tell(connection, later(1), moved)
        follow(connection, 2, latest="v7")
        tell(connection, later(2), moved)
        phases = {name: [one["phase"] for one in events(connection, name)] for name in ("oncall", "chat")}
    assert phases == {"oncall": ["firing", "resolved"], "chat": ["firing", "resolved"]}


def test_two_routes_to_one_receiver_tell_an_alert_once(database: Database) -> None:
    twice = routing(
        "oncall",
        route={"routes": [{"matchers": ["model=m"], "continue": True}, {"matchers": ["ref=latest"]}]},
    )
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        assert len(tell(connection, NOW, twice)) == 1


# People


def test_an_acknowledged_alert_is_not_told_again_but_its_news_and_its_end_are(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical("fc1"))
        judge(connection, "v6", critical("fc2"))
        judge(connection, "v7")
        follow(connection, latest="v5")
        tell(connection, NOW)
        acknowledge(connection, identity(), "ann", "on it", later(10))
        assert tell(connection, later(10)) == []
        assert tell(connection, later(DAY)) == []
        follow(connection, DAY, latest="v6")
        (news,) = tell(connection, later(DAY))
        assert news["reason"] == "new_layers"
        # It got worse than what was acknowledged: it is repeated again.
        assert news["alerts"][0]["acknowledged_by"] is None
        assert len(tell(connection, later(2 * DAY))) == 1
        acknowledge(connection, identity(), "bob", "my turn", later(2 * DAY))
        follow(connection, 3 * DAY, latest="v7")
        (end,) = tell(connection, later(3 * DAY))
        assert end["phase"] == "resolved"


def test_who_is_on_it_is_told_with_the_next_message_of_the_group(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        tell(connection, NOW)
        acknowledge(connection, identity(), "ann", "on it", later(10))
        follow(connection, 20, latest="v5", champion="v5")
        (event,) = tell(connection, later(20))
    assert {one["ref"]: one["acknowledged_by"] for one in event["alerts"]} == {
        "latest": "ann",
        "champion": None,
    }


def test_a_silence_mutes_and_its_expiry_tells(database: Database) -> None:
    with database.write() as connection:
        number = silence(connection, "model=m", ends=HOUR)
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        assert tell(connection, NOW) == []
        muted = due_now(connection, ONCALL, NOW).plan
        assert muted.muted == {identity(): f"silence {number} by ann: maintenance"}
        assert muted.look_again is not None
        assert muted.look_again <= later(HOUR)
        assert tell(connection, later(HOUR - 1)) == []
        (event,) = tell(connection, later(HOUR))
        assert (event["reason"], event["muted"]) == ("first", 0)


def test_a_silence_that_is_ended_early_tells_at_once(database: Database) -> None:
    with database.write() as connection:
        number = silence(connection, "model=m", ends=HOUR)
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        tell(connection, NOW)
        silences.expire(connection, number, "ann", later(60))
        assert len(tell(connection, later(60))) == 1


def test_a_silence_does_not_hold_back_the_end_of_what_was_told_before(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6")
        follow(connection, latest="v5")
        tell(connection, NOW)
        silence(connection, "model=m", ends=DAY, begins=10)
        assert tell(connection, later(13 * HOUR)) == []
        follow(connection, 14 * HOUR, latest="v6")
        (event,) = tell(connection, later(14 * HOUR))
        assert event["phase"] == "resolved"


def test_what_is_muted_in_a_group_is_counted(database: Database) -> None:
    with database.write() as connection:
        silence(connection, "ref=champion", ends=HOUR)
        judge(connection, "v5", critical())
        follow(connection, latest="v5", champion="v5")
        (event,) = tell(connection, NOW)
    assert (about(event), event["muted"]) == ([("m", "latest", "weights", "firing")], 1)


def test_an_inhibition_mutes_while_its_source_fires(database: Database) -> None:
    rules = [{"source": ["model=base"], "target": ["model=child"], "equal": ["registry"]}]
    told = routing("oncall", inhibitions=rules)
    with database.write() as connection:
        for model in ("base", "child"):
            judge(connection, "v5", critical(), model=model)
            judge(connection, "v6", model=model)
            follow(connection, model=model, latest="v5")
        assert [event["subject"] for event in tell(connection, NOW, told)] == ["base v5 (latest)"]
        follow(connection, 10, model="base", latest="v6")
        tell(connection, later(10), told)
        assert [event["subject"] for event in events(connection)][-1] == "child v5 (latest)"


def test_nothing_is_told_at_mute_times_and_all_of_it_after_them(database: Database) -> None:
    # NOW is noon in UTC.
    rest = [{"name": "lunch", "times": [{"hours": ["12:00-13:00"]}]}]
    told = routing("oncall", route={"mute_times": ["lunch"]}, mute_times=rest)
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        assert tell(connection, later(60), told) == []
        assert len(tell(connection, later(HOUR), told)) == 1


# What is said


def test_a_layer_that_cannot_be_examined_any_more_keeps_its_alert_and_the_text_says_so(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical("fc2"))
        judge(connection, "v6", unread("fc2"), verdict=Verdict.UNDECIDED)
        follow(connection, latest="v5")
        tell(connection, NOW)
        follow(connection, 10, latest="v6")
        (event,) = tell(connection, later(10))
    told = {one["group"]: one for one in event["alerts"]}
    assert told["weights"]["phase"] == "firing"
    assert told["weights"]["version"] == "v6"
    assert told["weights"]["headline"] == "undecided now, fc2 could not be examined; broken before in v5"
    assert told["weights"]["findings"] == []
    assert told["examination"]["phase"] == "firing"


def test_a_version_that_cannot_be_read_mutes_what_was_found_in_its_layers_before(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical("fc2"))
        judge(connection, "v6", unread(), verdict=Verdict.UNDECIDED)
        judge(connection, "v7", critical("fc2"))
        follow(connection, latest="v5")
        tell(connection, NOW)
        follow(connection, 10, latest="v6")
        (event,) = tell(connection, later(10))
        assert (about(event), event["muted"]) == ([("m", "latest", "examination", "firing")], 1)
        why = due_now(connection, ONCALL, later(10)).plan.muted[identity()]
        assert why == "the version could not be read, which is told instead"
        follow(connection, 20, latest="v7")
        (event,) = tell(connection, later(20))
    assert sorted(about(event)) == [
        ("m", "latest", "examination", "resolved"),
        ("m", "latest", "weights", "firing"),
    ]


def test_a_broken_parent_is_named(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v4", critical("fc9"))
        judge(connection, "v5", critical("fc2"), lineage=Lineage("v4", "finetuned"))
        follow(connection, latest="v5")
        (event,) = tell(connection, NOW)
    assert event["alerts"][0]["broken_parent"] == {"version": "v4", "layer": "fc9"}


def test_a_ref_that_is_moved_back_ends_its_alert_and_says_so(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v4")
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        tell(connection, NOW)
        follow(connection, 10, latest="v4")
        (event,) = tell(connection, later(10))
    assert (event["phase"], event["reason"]) == ("resolved", "moved_back")
    assert event["summary"].startswith(
        "m v4 (latest): resolved because the ref moved back to this version; was firing since"
    )


def test_a_rule_that_wants_several_scans_is_told_after_them(database: Database) -> None:
    patient = replace(POLICY, for_scans={"scaled": 3})
    with database.write() as connection:
        for number in range(1, 4):
            judge(connection, f"v{number}", critical())
            follow(connection, number, policy=patient, latest=f"v{number}")
            told = tell(connection, later(number))
            assert len(told) == (number == 3)
    assert told[0]["alerts"][0]["version"] == "v3"


def test_very_many_findings_are_one_message_of_bounded_size(database: Database) -> None:
    with database.write() as connection:
        for number in range(30):
            judge(connection, f"v{number}", *(critical(f"block{layer}.fc") for layer in range(40)))
        follow_refs(connection, "r", "m", {f"ref{number}": f"v{number}" for number in range(30)}, POLICY, NOW)
        (event,) = tell(connection, NOW)
        (record,) = outbox.list_outbox(connection)
    assert len(record.entry.payload.encode()) < 20_000
    assert len(event["alerts"]) + event["alerts_omitted"] == 30
    # Told is all of it, whatever fits into the message.
    with database.read() as connection:
        assert len(alerts.load_told(connection)) == 30
    assert len(event["transitions"]) == 30


# Kills


class Killed(BaseException):
    """As if the process ended here."""


def test_a_kill_before_the_transition_is_committed_loses_nothing(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
    with pytest.raises(Killed), database.write() as connection:
        follow(connection, latest="v5")
        raise Killed
    with database.write() as connection:
        assert tell(connection, later(1)) == []
        follow(connection, 2, latest="v5")
        assert len(tell(connection, later(2))) == 1


def test_a_kill_between_the_transition_and_its_event_loses_nothing_and_changes_no_id(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
    seen: list[str] = []
    for attempt in range(2):
        with pytest.raises(Killed), database.write() as connection:
            tell(connection, later(attempt))
            seen += event_ids(connection)
            raise Killed
        with database.read() as connection:
            assert (events(connection), alerts.load_told(connection), alerts.load_groups(connection)) == (
                [],
                {},
                {},
            )
    with database.write() as connection:
        assert len(tell(connection, later(5))) == 1
        assert seen == event_ids(connection) * 2


def test_what_changes_between_the_decision_and_the_event_is_not_told_as_something_else(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6")
        follow(connection, latest="v5")
        due = due_now(connection, ONCALL, NOW)
        follow(connection, 1, latest="v6")
        queue(connection, due.plan.events, due, later(1))
        tell(connection, later(2))
        for event in events(connection):
            for alert in event["alerts"]:
                assert alert["headline"].startswith("resolved") == (alert["phase"] == "resolved")
                assert (alert["reason"] == "first") == (alert["phase"] == "firing")


# The loop


class Loop:
    """A notifier with a clock and a configuration that the test sets.

    Attributes:
        woken: receivers for which events were queued, one entry for each call.
        gone: (receiver, events) that were given up.
    """

    def __init__(self, database: Database, told: Routing = ONCALL) -> None:
        self.now = NOW
        self.routing = told
        self.woken: list[set[str]] = []
        self.gone: list[tuple[str, int]] = []
        self.notifier = Notifier(
            database,
            lambda: self.routing,
            lambda: POLICY,
            lambda: self.now,
            self.woken.append,
            lambda receiver, count: self.gone.append((receiver, count)),
        )

    def turn(self, seconds: float | None = None) -> str:
        if seconds is not None:
            self.now = later(seconds)
        return self.notifier.turn()


@pytest.fixture
def loop(database: Database) -> Loop:
    return Loop(database)


def _fire(database: Database, seconds: float = 0, **refs: str) -> None:
    with database.write() as connection:
        follow_refs(connection, "r", "m", refs or {"latest": "v5"}, POLICY, later(seconds))


@pytest.fixture
def broken(database: Database) -> Database:
    """A store in which v5 is broken and v6 is not; no ref points anywhere yet."""
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6")
    return database


def test_a_turn_queues_what_is_due_and_wakes_its_receivers(broken: Database, loop: Loop) -> None:
    _fire(broken)
    assert loop.turn() == "notify: 1 events queued"
    assert loop.woken == [{"oncall"}]
    # One more look finds out when the next event is due.
    assert loop.turn() == "notify: 0 events queued"
    assert loop.turn() == "notify: nothing is due"


def test_a_turn_without_news_asks_the_store_nothing(broken: Database, loop: Loop) -> None:
    loop.turn()
    asked: list[str] = []

    def hear(connection: object, cursor: object, statement: str, *rest: object) -> None:
        asked.append(statement)

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", hear)
    try:
        assert loop.turn(14) == "notify: nothing is due"
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", hear)
    assert asked == []


def test_news_and_the_end_of_a_wait_and_a_while_make_a_turn_look(broken: Database, loop: Loop) -> None:
    loop.routing = routing("oncall", route={"group_wait": "5s"})
    loop.turn()
    _fire(broken)
    assert loop.turn(1) == "notify: nothing is due"
    loop.notifier.wake()
    assert loop.turn(2) == "notify: 0 events queued"
    assert loop.turn(4) == "notify: nothing is due"
    assert loop.turn(5) == "notify: 1 events queued"
    assert loop.turn(5) == "notify: 0 events queued"
    # A person changes something with a command: nobody says so.
    with broken.write() as connection:
        follow(connection, 6, latest="v6")
    assert loop.turn(19) == "notify: nothing is due"
    assert loop.turn(20) == "notify: 1 events queued"


def test_why_alerts_are_not_told_is_there_to_be_shown(broken: Database, loop: Loop) -> None:
    _fire(broken)
    with broken.write() as connection:
        number = silence(connection, "model=m", ends=60)
    loop.turn()
    assert loop.notifier.muted == {identity(): f"silence {number} by ann: maintenance"}
    loop.turn(60)
    assert loop.notifier.muted == {}
    assert loop.woken == [{"oncall"}]


def test_a_row_that_cannot_be_told_keeps_no_other_from_being_told(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with database.write() as connection:
        for model in ("a", "b"):
            judge(connection, "v5", critical(), model=model)
            follow_refs(connection, "r", model, {"latest": "v5"}, POLICY, NOW)
        alerts.save_told(connection, identity(model="a"), "{}")
        (event,) = tell(connection, later(60))
    assert [about["model"] for about in event["alerts"]] == ["b"]
    assert "cannot be made of what the store holds; please report it" in caplog.text


def test_what_an_older_layerwatch_left_firing_is_told(broken: Database, loop: Loop) -> None:
    _fire(broken)
    with broken.write() as connection:
        connection.execute(sa.update(tables.alert_states).values(told=None))
    assert loop.turn() == "notify: 0 events queued"
    _fire(broken)
    assert loop.turn(20) == "notify: 1 events queued"


def test_severities_that_an_alert_had_before_are_told_until_its_end(database: Database) -> None:
    with database.write() as connection:
        policy = AlertPolicy(Severity.WARNING, None)
        for number, findings in enumerate([(warning("fc1"),), (critical("fc1"),), ()]):
            judge(connection, f"v{number}", *findings)
            follow_refs(connection, "r", "m", {"latest": f"v{number}"}, policy, later(number))
        (told,) = [alerts.told_of(connection, identity())]
    assert told is not None
    assert (json.loads(told)["phase"], json.loads(told)["milder"]) == ("resolved", ["warning"])


def test_after_an_error_of_the_store_the_next_turn_looks_again(broken: Database, loop: Loop) -> None:
    loop.turn()
    _fire(broken)
    loop.notifier.wake()

    def refuse(connection: sa.Connection) -> None:
        raise StoreError(StoreReason.DISK_FULL, "no space")

    broken.fence(refuse)
    with pytest.raises(StoreError):
        loop.turn(1)
    broken.fence(lambda connection: None)
    assert loop.turn(2) == "notify: 1 events queued"


def test_a_kill_between_two_lots_of_events_loses_none_and_tells_none_twice(
    database: Database, loop: Loop
) -> None:
    models = 600
    with database.write() as connection:
        for number in range(models):
            judge(connection, "v5", critical(), model=f"m{number}")
            follow(connection, model=f"m{number}", latest="v5")

    def die(receivers: set[str]) -> None:
        raise Killed

    loop.notifier._queued = die
    with pytest.raises(Killed):
        loop.turn()
    with database.read() as connection:
        some = event_ids(connection)
    assert 0 < len(some) < models
    after = Loop(database)
    assert after.turn(1) == f"notify: {models - len(some)} events queued"
    with database.read() as connection:
        assert len(set(event_ids(connection))) == models
        assert len({event["subject"] for event in events(connection)}) == models


def test_what_waits_for_a_receiver_that_is_removed_is_given_up(broken: Database, loop: Loop) -> None:
    _fire(broken)
    loop.routing = routing("oncall", "chat", route={"routes": [{"receiver": "chat", "continue": True}, {}]})
    loop.turn()
    loop.routing = ONCALL
    loop.notifier.wake()
    loop.turn(1)
    assert loop.gone == [("chat", 1)]
    with broken.read() as connection:
        states = {one.entry.receiver: one.status for one in outbox.list_outbox(connection)}
        assert states == {"oncall": OutboxStatus.WAITING, "chat": OutboxStatus.DEAD}
        assert {receiver for receiver, _ in alerts.load_told(connection)} == {"oncall"}


@pytest.mark.parametrize("delivered", [True, False])
def test_a_receiver_that_comes_back_is_told_of_what_fires(
    broken: Database, loop: Loop, delivered: bool
) -> None:
    both = routing("oncall", "chat", route={"routes": [{"receiver": "chat", "continue": True}, {}]})
    _fire(broken)
    loop.routing = both
    loop.turn()
    deliveries = DatabaseOutbox(broken, "daemon")
    if delivered:
        deliveries.settle([Result(one.id) for one in deliveries.claim("chat", NOW, 9)], NOW)
    for seconds, told in ((1, ONCALL), (2, both)):
        loop.routing = told
        loop.notifier.wake()
        loop.turn(seconds)
    waiting = [json.loads(entry.payload)["data"] for entry in deliveries.claim("chat", later(2), 9)]
    assert ("m", "latest", "weights", "firing") in [one for event in waiting for one in about(event)]


@pytest.mark.parametrize("step", [-DAY, DAY])
def test_a_clock_that_jumps_by_a_day_delays_no_news_and_repeats_at_most_once(
    broken: Database, loop: Loop, step: float
) -> None:
    loop.routing = routing("oncall", route={"group_interval": "5m"})
    _fire(broken)
    loop.turn()
    for seconds in range(0, 60, 15):
        loop.turn(step + seconds)
    with broken.read() as connection:
        repeated = [event["reason"] for event in events(connection)][1:]
    assert repeated == (["repeat_interval"] if step > 0 else [])
    _fire(broken, step + 60, latest="v6")
    loop.notifier.wake()
    loop.turn(step + 60)
    loop.turn(step + 420)
    with broken.read() as connection:
        assert events(connection)[-1]["phase"] == "resolved"


# Random histories

_VERSIONS: dict[str, tuple[Finding, ...]] = {
    "v1": (),
    "v2": (critical("fc1"),),
    "v3": (critical("fc1"), critical("fc2")),
    "v4": (warning("fc1"),),
    "v5": (critical("fc3", RuleGroup.INTEGRITY), warning("fc3")),
    "v6": (unread("fc1"),),
    "v7": (unread(),),
    "v8": (),
}
_FORKS: list[dict[str, Any]] = [
    {"routes": [{"receiver": "chat", "continue": True}, {}]},
    {"routes": [{"receiver": "chat", "continue": True, "group_by": []}, {"group_by": ["model", "ref"]}]},
    {
        "routes": [
            {"receiver": "chat", "matchers": ["severity=critical"], "continue": True},
            {"matchers": ["ref=latest"], "group_wait": "10s"},
            {"receiver": "chat", "matchers": ["model=a"], "group_interval": "60s"},
        ]
    },
    {"repeat_interval": "5m", "routes": [{"matchers": ["rule=scaled"], "receiver": "chat"}]},
]
_ROUTINGS = [routing("oncall", "chat", route=fork) for fork in _FORKS]

_ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["move", "move", "move", "drop", "tell", "silence", "unsilence", "reroute"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["latest", "champion"]),
        st.sampled_from(sorted(_VERSIONS)),
        st.sampled_from([0, 5, 60, 600, 50_000, -30, -86_400]),
        st.booleans(),
    ),
    max_size=25,
)


def _attempt(database: Database, killed: bool, work: Callable[[sa.Connection], object]) -> bool:
    """Do something in a transaction, unless the process is killed before it is committed; whether it was."""
    try:
        with database.write() as connection:
            work(connection)
            if killed:
                raise Killed
    except Killed:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(actions=_ACTIONS)
def test_whatever_happens_every_transition_is_told_once_to_each_receiver_in_its_order(
    actions: list[tuple[str, str, str, str, int, bool]],
) -> None:
    with TemporaryDirectory() as folder:
        database = Database.open(f"sqlite:///{Path(folder) / 'layerwatch.db'}")
        try:
            _play(database, actions)
            _check(database)
        finally:
            database.close()


def _play(database: Database, actions: list[tuple[str, str, str, str, int, bool]]) -> None:
    eager = replace(POLICY, fire_on=Severity.WARNING)
    targets: dict[str, dict[str, str]] = {"a": {}, "b": {}}
    told = _ROUTINGS[0]
    now, numbers = NOW, list[int]()
    with database.write() as connection:
        for model in targets:
            for version, findings in _VERSIONS.items():
                verdict = Verdict.UNDECIDED if version in ("v6", "v7") else None
                judge(connection, version, *findings, model=model, verdict=verdict)

    def tell_now(connection: sa.Connection) -> None:
        alerts.turn_back(connection, now)
        tell(connection, now, told)

    for action, model, ref, version, step, killed in actions:
        now += timedelta(seconds=step)
        if action in ("move", "drop"):
            wanted = {**targets[model], ref: version}
            if action == "drop":
                del wanted[ref]
            work = _following(model, wanted, eager, now)
            # After a kill the daemon looks again and finds the same.
            while not _attempt(database, killed, work):
                killed = False
            targets[model] = wanted
        elif action == "tell":
            _attempt(database, killed, tell_now)
        elif action == "silence":
            with database.write() as connection:
                new = NewSilence(parsed([f"model={model}"]), "ann", "why", now, now + timedelta(hours=1))
                numbers.append(silences.add(connection, new, now).id)
        elif action == "unsilence" and numbers:
            with database.write() as connection:
                ended = numbers.pop()
                if silences.get(connection, ended).state(now) != "expired":
                    silences.expire(connection, ended, "ann", now)
        elif action == "reroute":
            told = _ROUTINGS[(_ROUTINGS.index(told) + 1) % len(_ROUTINGS)]
    # Silences end, intervals pass: all that may be told is told.
    now = max(now, NOW) + timedelta(days=30)
    for _ in range(3):
        now += timedelta(minutes=2)
        with database.write() as connection:
            tell_now(connection)
    with database.read() as connection:
        known = alerts.load_told(connection)
        for state in alerts.list_states(connection, AlertPhase.FIRING):
            if state.identity in due_now(connection, told, now).plan.muted:
                continue
            heard = [known.get((receiver, state.identity)) for receiver in ("oncall", "chat")]
            assert (state.sequence, True) in [(one.sequence, one.firing) for one in heard if one is not None]


def _following(
    model: str, wanted: dict[str, str], policy: AlertPolicy, now: datetime
) -> Callable[[sa.Connection], object]:
    return lambda connection: follow_refs(connection, "r", model, wanted, policy, now)


def _check(database: Database) -> None:
    with database.read() as connection:
        rows = connection.execute(sa.select(tables.alert_transitions)).all()
        made = {
            row.event_id: (AlertIdentity(row.registry, row.model, row.ref, RuleGroup(row.rule_group)), row)
            for row in rows
        }
        known = alerts.load_told(connection)
        assert len(event_ids(connection)) == len(set(event_ids(connection)))
        for receiver in ("oncall", "chat"):
            said = events(connection, receiver)
            covered = [one for event in said for one in event["transitions"]]
            assert len(covered) == len(set(covered)), "told twice"
            expected = {
                event_id
                for event_id, (alert, row) in made.items()
                if (receiver, alert) in known and row.sequence <= known[receiver, alert].sequence
            }
            assert set(covered) == expected, "lost"
            last: dict[tuple[str, str, str], dict[str, Any]] = {}
            for event in said:
                for one in event["alerts"]:
                    key = (one["model"], one["ref"], one["group"])
                    if key in last:
                        assert one["sequence"] >= last[key]["sequence"], "told in the wrong order"
                    last[key] = one
            # What the receiver makes of it is what the daemon believes it to know.
            for (name, alert), heard in known.items():
                if name == receiver:
                    believed = last[alert.model, alert.ref, alert.group.value]
                    assert (believed["sequence"], believed["phase"] == "firing") == (
                        heard.sequence,
                        heard.firing,
                    )
            numbers: dict[str, int] = {}
            for event in said:
                assert event["sequence"] > numbers.get(event["group_id"], 0)
                numbers[event["group_id"]] = event["sequence"]

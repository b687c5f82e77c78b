"""From refs to alert states and events, on a real database."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from layerwatch.alerts.model import AlertIdentity, AlertPhase, AlertState
from layerwatch.alerts.receivers.log import LogReceiver
from layerwatch.daemon.alerting import AlertPolicy, follow_refs, tell_again
from layerwatch.daemon.store import alerts, baselines, refs, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from storetools import NOW, later, registered

LOG = logging.getLogger("test.alerting")
POLICY = AlertPolicy(
    fire_on=Severity.CRITICAL,
    receivers={"oncall": LogReceiver("oncall", LOG)},
    repeat_interval=timedelta(hours=12),
    external_url="https://watch.example",
)
WITHOUT_RESOLVED = AlertPolicy(
    Severity.CRITICAL, {"oncall": LogReceiver("oncall", LOG, send_resolved=False)}, timedelta(hours=12), None
)


def critical(layer: str | None = "fc2", group: RuleGroup = RuleGroup.WEIGHTS) -> Finding:
    return Finding("scaled", group, Severity.CRITICAL, layer, "norm ratio 8.0", {"norm_ratio": 8.0}, 2.0)


def warning(layer: str | None = "fc2") -> Finding:
    return Finding(
        "zero_rows", RuleGroup.WEIGHTS, Severity.WARNING, layer, "3 rows are zero", {"rows": 3}, 1.0
    )


def unread(layer: str | None = None) -> Finding:
    return Finding(
        "unreadable",
        RuleGroup.EXAMINATION,
        Severity.WARNING,
        layer,
        "truncated",
        {"reason": "truncated"},
        1.0,
    )


def judge(
    connection: sa.Connection, name: str, *findings: Finding, verdict: Verdict | None = None
) -> VersionRecord:
    """A judged version; its verdict follows from its findings unless given."""
    severities = {finding.severity for finding in findings if finding.group is not RuleGroup.EXAMINATION}
    if verdict is None:
        verdict = Verdict.FAIL if Severity.CRITICAL in severities else Verdict.PASS
    record = registered(connection, name)
    report = json.dumps(
        {"baseline": {"version": "v0", "relation": None, "chosen_by": "history"}, "layers": []}
    )
    versions.record_verdict(connection, record.id, verdict, report, list(findings), NOW)
    return record


def follow(
    connection: sa.Connection, seconds: float = 0, policy: AlertPolicy = POLICY, **targets: str
) -> bool:
    return follow_refs(connection, "r", "m", targets, policy, later(seconds))


def pointed(connection: sa.Connection) -> dict[str, str]:
    found = {}
    for ref in refs.list_refs(connection, "r", "m"):
        record = versions.get(connection, ref.version_id)
        assert record is not None
        found[ref.ref] = record.key.version
    return found


def state(
    connection: sa.Connection, group: RuleGroup = RuleGroup.WEIGHTS, ref: str = "latest"
) -> AlertState | None:
    return alerts.load_state(connection, AlertIdentity("r", "m", ref, group))


def phase(connection: sa.Connection, group: RuleGroup = RuleGroup.WEIGHTS) -> AlertPhase | None:
    found = state(connection, group)
    return None if found is None else found.phase


def events(connection: sa.Connection) -> list[dict[str, Any]]:
    """The payloads' data, oldest first."""
    return [json.loads(record.entry.payload)["data"] for record in reversed(alerts.list_outbox(connection))]


def told(connection: sa.Connection) -> list[tuple[str, str]]:
    return [(event["phase"], event["reason"]) for event in events(connection)]


# Refs


def test_a_ref_appears_once_its_version_is_judged(database: Database) -> None:
    with database.write() as connection:
        record = registered(connection, "v1")
        assert not follow(connection, latest="v1")
        assert pointed(connection) == {}
        versions.record_verdict(connection, record.id, Verdict.PASS, "{}", [], NOW)
        assert follow(connection, latest="v1")
        assert pointed(connection) == {"latest": "v1"}


def test_a_ref_stays_with_the_old_version_until_the_new_one_is_judged(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1", critical())
        follow(connection, latest="v1")
        registered(connection, "v2")
        assert not follow(connection, latest="v2")
        assert pointed(connection) == {"latest": "v1"}
        assert phase(connection) is AlertPhase.FIRING


def test_a_ref_to_a_version_nobody_registered_stays_where_it_is(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1")
        follow(connection, latest="v1")
        assert not follow(connection, latest="v9")
        assert pointed(connection) == {"latest": "v1"}


def test_a_ref_stays_with_the_old_bytes_until_those_that_replaced_them_are_judged(database: Database) -> None:
    with database.write() as connection:
        old = judge(connection, "v1", critical())
        follow(connection, latest="v1")
        new = registered(connection, "v1", fingerprint="other bytes")
        follow(connection, latest="v1")
        assert [ref.version_id for ref in refs.list_refs(connection)] == [old.id]
        versions.record_verdict(connection, new.id, Verdict.PASS, "{}", [], NOW)
        follow(connection, latest="v1")
        assert [ref.version_id for ref in refs.list_refs(connection)] == [new.id]
        assert phase(connection) is AlertPhase.RESOLVED


# Life of an alert


def test_a_critical_finding_fires_with_the_layer_and_the_baseline(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical("fc2"))
        assert follow(connection, latest="v5")
        assert told(connection) == [("firing", "first")]
        (event,) = events(connection)
        assert event["version"] == "v5"
        assert "fc2" in json.dumps(event["findings"])
        assert event["baseline"]["version"] == "v0"
        assert "https://watch.example" in json.dumps(event)


def test_a_warning_does_not_fire_unless_the_policy_says_so(database: Database) -> None:
    eager = AlertPolicy(Severity.WARNING, POLICY.receivers, POLICY.repeat_interval, None)
    with database.write() as connection:
        judge(connection, "v1", warning(), verdict=Verdict.WARN)
        follow(connection, latest="v1")
        assert told(connection) == []
        follow(connection, policy=eager, latest="v1")
        assert told(connection) == [("firing", "first")]


def test_following_a_second_time_queues_nothing(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1", critical(), critical("fc3"))
        assert follow(connection, latest="v1")
        before = state(connection)
        for seconds in (1, 60, 3600):
            assert not follow(connection, seconds, latest="v1")
        assert state(connection) == before
        assert told(connection) == [("firing", "first")]


def test_a_transaction_that_is_rolled_back_leaves_nothing_and_its_repetition_has_the_same_event_id(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v1", critical())

    def ids() -> list[str]:
        with database.read() as connection:
            return [record.entry.event_id for record in alerts.list_outbox(connection)]

    seen: list[str] = []
    for attempt in range(2):
        with pytest.raises(KeyboardInterrupt), database.write() as connection:
            follow(connection, attempt, latest="v1")
            seen.extend(record.entry.event_id for record in alerts.list_outbox(connection))
            raise KeyboardInterrupt
        assert ids() == []
        with database.read() as connection:
            assert (pointed(connection), state(connection)) == ({}, None)
    with database.write() as connection:
        follow(connection, 5, latest="v1")
    assert {*seen, *ids()} == set(ids())
    assert len(ids()) == 1


def test_a_healthy_version_resolves_the_alert(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        judge(connection, "v6")
        assert follow(connection, 10, latest="v6")
        assert told(connection) == [("firing", "first"), ("resolved", "version_passed")]
        assert [event["version"] for event in events(connection)] == ["v5", "v6"]


def test_a_receiver_that_wants_no_resolutions_gets_none(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, policy=WITHOUT_RESOLVED, latest="v5")
        judge(connection, "v6")
        assert follow(connection, policy=WITHOUT_RESOLVED, latest="v6")
        assert told(connection) == [("firing", "first")]
        assert phase(connection) is AlertPhase.RESOLVED


def test_rolling_back_resolves_and_rolling_forward_again_is_a_new_episode_with_new_event_ids(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v4")
        judge(connection, "v5", critical())
        for second, version in enumerate(["v4", "v5", "v4", "v5", "v4"]):
            follow(connection, second, latest=version)
        assert [one for one, _ in told(connection)] == ["firing", "resolved", "firing", "resolved"]
        ids = [record.entry.event_id for record in alerts.list_outbox(connection)]
        assert len(set(ids)) == 4
        sequences = [event["sequence"] for event in events(connection)]
        assert sequences == [1, 2, 3, 4]


def test_each_ref_has_alerts_of_its_own(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v4")
        judge(connection, "v5", critical())
        follow(connection, latest="v5", champion="v4")
        assert phase(connection) is AlertPhase.FIRING
        assert state(connection, ref="champion") is None


def test_each_group_has_an_alert_of_its_own(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical("fc2"), critical(None, RuleGroup.INTEGRITY))
        follow(connection, latest="v5")
        assert phase(connection, RuleGroup.WEIGHTS) is AlertPhase.FIRING
        assert phase(connection, RuleGroup.INTEGRITY) is AlertPhase.FIRING
        judge(connection, "v6", critical("fc2"))
        follow(connection, latest="v6")
        assert phase(connection, RuleGroup.WEIGHTS) is AlertPhase.FIRING
        assert phase(connection, RuleGroup.INTEGRITY) is AlertPhase.RESOLVED


def test_an_alert_that_goes_on_is_repeated_after_the_interval(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        follow(connection, timedelta(hours=11.9).total_seconds(), latest="v5")
        assert len(told(connection)) == 1
        follow(connection, timedelta(hours=12).total_seconds(), latest="v5")
        assert told(connection)[1:] == [("firing", "repeat_interval")]


# What is gone


def test_a_ref_that_is_gone_is_removed_and_its_alerts_resolve(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical(), unread("fc3"))
        follow(connection, latest="v5", champion="v5")
        assert follow(connection, 10, latest="v5")
        assert pointed(connection) == {"latest": "v5"}
        ended = [event for event in events(connection) if event["phase"] == "resolved"]
        assert [(event["ref"], event["reason"]) for event in ended] == [("champion", "ref_gone")] * 2
        assert phase(connection) is AlertPhase.FIRING


def test_a_model_that_is_gone_loses_its_refs_and_resolves_its_alerts(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        assert follow(connection, 10)
        assert pointed(connection) == {}
        assert told(connection)[-1] == ("resolved", "ref_gone")
        assert not follow(connection, 20)


def test_a_model_that_comes_back_fires_again(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        follow(connection, 10)
        assert follow(connection, 20, latest="v5")
        found = state(connection)
        assert found is not None
        assert (found.phase, found.episode) == (AlertPhase.FIRING, 2)


# Accepting


def test_accepting_the_version_resolves_its_alert_about_weights(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        baselines.accept(connection, "r", "m", "v5", "ann", "meant to be so", later(5))
        assert follow(connection, 10, latest="v5")
        assert phase(connection) is AlertPhase.RESOLVED


def test_accepting_does_not_silence_integrity_or_examination(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical(), critical(None, RuleGroup.INTEGRITY), unread("fc3"))
        baselines.accept(connection, "r", "m", "v5", "ann", "meant to be so", NOW)
        follow(connection, latest="v5")
        assert phase(connection, RuleGroup.WEIGHTS) is None
        assert phase(connection, RuleGroup.INTEGRITY) is AlertPhase.FIRING
        assert phase(connection, RuleGroup.EXAMINATION) is AlertPhase.FIRING


def test_an_accepted_version_stays_quiet_while_another_one_is_pinned(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v3")
        judge(connection, "v5", critical())
        baselines.pin(connection, "r", "m", "v3", "ann", "reference", NOW)
        baselines.accept(connection, "r", "m", "v5", "ann", "meant to be so", NOW)
        follow(connection, latest="v5")
        assert told(connection) == []


def test_accepting_another_version_later_takes_nothing_back(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6", critical())
        baselines.accept(connection, "r", "m", "v5", "ann", "meant to be so", NOW)
        baselines.accept(connection, "r", "m", "v6", "ann", "so is this", later(1))
        follow(connection, 2, champion="v5", latest="v6")
        assert told(connection) == []


def test_a_receiver_that_is_added_later_is_told_of_what_is_firing(database: Database) -> None:
    nobody = AlertPolicy(Severity.CRITICAL, {}, timedelta(hours=12), None)
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6")
        follow(connection, policy=nobody, latest="v5", champion="v6")
        assert told(connection) == []
        assert tell_again(connection, POLICY, later(60))
        assert told(connection) == [("firing", "repeat_interval")]
        assert events(connection)[0]["version"] == "v5"


def test_other_bytes_under_the_accepted_name_fire(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        baselines.accept(connection, "r", "m", "v5", "ann", "meant to be so", NOW)
        follow(connection, latest="v5")
        new = registered(connection, "v5", fingerprint="other bytes")
        versions.record_verdict(connection, new.id, Verdict.FAIL, "{}", [critical()], NOW)
        follow(connection, latest="v5")
        assert phase(connection) is AlertPhase.FIRING


# Undecided


def test_what_could_not_be_examined_fires_in_its_own_group_whatever_its_severity(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", unread(), verdict=Verdict.UNDECIDED)
        follow(connection, latest="v5")
        assert phase(connection, RuleGroup.EXAMINATION) is AlertPhase.FIRING
        assert phase(connection, RuleGroup.WEIGHTS) is None


@pytest.mark.parametrize("where", [None, "fc2"])
def test_a_version_that_could_not_be_examined_does_not_resolve_an_alert_about_weights(
    database: Database, where: str | None
) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical("fc2"))
        follow(connection, latest="v5")
        judge(connection, "v6", unread(where), verdict=Verdict.UNDECIDED)
        follow(connection, 10, latest="v6")
        assert phase(connection, RuleGroup.WEIGHTS) is AlertPhase.FIRING
        assert phase(connection, RuleGroup.EXAMINATION) is AlertPhase.FIRING
        judge(connection, "v7")
        follow(connection, 20, latest="v7")
        assert phase(connection, RuleGroup.WEIGHTS) is AlertPhase.RESOLVED
        assert phase(connection, RuleGroup.EXAMINATION) is AlertPhase.RESOLVED


def test_another_layer_that_could_not_be_examined_does_not_keep_the_alert_from_resolving(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical("fc2"))
        follow(connection, latest="v5")
        judge(connection, "v6", unread("fc9"), verdict=Verdict.UNDECIDED)
        follow(connection, 10, latest="v6")
        assert phase(connection, RuleGroup.WEIGHTS) is AlertPhase.RESOLVED


def test_undecided_keeps_the_alert_also_where_the_rule_that_would_say_so_is_switched_off(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical("fc2"))
        follow(connection, latest="v5")
        judge(connection, "v6", verdict=Verdict.UNDECIDED)
        follow(connection, 10, latest="v6")
        assert phase(connection, RuleGroup.WEIGHTS) is AlertPhase.FIRING

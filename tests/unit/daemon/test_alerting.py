"""From refs to alert states and their transitions, on a real database."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from layerwatch.alerts.model import AlertIdentity, AlertPhase, AlertState
from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.store import alerts, baselines, refs, tables, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import Lineage
from layerwatch.metrics.findings import RuleGroup, Severity, Verdict
from storetools import NOW, later, registered
from verdicts import critical, judge, unread, warning

POLICY = AlertPolicy(fire_on=Severity.CRITICAL, external_url="https://watch.example")


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


def transitions(connection: sa.Connection) -> list[Any]:
    """Rows, oldest first."""
    return list(connection.execute(sa.select(tables.alert_transitions).order_by("id")))


def changes(connection: sa.Connection) -> list[tuple[str, str]]:
    return [(one.phase, one.reason) for one in transitions(connection)]


def described(
    connection: sa.Connection, group: RuleGroup = RuleGroup.WEIGHTS, ref: str = "latest"
) -> dict[str, Any]:
    """What messages tell about an alert."""
    told = alerts.told_of(connection, AlertIdentity("r", "m", ref, group))
    assert told is not None
    found: dict[str, Any] = json.loads(told)
    return found


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
        assert changes(connection) == [("firing", "first")]
        told = described(connection)
        assert told["version"] == "v5"
        assert [finding["layer"] for finding in told["findings"]] == ["fc2"]
        assert told["baseline"]["version"] == "v0"
        assert all(link.startswith("https://watch.example/") for link in told["links"].values())


def test_a_warning_does_not_fire_unless_the_policy_says_so(database: Database) -> None:
    eager = AlertPolicy(Severity.WARNING, None)
    with database.write() as connection:
        judge(connection, "v1", warning(), verdict=Verdict.WARN)
        follow(connection, latest="v1")
        assert changes(connection) == []
        follow(connection, policy=eager, latest="v1")
        assert changes(connection) == [("firing", "first")]


def test_following_a_second_time_changes_nothing(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1", critical(), critical("fc3"))
        assert follow(connection, latest="v1")
        before = state(connection)
        for seconds in (1, 60, 3600):
            assert not follow(connection, seconds, latest="v1")
        assert state(connection) == before
        assert changes(connection) == [("firing", "first")]


def test_a_transaction_that_is_rolled_back_leaves_nothing_and_its_repetition_has_the_same_id(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v1", critical())

    seen: list[str] = []
    for attempt in range(2):
        with pytest.raises(KeyboardInterrupt), database.write() as connection:
            follow(connection, attempt, latest="v1")
            seen.extend(one.event_id for one in transitions(connection))
            raise KeyboardInterrupt
        with database.read() as connection:
            assert (transitions(connection), pointed(connection), state(connection)) == ([], {}, None)
    with database.write() as connection:
        follow(connection, 5, latest="v1")
        (kept,) = transitions(connection)
    assert seen == [kept.event_id] * 2


def test_a_healthy_version_resolves_the_alert(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        judge(connection, "v6")
        assert follow(connection, 10, latest="v6")
        assert changes(connection) == [("firing", "first"), ("resolved", "version_passed")]
        assert [one.version for one in transitions(connection)] == ["v5", "v6"]
        assert described(connection)["headline"] == "resolved, no finding about weights left"


def test_rolling_back_resolves_and_rolling_forward_again_is_a_new_episode_with_new_ids(
    database: Database,
) -> None:
    with database.write() as connection:
        judge(connection, "v4")
        judge(connection, "v5", critical())
        for second, version in enumerate(["v4", "v5", "v4", "v5", "v4"]):
            follow(connection, second, latest=version)
        assert changes(connection) == [("firing", "first"), ("resolved", "moved_back")] * 2
        found = transitions(connection)
        assert len({one.event_id for one in found}) == 4
        assert [(one.sequence, one.episode) for one in found] == [(1, 1), (2, 1), (3, 2), (4, 2)]


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


def test_a_new_layer_and_a_worse_finding_are_changes_and_fewer_of_them_are_none(database: Database) -> None:
    eager = replace(POLICY, fire_on=Severity.WARNING)
    with database.write() as connection:
        judge(connection, "v5", warning("fc2"), verdict=Verdict.WARN)
        judge(connection, "v6", warning("fc2"), warning("fc3"), verdict=Verdict.WARN)
        judge(connection, "v7", critical("fc3"))
        judge(connection, "v8", warning("fc3"), verdict=Verdict.WARN)
        for seconds, version in enumerate(["v5", "v6", "v7", "v8"]):
            follow(connection, seconds, eager, latest=version)
        assert [reason for _, reason in changes(connection)] == ["first", "new_layers", "raised_severity"]
        found = state(connection)
        assert found is not None
        assert (found.severity, found.layers) == (Severity.CRITICAL, ("fc2", "fc3"))
        # What is told is about the version that is there now.
        assert (found.version, found.rules) == ("v8", ("zero_rows",))
        assert described(connection)["version"] == "v8"


def test_a_rule_that_wants_several_scans_waits_for_them(database: Database) -> None:
    patient = replace(POLICY, for_scans={"scaled": 3})
    with database.write() as connection:
        for number in range(1, 4):
            judge(connection, f"v{number}", critical())
            for _ in range(2):
                # Two looks at one scan are one scan.
                follow(connection, number, patient, latest=f"v{number}")
            assert phase(connection) is (AlertPhase.FIRING if number == 3 else AlertPhase.PENDING)
        assert changes(connection) == [("firing", "first")]


def test_a_rule_that_wants_several_scans_in_a_row_starts_anew_after_a_healthy_one(database: Database) -> None:
    patient = replace(POLICY, for_scans={"scaled": 2})
    with database.write() as connection:
        for number, found in enumerate([[critical()], [], [critical()], [critical(rule="other")]]):
            judge(connection, f"v{number}", *found)
            follow(connection, number, patient, latest=f"v{number}")
        # The other rule fires at once; the patient one found something in one scan in a row only.
        fired = state(connection)
        assert fired is not None
        assert (fired.phase, fired.rules) == (AlertPhase.FIRING, ("other",))
        assert changes(connection) == [("firing", "first")]


# What is told


def test_numbers_diagnoses_and_what_was_not_examined_come_from_the_report(database: Database) -> None:
    layers = [
        {
            "name": "fc2",
            "status": "broken",
            "metrics": {"alpha": 22.6},
            "change": {"alpha_baseline": 5.3, "alpha_shift_sigmas": 24.0, "spectral_ratio": 0.125},
        },
        {"name": "fc3", "status": "undecided", "metrics": {}, "change": None},
    ]
    diagnosis = {"layer": "fc2", "title": "scaled", "likely_cause": "a wrong unit", "what_to_do": "look"}
    with database.write() as connection:
        judge(connection, "v5", critical("fc2"), layers=layers, diagnoses=[diagnosis])
        follow(connection, latest="v5")
        told = described(connection)
    assert told["findings"][0]["numbers"] == "alpha 5.3 -> 22.6, 24 sigma; spectral norm down 8x"
    assert told["diagnoses"] == [diagnosis]
    assert told["undecided_layers"] == 1


def test_a_parent_that_is_broken_itself_is_named_with_its_worst_layer(database: Database) -> None:
    child = Lineage("v4", "finetuned")
    with database.write() as connection:
        judge(connection, "v4", critical("fc9"), warning("fc1"))
        judge(connection, "v5", critical("fc2"), lineage=child)
        follow(connection, latest="v5")
        assert described(connection)["broken_parent"] == {"version": "v4", "layer": "fc9"}


@pytest.mark.parametrize("why", ["healthy", "accepted", "unknown"])
def test_a_parent_that_is_not_known_to_be_broken_is_not_named(database: Database, why: str) -> None:
    with database.write() as connection:
        if why != "unknown":
            judge(connection, "v4", *([critical("fc9")] if why == "accepted" else []))
        if why == "accepted":
            baselines.accept(connection, "r", "m", "v4", "ann", "meant to be so", NOW)
        judge(connection, "v5", critical("fc2"), lineage=Lineage("v4", "finetuned"))
        follow(connection, latest="v5")
        assert described(connection)["broken_parent"] is None


# What is gone


def test_a_ref_that_is_gone_is_removed_and_its_alerts_resolve(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical(), unread("fc3"))
        follow(connection, latest="v5", champion="v5")
        assert follow(connection, 10, latest="v5")
        assert pointed(connection) == {"latest": "v5"}
        ended = [one for one in transitions(connection) if one.phase == "resolved"]
        assert [(one.ref, one.reason) for one in ended] == [("champion", "ref_gone")] * 2
        assert phase(connection) is AlertPhase.FIRING


def test_a_model_that_is_gone_loses_its_refs_and_resolves_its_alerts(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        follow(connection, latest="v5")
        assert follow(connection, 10)
        assert pointed(connection) == {}
        assert changes(connection)[-1] == ("resolved", "ref_gone")
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
        assert changes(connection)[-1] == ("resolved", "version_accepted")


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
        assert changes(connection) == []


def test_accepting_another_version_later_takes_nothing_back(database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v5", critical())
        judge(connection, "v6", critical())
        baselines.accept(connection, "r", "m", "v5", "ann", "meant to be so", NOW)
        baselines.accept(connection, "r", "m", "v6", "ann", "so is this", later(1))
        follow(connection, 2, champion="v5", latest="v6")
        assert changes(connection) == []


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

"""Composites follow their members, on a real database and in a running daemon."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from layerwatch.alerts.model import AlertIdentity, AlertPhase
from layerwatch.config.composites import COMPOSITES, CompositeSettings
from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.composites import follow_composites
from layerwatch.daemon.snapshot import Snapshot
from layerwatch.daemon.store import alerts, baselines, refs, retention, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionRecord, VersionState
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from layerwatch.metrics.report import Report
from layerwatch_testing.daemons import RunningApp, directory, write_config
from layerwatch_testing.examinations import settings
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld
from storetools import NOW, later, registered
from tellings import events, tell

POLICY = AlertPolicy(Severity.CRITICAL, None)
SEARCH = CompositeSettings(name="search", members=("local/encoder@latest", "local/ranker@latest"))


def follow(
    connection: sa.Connection,
    *composites: CompositeSettings,
    now: datetime = NOW,
    rules: RulesSettings | None = None,
    policy: AlertPolicy = POLICY,
) -> bool:
    """Also tells what follows, to a receiver that is told at once."""
    changed = follow_composites(connection, composites or (SEARCH,), rules or RulesSettings(), policy, now)
    tell(connection, now)
    return changed


def publish(
    connection: sa.Connection,
    model: str,
    version: str,
    verdict: Verdict = Verdict.PASS,
    group: RuleGroup = RuleGroup.WEIGHTS,
    fingerprint: str | None = None,
) -> VersionRecord:
    """A judged version of a member, which its ref points at."""
    severity = {Verdict.PASS: None, Verdict.FAIL: Severity.CRITICAL}.get(verdict, Severity.WARNING)
    found = [Finding("scaled", group, severity, "fc", "scaled")] if severity is not None else []
    record = registered(connection, version, model, "local", fingerprint)
    if record.state is VersionState.JUDGED:
        versions.reopen(connection, record.id)
    versions.record_verdict(connection, record.id, verdict, "{}", found, NOW)
    follow_refs(connection, "local", model, {"latest": version}, POLICY, NOW)
    return record


def composite(connection: sa.Connection, name: str = "search") -> VersionRecord:
    (ref,) = refs.list_refs(connection, COMPOSITES, name)
    record = versions.get(connection, ref.version_id)
    assert record is not None
    return record


def phase(connection: sa.Connection) -> AlertPhase | None:
    state = alerts.load_state(connection, AlertIdentity(COMPOSITES, "search", "latest", RuleGroup.WEIGHTS))
    return None if state is None else state.phase


def told(connection: sa.Connection) -> list[dict[str, Any]]:
    """What was queued about composites, oldest first."""
    return [event for event in events(connection) if event["labels"]["registry"] == [COMPOSITES]]


def messages(connection: sa.Connection) -> list[tuple[Severity, str]]:
    found = versions.findings(connection, composite(connection).id)
    return [(finding.severity, finding.message) for finding in found]


def test_a_composite_of_healthy_members_passes_under_the_names_of_their_versions(database: Database) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7")
        publish(connection, "ranker", "v3")
        assert follow(connection)
        record = composite(connection)
        assert (record.key.version, record.verdict) == ("v7+v3", Verdict.PASS)
        assert versions.models(connection) == [
            ("composites", "search"),
            ("local", "encoder"),
            ("local", "ranker"),
        ]
        assert record.report is not None
        report = Report.model_validate_json(record.report)
        assert report.model.source == "local/encoder@latest: v7, local/ranker@latest: v3"
        assert told(connection) == []


@pytest.mark.parametrize(
    ("verdict", "worst", "severity"),
    [
        (Verdict.WARN, Verdict.WARN, Severity.WARNING),
        (Verdict.UNDECIDED, Verdict.UNDECIDED, Severity.WARNING),
        (Verdict.FAIL, Verdict.FAIL, Severity.CRITICAL),
    ],
)
def test_a_composite_is_as_bad_as_its_worst_member(
    database: Database, verdict: Verdict, worst: Verdict, severity: Severity
) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7", verdict)
        publish(connection, "ranker", "v3")
        follow(connection)
        assert composite(connection).verdict is worst
        assert messages(connection) == [
            (severity, f"its member local/encoder@latest (v7) has the verdict {verdict}")
        ]


def test_a_failed_member_fires_and_its_repair_resolves(database: Database) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7")
        publish(connection, "ranker", "v3")
        follow(connection)
        publish(connection, "encoder", "v8", Verdict.FAIL)
        assert follow(connection, now=later(1))
        assert phase(connection) is AlertPhase.FIRING
        publish(connection, "encoder", "v9")
        assert follow(connection, now=later(2))
        assert phase(connection) is AlertPhase.RESOLVED
        fired, resolved = told(connection)
        assert fired["summary"].startswith(
            "search v8+v3 (latest): its member local/encoder@latest (v8) has the verdict fail"
        )
        assert (resolved["phase"], resolved["alerts"][0]["version"]) == ("resolved", "v9+v3")


def test_doing_it_again_changes_and_tells_nothing(database: Database) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7")
        publish(connection, "ranker", "v3")
        follow(connection)
        publish(connection, "encoder", "v8", Verdict.FAIL)
        follow(connection, now=later(1))
        before = (composite(connection), messages(connection), told(connection))
        for seconds in (2, 3):
            assert not follow(connection, now=later(seconds))
        assert (composite(connection), messages(connection), told(connection)) == before
        assert not follow(connection, now=later(13 * 3600))
        assert [event["reason"] for event in told(connection)] == ["first", "repeat_interval"]


def test_without_a_change_nothing_is_written(database: Database) -> None:
    with database.write() as connection:
        for version in ("v5", "v6", "v7"):
            publish(connection, "encoder", version)
            publish(connection, "ranker", "v3")
            follow(connection)
        written: list[str] = []

        @sa.event.listens_for(connection, "before_cursor_execute")
        def hear(connection: object, cursor: object, statement: str, *rest: object) -> None:
            if not statement.startswith("SELECT"):
                written.append(statement)

        assert not follow(connection, now=later(30))
        assert written == []
        publish(connection, "ranker", "v3", Verdict.WARN)
        follow(connection, now=later(60))
        assert written


def test_a_composite_that_fails_and_becomes_undecided_is_told_again(database: Database) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7", Verdict.FAIL)
        publish(connection, "ranker", "v3")
        follow(connection)
        publish(connection, "encoder", "v8", Verdict.UNDECIDED)
        assert follow(connection, now=later(1))
        assert not follow(connection, now=later(2))
        # Undecided is never pass: the failure stands until somebody knows better.
        assert phase(connection) is AlertPhase.FIRING
        first, second = told(connection)
        assert [one["group"] for one in first["alerts"]] == ["weights"]
        assert [one["group"] for one in second["alerts"]] == ["examination"]
        assert second["muted"] == 1
        assert "its member local/encoder@latest (v8) has the verdict undecided" in second["summary"]
        publish(connection, "encoder", "v9")
        follow(connection, now=later(3))
        assert [event["phase"] for event in told(connection)] == ["firing", "firing", "resolved"]
        assert [one["phase"] for one in told(connection)[-1]["alerts"]] == ["resolved"] * 2


def test_a_member_that_is_another_version_is_information_until_the_next_change(database: Database) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7")
        publish(connection, "ranker", "v3")
        follow(connection)
        publish(connection, "encoder", "v8")
        follow(connection, now=later(1))
        follow(connection, now=later(2))
        ((severity, message),) = messages(connection)
        assert severity is Severity.INFO
        assert "local/encoder@latest is another version now, v8 instead of v7" in message
        assert composite(connection).verdict is Verdict.PASS

        # Another verdict of the same versions is no change of them, and does not make one forgotten.
        publish(connection, "ranker", "v3", Verdict.WARN)
        follow(connection, now=later(3))
        assert [severity for severity, _ in messages(connection)] == [Severity.WARNING, Severity.INFO]

        publish(connection, "ranker", "v4")
        follow(connection, now=later(4))
        ((_, message),) = messages(connection)
        assert "local/ranker@latest is another version now, v4 instead of v3" in message


def test_going_back_is_a_change_too(database: Database) -> None:
    with database.write() as connection:
        for version in ("v7", "v8"):
            publish(connection, "encoder", version)
            publish(connection, "ranker", "v3")
            follow(connection)
        first = {one.key.version: one.gone_at for one in versions.current_of_registry(connection, COMPOSITES)}
        assert first == {"v7+v3": NOW, "v8+v3": None}
        follow_refs(connection, "local", "encoder", {"latest": "v7"}, POLICY, NOW)
        follow(connection)
        assert composite(connection).key.version == "v7+v3"
        ((_, message),) = messages(connection)
        assert "v7 instead of v8" in message


def test_a_member_whose_bytes_were_replaced_makes_a_new_revision(database: Database) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7")
        publish(connection, "ranker", "v3")
        follow(connection)
        publish(connection, "encoder", "v7", Verdict.FAIL, fingerprint="other")
        follow(connection)
        record = composite(connection)
        assert (record.key.version, record.revision, record.verdict) == ("v7+v3", 2, Verdict.FAIL)


def test_nothing_is_said_before_a_member_was_seen_and_a_missing_one_is_undecided(database: Database) -> None:
    with database.write() as connection:
        assert not follow(connection)
        assert versions.models(connection) == []
        publish(connection, "ranker", "v3")
        follow(connection)
        record = composite(connection)
        assert (record.key.version, record.verdict) == ("none+v3", Verdict.UNDECIDED)
        assert phase(connection) is None
        publish(connection, "encoder", "v7")
        follow(connection)
        assert messages(connection) == []
        assert composite(connection).verdict is Verdict.PASS


def test_what_people_accept_ends_the_alert_of_the_composite(database: Database) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7", Verdict.FAIL)
        publish(connection, "ranker", "v3", Verdict.FAIL)
        follow(connection)
        assert phase(connection) is AlertPhase.FIRING
        baselines.accept(connection, "local", "encoder", "v7", "me", "as wanted", NOW)
        follow(connection)
        assert [message for _, message in messages(connection)] == [
            "its member local/ranker@latest (v3) has the verdict fail"
        ]
        baselines.accept(connection, COMPOSITES, "search", "v7+v3", "me", "the stacker was fitted anew", NOW)
        assert follow(connection)
        assert phase(connection) is AlertPhase.RESOLVED
        assert composite(connection).verdict is Verdict.FAIL
        assert not follow(connection)


def test_an_accepted_member_is_still_undecided_or_tampered_with(database: Database) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7", Verdict.FAIL, RuleGroup.INTEGRITY)
        publish(connection, "ranker", "v3", Verdict.UNDECIDED)
        for model, version in (("encoder", "v7"), ("ranker", "v3")):
            baselines.accept(connection, "local", model, version, "me", "as wanted", NOW)
        follow(connection)
        assert [severity for severity, _ in messages(connection)] == [Severity.CRITICAL, Severity.WARNING]


def test_a_composite_that_is_configured_no_more_is_gone_and_its_alert_resolves(database: Database) -> None:
    other = SEARCH.model_copy(update={"name": "other"})
    with database.write() as connection:
        publish(connection, "encoder", "v7", Verdict.FAIL)
        publish(connection, "ranker", "v3")
        follow(connection, SEARCH, other)
        assert follow(connection, other)
        assert [model for registry, model in versions.models(connection) if registry == COMPOSITES] == [
            "other"
        ]
        assert phase(connection) is AlertPhase.RESOLVED
        assert told(connection)[-1]["reason"] == "ref_gone"
        assert not follow(connection, other)
        follow(connection, SEARCH, other)
        assert phase(connection) is AlertPhase.FIRING


def test_the_rule_can_be_switched_off_and_the_verdict_stays(database: Database) -> None:
    with database.write() as connection:
        publish(connection, "encoder", "v7", Verdict.FAIL)
        publish(connection, "ranker", "v3")
        follow(connection, rules=settings("member_failed", enabled=False))
        assert composite(connection).verdict is Verdict.FAIL
        assert phase(connection) is None


def test_many_members_with_long_names_make_a_short_name_of_their_own(database: Database) -> None:
    with database.write() as connection:
        for version in ("1" * 200, "1" * 199 + "2"):
            publish(connection, "encoder", version)
            publish(connection, "ranker", "v3")
            follow(connection)
        names = {one.key.version for one in versions.current_of_registry(connection, COMPOSITES)}
        assert len(names) == 2
        assert {len(name) for name in names} == {113}


def test_gauges_and_retention_treat_it_as_any_model(database: Database) -> None:
    with database.write() as connection:
        for number in range(5):
            publish(connection, "encoder", f"v{number}", Verdict.FAIL)
            publish(connection, "ranker", "v3")
            follow(connection, now=later(number))
    snapshot = Snapshot(database, 1000)
    snapshot.refresh()
    labels = 'model="search",ref="latest",registry="composites"'
    lines = [
        line for line in snapshot.text.decode().splitlines() if line.startswith("layerwatch_model_verdict{")
    ]
    (line,) = [line for line in lines if "composites" in line]
    assert (set(line.split("{")[1].split("}")[0].split(",")), line.split()[-1]) == (
        set(labels.split(",")),
        "2.0",
    )
    with database.write() as connection:
        retention.prune(connection, 2, NOW)
        kept = {one.key.version for one in versions.of_model(connection, COMPOSITES, "search")}
        assert "v4+v3" in kept
        assert "v0+v3" not in kept
        assert not follow(connection, now=later(9))


def test_a_daemon_shows_a_composite_and_its_failed_member(tmp_path: Path) -> None:
    world = DirectoryWorld(tmp_path, marker=None)
    world.publish("encoder", "v1")
    world.publish("ranker", "v1", network(2))
    path = write_config(
        tmp_path / "layerwatch.yaml",
        directory("local", world.root),
        receivers=[{"name": "journal", "kind": "log"}],
    )
    config = json.loads(path.read_text())
    config["composites"] = [SEARCH.model_dump(mode="json")]
    path.write_text(json.dumps(config))
    labels = {"registry": "composites", "model": "search", "ref": "latest"}

    with RunningApp(path) as daemon:
        until(
            lambda: daemon.sample("layerwatch_model_verdict", **labels) == 0, "the verdict of the composite"
        )
        world.publish("encoder", "v2", with_nan(finetuned(network())))
        until(lambda: daemon.sample("layerwatch_model_verdict", **labels) == 2, "the failed composite")
        shown = {one["model"]: one for one in daemon.get("/api/v1/models").json()}
        assert shown["search"] == {
            "registry": "composites",
            "model": "search",
            "refs": [{"ref": "latest", "version": "v2+v1", "verdict": "fail"}],
        }
        firing = {one["model"] for one in daemon.get("/api/v1/alerts", phase="firing").json()}
        assert firing == {"encoder", "search"}
        report = daemon.get("/report", **labels).json()
        assert report["findings"][0]["message"] == "its member local/encoder@latest (v2) has the verdict fail"
        del config["composites"]
        path.write_text(json.dumps(config))
        assert daemon.post("/-/reload").status_code == 200
        assert daemon.sample("layerwatch_model_verdict", **labels) is None
        assert {one["model"] for one in daemon.get("/api/v1/alerts", phase="firing").json()} == {"encoder"}

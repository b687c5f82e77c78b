"""Retention forgets what is old and never what is needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.model import AlertPhase, Transition
from layerwatch.alerts.outbox import Result
from layerwatch.alerts.silences import NewSilence
from layerwatch.config.matchers import parsed
from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.store import (
    alerts,
    auditlog,
    baselines,
    contents,
    lineage,
    measurements,
    outbox,
    refs,
    silences,
    tables,
    versions,
)
from layerwatch.daemon.store.alerts import GroupRecord
from layerwatch.daemon.store.auditlog import Action, Actor, AuditEntry, Authentication
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.lineage import WEIGHTS, LineageEdge
from layerwatch.daemon.store.outbox import DatabaseOutbox
from layerwatch.daemon.store.records import Lineage, VersionKey, VersionRecord
from layerwatch.daemon.store.retention import Pruned, prune
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.merge import MergeMethod, MergeRecipe
from storetools import NOW, NewDatabase, content, damage, firing, judged, later, measurement, registered

_NOTHING = Pruned(
    reports=0,
    versions=0,
    contents=0,
    comparisons=0,
    measurements=0,
    events=0,
    transitions=0,
    silences=0,
    audit=0,
    deferred=False,
)


def _measured(connection: sa.Connection, *records: VersionRecord, shared: Iterable[str] = ()) -> None:
    """Contents for these versions, each with one layer of its own and the shared ones."""
    for record in records:
        digests = (f"digest-of-{record.fingerprint}", *shared)
        for digest in digests:
            measurements.save(connection, measurement(digest), NOW)
        contents.save(connection, content(record.fingerprint, *digests), NOW)


def _is_whole(connection: sa.Connection, record: VersionRecord) -> bool:
    """True when report, content and measurements of a version are there; False when none of them is."""
    stored = versions.get(connection, record.id)
    parts = {
        stored is not None and stored.report is not None,
        contents.load(connection, record.fingerprint, METRIC_SET) is not None,
        measurements.known(connection, f"digest-of-{record.fingerprint}"),
    }
    assert len(parts) == 1, "half forgotten"
    return parts.pop()


def _history(connection: sa.Connection, count: int, verdict: Verdict = Verdict.PASS) -> list[VersionRecord]:
    records = [judged(connection, str(number), verdict) for number in range(1, count + 1)]
    _measured(connection, *records)
    return records


def _whole(connection: sa.Connection, records: list[VersionRecord]) -> list[str]:
    return [record.key.version for record in records if _is_whole(connection, record)]


def test_the_newest_versions_stay_and_one_before_them_to_judge_against(database: Database) -> None:
    with database.write() as connection:
        # 9 and 10 in natural order.
        records = _history(connection, 10)
        pruned = prune(connection, 3, NOW)
        assert _whole(connection, records) == ["7", "8", "9", "10"]
        assert pruned == replace(_NOTHING, reports=6, contents=6, measurements=6)
        assert prune(connection, 3, NOW) == _NOTHING


def test_the_row_of_a_version_that_is_still_offered_stays_so_that_it_is_not_scanned_again(
    database: Database,
) -> None:
    with database.write() as connection:
        records = _history(connection, 4)
        prune(connection, 1, NOW)
        old = versions.get(connection, records[0].id)
        assert old == replace(records[0], report=None)
        assert len(versions.findings(connection, records[0].id)) == 1
        assert registered(connection, "1") == old


def test_old_rows_of_gone_and_superseded_versions_are_removed_with_their_findings(database: Database) -> None:
    with database.write() as connection:
        superseded = judged(connection, "1", fingerprint="first")
        registered(connection, "1", fingerprint="second")
        gone = judged(connection, "2")
        versions.mark_gone(connection, "r", "m", "2", NOW)
        kept = [judged(connection, str(number)) for number in range(3, 6)]
        versions.record_verdict(connection, superseded.id + 1, Verdict.PASS, "{}", [], NOW)
        pruned = prune(connection, 2, NOW)
        assert versions.get(connection, superseded.id) is None
        assert versions.get(connection, gone.id) is None
        assert versions.findings(connection, gone.id) == []
        assert pruned.versions == 2
        assert [versions.get(connection, record.id) for record in kept] == kept


def test_the_nearest_passing_version_is_kept_however_long_ago_it_was(database: Database) -> None:
    with database.write() as connection:
        good = judged(connection, "1", Verdict.WARN)
        bad = [judged(connection, str(number), Verdict.FAIL) for number in range(2, 9)]
        _measured(connection, good, *bad)
        prune(connection, 2, NOW)
        assert _whole(connection, [good, *bad]) == ["1", "7", "8"]
        found = versions.previous_passing(connection, "r", "m", "9")
    assert found is not None
    assert found.id == good.id


def test_what_people_and_refs_name_is_kept(database: Database) -> None:
    with database.write() as connection:
        records = _history(connection, 9)
        baselines.accept(connection, "r", "m", "1", "ann", "", NOW)
        baselines.accept(connection, "r", "m", "2", "ann", "", NOW)
        baselines.pin(connection, "r", "m", "3", "ann", "", NOW)
        refs.point(connection, "r", "m", "champion", records[4].id, NOW)
        prune(connection, 1, NOW)
        # 1 was accepted before 2; 8 is what 9 is judged against.
        assert _whole(connection, records) == ["2", "3", "5", "8", "9"]
        assert len(baselines.history(connection, "r", "m")) == 3


def test_what_a_kept_version_was_merged_from_is_kept(database: Database) -> None:
    recipe = MergeRecipe(MergeMethod.TASK_ARITHMETIC, (1.0, 1.0), "2")
    with database.write() as connection:
        records = [judged(connection, str(number)) for number in range(1, 8)]
        merged = Lineage("2", "merged", "lineage.json", 1.0, ("3", "4"), recipe)
        records.append(judged(connection, "8", lineage=merged))
        _measured(connection, *records)
        prune(connection, 1, NOW)
        # 7 is the nearest passing version before 8.
        assert _whole(connection, records) == ["2", "3", "4", "7", "8"]


def test_the_declared_parent_of_a_kept_version_is_kept_but_not_its_whole_ancestry(database: Database) -> None:
    with database.write() as connection:
        records = [
            judged(connection, str(number), lineage=Lineage(parent, "finetuned", "card", 1.0))
            for number, parent in ((1, None), (2, "1"), (3, None), (4, None), (5, None), (6, "2"))
        ]
        _measured(connection, *records)
        prune(connection, 1, NOW)
        assert _whole(connection, records) == ["2", "5", "6"]


def test_what_versions_of_other_models_were_made_from_is_kept(database: Database) -> None:
    with database.write() as connection:
        records = _history(connection, 6)
        child = judged(connection, "q", model="int8")
        lineage.save_declared(connection, child.id, [DeclaredLineage("m/2", None, "card")], NOW)
        found = LineageEdge("r/m/3", records[2].id, None, WEIGHTS, 0.9, {"distance": 0.1})
        lineage.save_found(connection, child.id, [found], NOW)
        prune(connection, 1, NOW)
        # What only the weights show is no reason: it may be a thousand versions of one model.
        assert _whole(connection, records) == ["2", "5", "6"]


def test_the_bytes_that_a_firing_alert_is_about_are_kept(database: Database) -> None:
    with database.write() as connection:
        records = _history(connection, 6)
        alerts.save_state(connection, firing(records[1]))
        resolved = replace(firing(records[2], ref="old"), phase=AlertPhase.RESOLVED)
        alerts.save_state(connection, resolved)
        prune(connection, 1, later(10**9))
        assert _whole(connection, records) == ["2", "5", "6"]
        assert len(alerts.list_states(connection)) == 2


def test_a_version_that_waits_is_kept_with_what_its_scan_will_ask_for(database: Database) -> None:
    with database.write() as connection:
        before = judged(connection, "1")
        replaced = judged(connection, "2", fingerprint="replaced")
        _measured(connection, before, replaced)
        waiting = registered(connection, "2", fingerprint="new")
        later_ones = [judged(connection, str(number)) for number in range(3, 7)]
        prune(connection, 1, NOW)
        assert versions.get(connection, waiting.id) == waiting
        # Were the replaced bytes readable?
        assert versions.previous_revision(connection, waiting) == replace(
            replaced, current=False, report=None
        )
        assert _is_whole(connection, replaced)
        assert _is_whole(connection, before)
        assert versions.previous_passing(connection, "r", "m", "2") == replace(before, report=None)
        assert versions.get(connection, later_ones[-1].id) == later_ones[-1]


def test_a_measurement_that_a_kept_version_shares_is_kept(database: Database) -> None:
    with database.write() as connection:
        records = [judged(connection, str(number)) for number in range(1, 5)]
        _measured(connection, *records, shared=["embedding"])
        prune(connection, 1, NOW)
        assert measurements.known(connection, "embedding")
        kept = contents.load(connection, records[-1].fingerprint, METRIC_SET)
        assert kept is not None
        assert all(measurements.known(connection, layer.digest or "") for layer in kept.layers)


def test_bytes_that_two_models_share_stay_for_the_one_that_keeps_them(database: Database) -> None:
    with database.write() as connection:
        records = _history(connection, 5)
        other = judged(connection, "1", model="other", fingerprint=records[0].fingerprint)
        prune(connection, 1, NOW)
        assert _is_whole(connection, other)
        old = versions.get(connection, records[0].id)
        assert old is not None
        assert old.report is None


def test_measurements_of_an_old_metric_set_go_when_nothing_refers_to_them(database: Database) -> None:
    with database.write() as connection:
        (record,) = _history(connection, 1)
        digest = f"digest-of-{record.fingerprint}"
        connection.execute(sa.update(tables.measurements).values(metric_set="0"))
        measurements.save(connection, measurement(digest), NOW)
        assert prune(connection, 1, NOW).measurements == 1
        assert measurements.known(connection, digest)


def test_nothing_that_a_running_scan_may_use_is_removed(database: Database) -> None:
    with database.write() as connection:
        records = _history(connection, 5)
        registered(connection, "1", model="other")
        claimed = versions.claim_next(connection, NOW)
        # What the scan has measured so far belongs to no content yet.
        measurements.save(connection, measurement("half-way"), NOW)
        during = prune(connection, 1, NOW)
        assert during == replace(_NOTHING, reports=3, deferred=True)
        assert measurements.known(connection, "half-way")
        assert contents.load(connection, records[0].fingerprint, METRIC_SET) is not None
        assert claimed is not None
        versions.record_verdict(connection, claimed.id, Verdict.PASS, "{}", [], NOW)
        after = prune(connection, 1, NOW)
    assert after == replace(_NOTHING, contents=3, measurements=4)


def test_delivered_and_given_up_events_expire_and_waiting_ones_do_not(database: Database) -> None:
    deliveries = DatabaseOutbox(database, "daemon")
    with database.write() as connection:
        for name in ("old", "recent", "dead", "waiting"):
            outbox.enqueue(connection, name, "oncall", "{}", NOW)
    old, recent, dead, _ = deliveries.claim("oncall", NOW, 9)
    deliveries.settle([Result(old.id), Result(dead.id, (DeliveryReason.GONE, "410"))], later(1))
    deliveries.settle([Result(recent.id)], later(100))
    with database.write() as connection:
        assert prune(connection, 1, later(100)) == replace(_NOTHING, events=2)
        left = [record.entry.event_id for record in outbox.list_outbox(connection)]
    assert left == ["waiting", "recent"]


def test_old_transitions_are_forgotten_and_the_events_of_groups_are_numbered_on(
    database: Database,
) -> None:
    with database.write() as connection:
        state = firing(judged(connection, "1"))
        for phase, seconds in ((AlertPhase.FIRING, 0), (AlertPhase.RESOLVED, 50), (AlertPhase.FIRING, 100)):
            number = seconds // 50 + 1
            state = replace(
                state, phase=phase, sequence=number, event_id=f"evt_{number}", changed_at=later(seconds)
            )
            alerts.save_state(connection, state)
            alerts.record_transition(connection, Transition(state.event_id, state, state.reason, (), None))
        groups = {name: GroupRecord(name, {}, NOW, 7) for name in ("believes", "believed")}
        alerts.save_groups(connection, groups)
        ended = replace(state, phase=AlertPhase.RESOLVED)
        alerts.save_told_to(connection, [("believes", state), ("believed", ended)])

        assert prune(connection, 1, later(100)) == replace(_NOTHING, transitions=2)
        assert alerts.transitions_of(connection, [state.identity]) == {state.identity: [(3, "evt_3")]}
        assert alerts.load_state(connection, state.identity) == state
        assert alerts.load_groups(connection) == groups


def test_silences_are_forgotten_when_they_have_been_over_for_long(database: Database) -> None:
    def add(connection: sa.Connection, ends: int) -> int:
        new = NewSilence(parsed(["model=m"]), "ann", "maintenance", NOW, later(ends))
        return silences.add(connection, new, NOW).id

    with database.write() as connection:
        add(connection, 10)
        expired, recent, going_on = (add(connection, 1000 + number) for number in range(3))
        silences.expire(connection, expired, "ann", later(20))
        silences.expire(connection, recent, "ann", later(100))
        assert prune(connection, 1, later(100)) == replace(_NOTHING, silences=2)
        left = [one.id for one in silences.list_(connection, later(200))]
    assert left == [going_on, recent]


def test_the_audit_log_is_kept_for_a_time_of_its_own(database: Database) -> None:
    ann = Actor("ann", Authentication.TOKEN)
    with database.write() as connection:
        for seconds in (0, 50, 100):
            auditlog.add(connection, AuditEntry(later(seconds), ann, Action.RELOAD, "taken over"))
        assert prune(connection, 1, later(100)) == _NOTHING
        assert prune(connection, 1, later(100), later(100)) == replace(_NOTHING, audit=2)
        assert [one.entry.at for one in auditlog.list_(connection, 10)] == [later(100)]


def test_more_versions_than_fit_into_one_statement_are_forgotten(database: Database) -> None:
    with database.write() as connection:
        for number in range(1200):
            judged(connection, str(number))
        assert prune(connection, 10, NOW).reports == 1200 - 11


def test_keeping_no_version_at_all_is_refused(database: Database) -> None:
    with database.write() as connection, pytest.raises(ValueError, match="at least 1"):
        prune(connection, 0, NOW)


_STEP = st.tuples(
    st.sampled_from(["judge", "register", "overwrite", "gone", "ref", "accept", "pin", "fire"]),
    st.integers(1, 8),
    st.sampled_from(Verdict),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(_STEP, max_size=30), keep=st.integers(1, 4))
def test_whatever_happened_before_nothing_needed_is_lost(
    new_database: NewDatabase, steps: list[tuple[str, int, Verdict]], keep: int
) -> None:
    with new_database() as database, database.write() as connection:
        for position, (action, number, verdict) in enumerate(steps):
            _apply(connection, action, str(number), verdict, position)
        before = versions.list_versions(connection, limit=1000)
        needed = {record.id for record in before if _needed(connection, record)}
        prune(connection, keep, NOW)

        left = {record.id: record for record in versions.list_versions(connection, limit=1000)}
        for record in before:
            if record.id in needed:
                assert left[record.id] == record
                assert contents.load(connection, record.fingerprint, METRIC_SET) is not None
                assert measurements.known(connection, f"digest-of-{record.fingerprint}")
            if record.current and record.gone_at is None:
                assert record.id in left
        assert damage(connection) == []
        # A second call finds nothing more to do.
        assert prune(connection, keep, NOW) == _NOTHING


def _apply(connection: sa.Connection, action: str, name: str, verdict: Verdict, position: int) -> None:
    known = versions.current(connection, VersionKey("r", "m", name))
    if action in ("register", "overwrite") or known is None:
        fingerprint = known.fingerprint if known and action == "register" else f"bytes-{name}-{position}"
        _measured(connection, registered(connection, name, fingerprint=fingerprint))
    elif action == "judge" and known.verdict is None:
        versions.record_verdict(connection, known.id, verdict, "{}", [], NOW)
    elif action == "gone":
        versions.mark_gone(connection, "r", "m", name, NOW)
    elif action == "ref":
        refs.point(connection, "r", "m", "latest", known.id, NOW)
    elif action == "accept":
        baselines.accept(connection, "r", "m", name, "ann", "", NOW)
    elif action == "pin":
        baselines.pin(connection, "r", "m", name, "ann", "", NOW)
    elif action == "fire":
        alerts.save_state(connection, firing(known))


def _needed(connection: sa.Connection, record: VersionRecord) -> bool:
    """Straight from the rules: targets, baselines, firing alerts, waiting versions."""
    chosen = {(one.version, one.fingerprint) for one in baselines.chosen(connection, "r", "m")}
    return (
        record.id in {ref.version_id for ref in refs.list_refs(connection)}
        or (record.key.version, record.fingerprint) in chosen
        or record.fingerprint in {state.fingerprint for state in alerts.list_states(connection)}
        or (record.current and record.gone_at is None and record.verdict is None)
    )

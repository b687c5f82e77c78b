"""Versions: discovery, change in place, going and coming back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import Lineage, VersionKey, VersionRecord, VersionState
from layerwatch.metrics.findings import Verdict
from storetools import NOW, finding, judged, later, registered

_LINEAGE = Lineage("1", "finetuned", "card", 0.9)


def test_an_unknown_version_becomes_a_pending_first_revision(database: Database) -> None:
    with database.write() as connection:
        record = registered(connection, "2", lineage=_LINEAGE)
    assert record == VersionRecord(
        id=record.id,
        key=VersionKey("r", "m", "2"),
        revision=1,
        fingerprint="bytes-of-r-m-2",
        previous_fingerprint=None,
        source_path="/models/m/2",
        order_key="2",
        lineage=_LINEAGE,
        state=VersionState.PENDING,
        attempts=0,
        not_before=None,
        discovered_at=NOW,
        judged_at=None,
        verdict=None,
        current=True,
        gone_at=None,
        report=None,
    )


def test_the_same_bytes_again_are_no_event(database: Database) -> None:
    with database.write() as connection:
        first = judged(connection, "1", lineage=_LINEAGE)
        again = registered(connection, "1", lineage=Lineage("0", "merged"), now=later(60))
    assert again == first


def test_a_declared_lineage_is_followed_until_the_verdict(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "1")
        assert registered(connection, "1", lineage=_LINEAGE).lineage == _LINEAGE


def test_a_version_that_moved_is_read_from_its_new_place(database: Database) -> None:
    with database.write() as connection:
        first = judged(connection, "1")
        moved = versions.register(
            connection, first.key, first.fingerprint, "/mnt/m/1", "1", Lineage(), later(1)
        )
    assert moved == replace(first, source_path="/mnt/m/1")


def test_a_new_token_for_the_same_bytes_is_remembered_without_an_event(database: Database) -> None:
    with database.write() as connection:
        first = judged(connection, "1")
        key, path = first.key, first.source_path
        touched = versions.register(
            connection, key, first.fingerprint, path, "1", Lineage(), later(1), token="t2"
        )
        assert touched == replace(first, token="t2")
        replaced = versions.register(connection, key, "other", path, "1", Lineage(), later(2), token="t3")
        assert replaced.token == "t3"


def test_the_current_versions_of_a_registry_include_those_that_are_gone(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "v10", model="b")
        registered(connection, "v9", model="b")
        registered(connection, "v1", model="a", fingerprint="old")
        registered(connection, "v1", model="a", fingerprint="new")
        registered(connection, "v1", registry="elsewhere")
        versions.mark_gone(connection, "r", "b", "v9", NOW)
        found = versions.current_of_registry(connection, "r")
    assert [(one.key.model, one.key.version, one.gone_at) for one in found] == [
        ("a", "v1", None),
        ("b", "v9", NOW),
        ("b", "v10", None),
    ]
    assert found[0].fingerprint == "new"


def test_other_bytes_under_a_known_name_become_a_new_revision(database: Database) -> None:
    with database.write() as connection:
        first = judged(connection, "1", fingerprint="a")
        second = registered(connection, "1", fingerprint="b", now=later(60))
        third = registered(connection, "1", fingerprint="a", now=later(120))
        old = versions.get(connection, first.id)
        assert versions.current(connection, first.key) == third
    assert old == replace(first, current=False)
    assert (second.revision, second.previous_fingerprint, second.state) == (2, "a", VersionState.PENDING)
    assert (third.revision, third.previous_fingerprint, third.discovered_at) == (3, "b", later(120))


def test_a_version_that_comes_back_is_no_longer_gone(database: Database) -> None:
    with database.write() as connection:
        first = judged(connection, "1")
        assert versions.mark_gone(connection, "r", "m", "1", later(1))
        assert not versions.mark_gone(connection, "r", "m", "1", later(2))
        gone = versions.get(connection, first.id)
        assert gone == replace(first, gone_at=later(1))
        assert registered(connection, "1") == first


def test_marking_an_unknown_version_gone_is_no_news(database: Database) -> None:
    with database.write() as connection:
        assert not versions.mark_gone(connection, "r", "m", "1", NOW)


def test_a_model_is_listed_while_one_of_its_versions_is_there(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "1", model="b")
        registered(connection, "2", model="b")
        registered(connection, "1", model="a")
        assert versions.models(connection) == [("r", "a"), ("r", "b")]
        versions.mark_gone(connection, "r", "a", "1", NOW)
        versions.mark_gone(connection, "r", "b", "1", NOW)
        assert versions.models(connection) == [("r", "b")]


def test_a_verdict_is_recorded_with_report_and_findings_in_order(database: Database) -> None:
    found = [finding("b_rule"), finding("a_rule", layer=None)]
    with database.write() as connection:
        record = registered(connection, "1")
        versions.record_verdict(connection, record.id, Verdict.WARN, '{"a": 1}', found, later(5))
        assert versions.findings(connection, record.id) == found
        stored = versions.get(connection, record.id)
    assert stored == replace(
        record, state=VersionState.JUDGED, verdict=Verdict.WARN, report='{"a": 1}', judged_at=later(5)
    )


def test_a_second_verdict_is_refused_and_changes_nothing(database: Database) -> None:
    with database.write() as connection:
        record = judged(connection, "1")
        with pytest.raises(StoreError) as caught:
            versions.record_verdict(connection, record.id, Verdict.FAIL, "{}", [], later(1))
        assert versions.get(connection, record.id) == record
    assert caught.value.reason is StoreReason.ALREADY_JUDGED


def test_evidence_that_is_not_finite_does_not_stop_the_verdict(database: Database) -> None:
    odd = replace(finding(), evidence={"ratio": math.inf, "share": math.nan, "rows": 3}, strength=math.inf)
    with database.write() as connection:
        record = registered(connection, "1")
        versions.record_verdict(connection, record.id, Verdict.FAIL, "{}", [odd, finding()], NOW)
        stored = versions.findings(connection, record.id)
    assert stored == [replace(odd, evidence={"ratio": None, "share": None, "rows": 3}), finding()]


def test_a_reopened_version_keeps_its_verdict_until_the_next(database: Database) -> None:
    with database.write() as connection:
        record = judged(connection, "1", Verdict.FAIL)
        versions.reopen(connection, record.id)
        waiting = versions.get(connection, record.id)
        assert waiting == replace(record, state=VersionState.PENDING)
        assert versions.findings(connection, record.id) == [finding()]
        versions.record_verdict(connection, record.id, Verdict.PASS, '{"n": 2}', [], later(9))
        assert versions.findings(connection, record.id) == []
        again = versions.get(connection, record.id)
    assert again == replace(record, verdict=Verdict.PASS, report='{"n": 2}', judged_at=later(9))


def test_a_version_that_cannot_be_scanned_is_not_reopened(database: Database) -> None:
    with database.write() as connection:
        superseded = judged(connection, "1", fingerprint="a")
        registered(connection, "1", fingerprint="b")
        scanned = versions.claim_next(connection, NOW)
        gone = judged(connection, "2")
        versions.mark_gone(connection, "r", "m", "2", NOW)
        assert scanned is not None
        for record in (superseded, scanned, gone):
            with pytest.raises(StoreError) as caught:
                versions.reopen(connection, record.id)
            assert caught.value.reason is StoreReason.WRONG_STATE
        with pytest.raises(StoreError) as caught:
            versions.reopen(connection, 4711)
        assert caught.value.reason is StoreReason.NOT_FOUND


def test_lists_go_from_new_to_old_page_by_page_and_without_reports(database: Database) -> None:
    with database.write() as connection:
        records = [judged(connection, str(number)) for number in range(5)]
        judged(connection, "1", model="other")
        judged(connection, "1", registry="elsewhere")
        first = versions.list_versions(connection, "r", "m", 2)
        second = versions.list_versions(connection, "r", "m", 2, first[-1].id)
        everything = versions.list_versions(connection)
    expected = [replace(record, report=None) for record in reversed(records)]
    assert first + second == expected[:4]
    assert len(everything) == 7


def test_the_previous_passing_version_is_the_nearest_one_before(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1", Verdict.PASS)
        warned = judged(connection, "v2", Verdict.WARN)
        judged(connection, "v3", Verdict.FAIL)
        judged(connection, "v4", Verdict.UNDECIDED)
        registered(connection, "v5")
        judged(connection, "v10", Verdict.PASS)
        judged(connection, "v1", Verdict.PASS, model="other")
        found = versions.previous_passing(connection, "r", "m", "v9")
        assert found == replace(warned, report=None)
        assert versions.previous_passing(connection, "r", "m", "v1") is None
        after = versions.previous_passing(connection, "r", "m", "v11")
        assert after is not None
        assert after.key.version == "v10"


def test_the_revision_before_is_found_by_its_place_in_the_history_of_the_name(database: Database) -> None:
    with database.write() as connection:
        first = judged(connection, "1", fingerprint="a")
        registered(connection, "2", fingerprint="a")
        second = registered(connection, "1", fingerprint="b")
        third = registered(connection, "1", fingerprint="a")
        assert versions.previous_revision(connection, first) is None
        before = versions.previous_revision(connection, second)
        assert before is not None
        assert before.id == first.id
        before = versions.previous_revision(connection, third)
        assert before is not None
        assert before.id == second.id


def test_a_row_can_be_read_without_its_report(database: Database) -> None:
    with database.write() as connection:
        record = judged(connection, "1")
        assert versions.get_without_report(connection, record.id) == replace(record, report=None)
        assert versions.get_without_report(connection, 4711) is None
        assert versions.get(connection, 4711) is None


def test_a_superseded_revision_is_no_baseline(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "1", Verdict.PASS, fingerprint="a")
        registered(connection, "1", fingerprint="b")
        assert versions.previous_passing(connection, "r", "m", "2") is None


def test_row_numbers_are_never_given_twice(database: Database) -> None:
    with database.write() as connection:
        first = registered(connection, "1")
        connection.exec_driver_sql("DELETE FROM versions")
        assert registered(connection, "1").id > first.id

"""The scan queue: strict order within a model, no row claimed twice, nothing forgotten."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import VersionState
from layerwatch.metrics.findings import Verdict
from storetools import NOW, NewDatabase, judged, later, registered


def test_nothing_waits_in_an_empty_store(database: Database) -> None:
    with database.write() as connection:
        assert versions.claim_next(connection, NOW) is None


def test_versions_of_a_model_are_claimed_one_after_the_other_in_natural_order(database: Database) -> None:
    with database.write() as connection:
        for name in ("v10", "v9", "v1"):
            registered(connection, name)
        order = []
        while (claimed := versions.claim_next(connection, NOW)) is not None:
            assert (claimed.state, claimed.attempts) == (VersionState.SCANNING, 1)
            assert versions.get(connection, claimed.id) == claimed
            # While one is scanned the others of its model wait.
            assert versions.claim_next(connection, NOW) is None
            order.append(claimed.key.version)
            versions.record_verdict(connection, claimed.id, Verdict.PASS, "{}", [], NOW)
    assert order == ["v1", "v9", "v10"]


def test_models_do_not_wait_for_each_other_and_the_oldest_goes_first(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "1", model="late", now=later(2))
        registered(connection, "1", model="early", now=later(1))
        registered(connection, "2", model="early", now=later(1))
        registered(connection, "1", model="b", now=later(3))
        registered(connection, "1", model="a", now=later(3))
        claimed = [versions.claim_next(connection, later(9)) for _ in range(5)]
    assert [one and one.key.model for one in claimed] == ["early", "late", "a", "b", None]


def test_a_version_that_must_wait_holds_up_the_later_ones_of_its_model_only(database: Database) -> None:
    with database.write() as connection:
        first = registered(connection, "1")
        registered(connection, "2")
        claimed = versions.claim_next(connection, NOW)
        assert claimed is not None
        versions.release(connection, claimed.id, later(60))
        registered(connection, "1", model="other")
        other = versions.claim_next(connection, later(1))
        assert other is not None
        assert other.key.model == "other"
        assert versions.claim_next(connection, later(59)) is None
        again = versions.claim_next(connection, later(60))
    assert again is not None
    assert (again.id, again.attempts, again.not_before) == (first.id, 2, None)


def test_versions_that_are_gone_or_superseded_are_passed_over(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "1")
        versions.mark_gone(connection, "r", "m", "1", NOW)
        registered(connection, "2", fingerprint="a")
        registered(connection, "2", fingerprint="b")
        claimed = versions.claim_next(connection, NOW)
        assert claimed is not None
        assert (claimed.key.version, claimed.fingerprint) == ("2", "b")
        versions.record_verdict(connection, claimed.id, Verdict.PASS, "{}", [], NOW)
        assert versions.claim_next(connection, NOW) is None
        registered(connection, "1")
        back = versions.claim_next(connection, NOW)
    assert back is not None
    assert back.key.version == "1"


def test_a_model_whose_superseded_revision_is_still_being_scanned_waits(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "1", fingerprint="a")
        old = versions.claim_next(connection, NOW)
        registered(connection, "1", fingerprint="b")
        assert old is not None
        assert versions.claim_next(connection, NOW) is None
        versions.record_verdict(connection, old.id, Verdict.PASS, "{}", [], NOW)
        new = versions.claim_next(connection, NOW)
    assert new is not None
    assert new.fingerprint == "b"


def test_interrupted_scans_go_back_to_the_queue_and_their_attempt_does_not_count(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "1", model="a")
        registered(connection, "1", model="b")
        claimed = [versions.claim_next(connection, NOW), versions.claim_next(connection, NOW)]
        assert versions.reset_interrupted(connection) == 2
        assert versions.reset_interrupted(connection) == 0
        again = versions.claim_next(connection, NOW)
    assert again is not None
    assert claimed[0] is not None
    assert (again.id, again.attempts) == (claimed[0].id, 1)


def test_a_release_that_does_not_count_takes_the_attempt_back(database: Database) -> None:
    with database.write() as connection:
        record = registered(connection, "1")
        versions.release(connection, record.id, None, counted=False)
        for _ in range(3):
            claimed = versions.claim_next(connection, NOW)
            assert claimed is not None
            assert claimed.attempts == 1
            versions.release(connection, claimed.id, None, counted=False)


def test_a_judged_version_is_not_released(database: Database) -> None:
    with database.write() as connection:
        record = judged(connection, "1")
        with pytest.raises(StoreError) as caught:
            versions.release(connection, record.id, NOW)
        assert caught.value.reason is StoreReason.WRONG_STATE
        with pytest.raises(StoreError) as caught:
            versions.release(connection, 4711, NOW)
        assert caught.value.reason is StoreReason.NOT_FOUND


def test_counts_name_every_state_and_leave_out_what_cannot_be_scanned(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "1")
        registered(connection, "2", fingerprint="a")
        registered(connection, "2", fingerprint="b")
        registered(connection, "3")
        registered(connection, "4")
        versions.mark_gone(connection, "r", "m", "4", NOW)
        assert versions.counts_by_state(connection) == {
            VersionState.PENDING: 2,
            VersionState.SCANNING: 0,
            VersionState.JUDGED: 1,
        }


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_happens_a_model_has_one_scan_at_most_and_keeps_its_order(
    new_database: NewDatabase, data: st.DataObject
) -> None:
    with new_database() as database, database.write() as connection:
        numbers = data.draw(st.permutations(range(1, 6)))
        for number in numbers:
            registered(connection, str(number))
        finished: list[int] = []
        for step in range(40):
            claimed = versions.claim_next(connection, later(step))
            if claimed is None:
                continue
            assert versions.counts_by_state(connection)[VersionState.SCANNING] == 1
            assert versions.claim_next(connection, later(step)) is None
            outcome = data.draw(st.sampled_from(["judge", "release", "crash"]))
            if outcome == "judge":
                versions.record_verdict(connection, claimed.id, Verdict.PASS, "{}", [], later(step))
                finished.append(int(claimed.key.version))
            elif outcome == "release":
                versions.release(connection, claimed.id, later(step + data.draw(st.integers(0, 3))))
            else:
                versions.reset_interrupted(connection)
        assert finished == list(range(1, len(finished) + 1))


def test_threads_that_claim_at_the_same_time_never_get_the_same_row(database: Database) -> None:
    count = 60
    with database.write() as connection:
        for number in range(count):
            registered(connection, "1", model=f"model{number}")
    claimed: list[int] = []
    barrier = threading.Barrier(6)

    def work() -> None:
        barrier.wait()
        while True:
            with database.write() as connection:
                record = versions.claim_next(connection, NOW)
            if record is None:
                return
            claimed.append(record.id)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == count
    assert len(set(claimed)) == count

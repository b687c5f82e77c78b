"""Baselines chosen by people, and the history of their choices."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from layerwatch.daemon.store import baselines
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import BaselineKind, BaselineRecord, VersionKey
from storetools import NOW, later, registered


def _with_versions(connection: sa.Connection, *names: str) -> None:
    for name in names:
        registered(connection, name)


def test_a_model_has_no_baseline_until_somebody_chooses_one(database: Database) -> None:
    with database.write() as connection:
        _with_versions(connection, "1")
        assert baselines.chosen(connection, "r", "m") == []
        accepted = baselines.accept(connection, "r", "m", "1", "ann", "looked at it", NOW)
        assert baselines.chosen(connection, "r", "m") == [accepted]
        assert baselines.chosen(connection, "r", "other") == []
    assert accepted == BaselineRecord(
        "r", "m", "1", BaselineKind.ACCEPTED, "ann", "looked at it", NOW, "bytes-of-r-m-1"
    )


def test_a_pin_outranks_what_is_accepted_until_it_is_taken_off(database: Database) -> None:
    with database.write() as connection:
        _with_versions(connection, "1", "2", "3", "4")
        baselines.accept(connection, "r", "m", "1", "ann", "", NOW)
        pinned = baselines.pin(connection, "r", "m", "2", "bob", "audit", later(1))
        accepted = baselines.accept(connection, "r", "m", "3", "ann", "", later(2))
        assert baselines.chosen(connection, "r", "m") == [pinned, accepted]
        assert baselines.in_use(connection, "r", "m") == [pinned, accepted]
        unpinned = baselines.unpin(connection, "r", "m", "bob", "audit over", later(3))
        assert (unpinned.version, unpinned.kind) == ("2", BaselineKind.UNPINNED)
        assert baselines.chosen(connection, "r", "m") == [accepted]
        again = baselines.pin(connection, "r", "m", "4", "bob", "", later(4))
        assert baselines.chosen(connection, "r", "m") == [again, accepted]


def test_every_choice_stays_in_the_history_latest_first(database: Database) -> None:
    with database.write() as connection:
        _with_versions(connection, "1")
        made = [
            baselines.accept(connection, "r", "m", "1", "ann", "a", NOW),
            baselines.accept(connection, "r", "m", "1", "ann", "a", NOW),
            baselines.pin(connection, "r", "m", "1", "bob", "b", later(1)),
            baselines.unpin(connection, "r", "m", "cyd", "c", later(2)),
        ]
        assert baselines.history(connection, "r", "m") == made[::-1]
        assert baselines.history(connection, "r", "other") == []


def test_a_baseline_remembers_which_bytes_were_meant(database: Database) -> None:
    with database.write() as connection:
        registered(connection, "1", fingerprint="good")
        baselines.accept(connection, "r", "m", "1", "ann", "", NOW)
        registered(connection, "1", fingerprint="swapped")
        (found,) = baselines.chosen(connection, "r", "m")
    assert found.fingerprint == "good"


def test_an_unknown_version_is_refused_and_leaves_no_trace(database: Database) -> None:
    with database.write() as connection:
        _with_versions(connection, "1")
        for choose in (baselines.accept, baselines.pin):
            with pytest.raises(StoreError) as caught:
                choose(connection, "r", "m", "2", "ann", "", NOW)
            assert caught.value.reason is StoreReason.NOT_FOUND
        assert baselines.history(connection, "r", "m") == []


def test_there_is_nothing_to_unpin_twice(database: Database) -> None:
    with database.write() as connection:
        _with_versions(connection, "1")
        baselines.accept(connection, "r", "m", "1", "ann", "", NOW)
        with pytest.raises(StoreError) as caught:
            baselines.unpin(connection, "r", "m", "ann", "", NOW)
        assert caught.value.reason is StoreReason.NOTHING_PINNED
        baselines.pin(connection, "r", "m", "1", "ann", "", NOW)
        baselines.unpin(connection, "r", "m", "ann", "", NOW)
        with pytest.raises(StoreError):
            baselines.unpin(connection, "r", "m", "ann", "", NOW)


def test_which_of_many_versions_were_accepted_is_told_at_once_as_for_each(database: Database) -> None:
    with database.write() as connection:
        for model in ("a", "b", "c"):
            for name in ("1", "2", "3"):
                registered(connection, name, model=model)
        baselines.accept(connection, "r", "a", "1", "ann", "", NOW)
        baselines.accept_automatically(connection, "r", "a", "2", "", NOW)
        baselines.pin(connection, "r", "a", "3", "ann", "", NOW)
        baselines.pin(connection, "r", "b", "1", "ann", "", NOW)
        baselines.unpin(connection, "r", "b", "ann", "", NOW)
        baselines.accept(connection, "r", "b", "2", "ann", "", NOW)
        registered(connection, "2", model="b", fingerprint="swapped")
        asked = [
            (VersionKey("r", model, name), fingerprint)
            for model in ("a", "b", "c")
            for name in ("1", "2", "3")
            for fingerprint in (f"bytes-of-r-{model}-{name}", "swapped")
        ]
        found = baselines.accepted_among(connection, asked)
        assert found == {one for one in asked if baselines.was_accepted(connection, *one)}
        assert len(found) == 3
        assert baselines.accepted_among(connection, asked[6:7]) == set()
        assert baselines.accepted_among(connection, []) == set()

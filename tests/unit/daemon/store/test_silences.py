"""Silences in the database."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
import sqlalchemy as sa

from layerwatch.alerts.silences import NewSilence, Silence, SilenceState, new_silence
from layerwatch.config.matchers import parsed
from layerwatch.daemon.store import silences, tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from storetools import NOW, later

HOUR = 3600


def new(
    *matchers: str, start: float = 0, end: float = HOUR, author: str = "ann", reason: str = "retraining"
) -> NewSilence:
    made = parsed(matchers or ('model="fraud"',))
    return new_silence(made, author, reason, NOW, later(end), later(start))


def test_a_silence_is_read_back_as_it_was_kept(database: Database) -> None:
    wanted = new(
        'model=~"fr\\"aud-\\\\d+"', 'rule!="nan"', 'model!="\u202e\x1b"', start=60, reason="é\n\u202e"
    )
    with database.write() as connection:
        kept = silences.add(connection, wanted, NOW)
    assert kept == Silence(kept.id, wanted.matchers, "ann", "é\n\u202e", NOW, later(60), later(HOUR))
    with database.read() as connection:
        assert silences.get(connection, kept.id) == kept
        assert silences.list_(connection, NOW) == [kept]


def test_silences_are_listed_latest_first_by_their_state(database: Database) -> None:
    with database.write() as connection:
        now = silences.add(connection, new(), NOW)
        soon = silences.add(connection, new(start=60), NOW)
        short = silences.add(connection, new(end=10), NOW)
        ended = silences.add(connection, new(), NOW)
        ended = silences.expire(connection, ended.id, "bob", later(5))
    at = later(30)
    with database.read() as connection:
        assert silences.list_(connection, at) == [ended, short, soon, now]
        assert silences.active(connection, at) == [now]
        assert silences.list_(connection, at, {SilenceState.PENDING}) == [soon]
        assert silences.list_(connection, at, {SilenceState.EXPIRED}) == [ended, short]
        assert silences.active(connection, later(60)) == [soon, now]
        assert silences.active(connection, later(HOUR)) == []


def test_numbers_are_never_given_twice(database: Database) -> None:
    with database.write() as connection:
        first = silences.add(connection, new(end=1), NOW)
        assert silences.prune_silences(connection, later(2)) == 1
        assert silences.add(connection, new(), NOW).id > first.id


def test_a_silence_is_ended_once_and_says_by_whom(database: Database) -> None:
    with database.write() as connection:
        kept = silences.add(connection, new(), NOW)
        ended = silences.expire(connection, kept.id, "bob", later(5))
    assert (ended.expired_at, ended.expired_by, ended.ends_at) == (later(5), "bob", later(HOUR))
    with database.write() as connection, pytest.raises(StoreError) as caught:
        silences.expire(connection, kept.id, "cyd", later(6))
    assert caught.value.reason is StoreReason.WRONG_STATE
    assert caught.value.detail == f"silence {kept.id} is over already"
    with database.read() as connection:
        assert silences.get(connection, kept.id) == ended


def test_a_silence_that_has_not_begun_can_be_called_off(database: Database) -> None:
    with database.write() as connection:
        kept = silences.add(connection, new(start=60), NOW)
        silences.expire(connection, kept.id, "bob", later(5))
        assert silences.active(connection, later(61)) == []


def test_a_silence_that_ended_by_itself_cannot_be_ended(database: Database) -> None:
    with database.write() as connection:
        kept = silences.add(connection, new(), NOW)
        with pytest.raises(StoreError) as caught:
            silences.expire(connection, kept.id, "bob", later(HOUR))
    assert caught.value.reason is StoreReason.WRONG_STATE


def test_an_unknown_silence_is_not_found(database: Database) -> None:
    with database.write() as connection, pytest.raises(StoreError) as caught:
        silences.expire(connection, 7, "bob", NOW)
    assert caught.value.reason is StoreReason.NOT_FOUND


def test_a_clock_that_goes_back_brings_no_ended_silence_to_life(database: Database) -> None:
    with database.write() as connection:
        kept = silences.add(connection, new(), NOW)
        silences.expire(connection, kept.id, "bob", later(5))
        for at in (later(6), later(0), NOW - timedelta(days=1)):
            assert silences.active(connection, at) == []


def test_silences_are_forgotten_some_time_after_they_were_over(database: Database) -> None:
    with database.write() as connection:
        running = silences.add(connection, new(), NOW)
        silences.add(connection, new(end=10), NOW)
        ended = silences.add(connection, new(), NOW)
        silences.expire(connection, ended.id, "bob", later(20))
        assert silences.prune_silences(connection, later(10)) == 0
        assert silences.prune_silences(connection, later(11)) == 1
        assert [one.id for one in silences.list_(connection, later(30))] == [ended.id, running.id]
        assert silences.prune_silences(connection, later(21)) == 1
        assert silences.list_(connection, later(30)) == [running]


def test_a_silence_that_cannot_be_read_holds_back_nothing_and_does_not_stop_the_others(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with database.write() as connection:
        good = silences.add(connection, new(), NOW)
        bad = silences.add(connection, new(), NOW)
        rows = tables.silences
        connection.execute(sa.update(rows).where(rows.c.id == bad.id).values(matchers=['model=~"("']))
    with caplog.at_level(logging.WARNING), database.read() as connection:
        assert silences.active(connection, NOW) == [good]
        with pytest.raises(StoreError) as caught:
            silences.get(connection, bad.id)
    assert caught.value.reason is StoreReason.DAMAGED_RECORD
    assert f"silence {bad.id} cannot be read and holds back nothing" in caplog.text

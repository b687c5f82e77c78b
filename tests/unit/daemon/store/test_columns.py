"""Column types: times and texts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from layerwatch.daemon.store.columns import SafeText, UtcTimestamp
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.tables import outbox
from storetools import NOW

_DIALECT = sqlite.dialect()


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_come_back_to_the_microsecond(when: datetime) -> None:
    column = UtcTimestamp()
    stored = column.process_bind_param(when, _DIALECT)
    assert column.process_result_value(stored, _DIALECT) == when


def test_a_time_is_kept_as_microseconds_since_1970() -> None:
    # date -u -d @1740830400 gives 2025-03-01T12:00:00.
    assert UtcTimestamp().process_bind_param(NOW, _DIALECT) == 1740830400_123456


def test_a_time_of_another_zone_comes_back_as_the_same_moment_in_utc() -> None:
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    stored = UtcTimestamp().process_bind_param(tokyo, _DIALECT)
    loaded = UtcTimestamp().process_result_value(stored, _DIALECT)
    assert loaded == NOW
    assert loaded is not None
    assert loaded.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with (
        pytest.raises(sa.exc.StatementError, match="has no time zone"),
        database.read() as connection,
    ):
        connection.execute(sa.select(outbox).where(outbox.c.created_at < NOW.replace(tzinfo=None)))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_ordinary_text_is_kept_as_it_is(text: str) -> None:
    assert SafeText().process_bind_param(text, _DIALECT) == text

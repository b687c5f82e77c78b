"""Column types that read back exactly what was written, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcTimestamp(TypeDecorator[datetime]):
    """An aware datetime, kept as whole microseconds since 1970-01-01 UTC.

    SQLite has no timestamp type, and integers sort and compare as times do. Naive datetimes are refused with
    ValueError.
    """

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; pass an aware UTC datetime")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


class SafeText(TypeDecorator[str]):
    r"""Text of any origin. NUL and lone surrogates, which databases refuse, become ``\x00``, ``\udc80`` ...

    Layer names and messages come out of untrusted files; a hostile name must not stop its own scan from being
    recorded. Sorted and compared by code point, whatever language a PostgreSQL server was set up for.
    """

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else safe_text(value)


def safe_text(value: str) -> str:
    """The form in which :class:`SafeText` keeps a text."""
    return value.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""64-bit row number. SQLite numbers rows by itself only in a column declared exactly INTEGER."""

JSON = sa.JSON(none_as_null=True)
"""JSON as it was written, text that PostgreSQL keeps letter by letter; see `strict_json`."""


def strict_json(value: object) -> str:
    """The JSON text of a value, for engines; raises ValueError for NaN and infinities, which JSON has no form for."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))

"""Insert or update, for many rows at a time, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Rows = Sequence[Mapping[str, Any]]


def upsert(connection: sa.Connection, table: sa.Table, rows: Rows, keys: Sequence[str]) -> None:
    """Insert rows; where one with the same ``keys`` is there, it takes over the other values.

    Args:
        rows: all with the same columns, no two with the same keys.
        keys: columns of a primary key or a unique constraint.
    """
    if not rows:
        return
    statement = _insert(connection, table)
    others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=others), list(rows))


def insert_missing(connection: sa.Connection, table: sa.Table, rows: Rows, keys: Sequence[str]) -> None:
    """Insert rows; where one with the same ``keys`` is there, it stays as it is."""
    if rows:
        statement = _insert(connection, table).on_conflict_do_nothing(index_elements=keys)
        connection.execute(statement, list(rows))


def _insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)

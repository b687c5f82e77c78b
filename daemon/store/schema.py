"""Which schema a database has, and how to bring it up to date."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa

from layerwatch.daemon.store.address import backend_of
from layerwatch.daemon.store.errors import StoreError, StoreReason

VERSION_TABLE = "layerwatch_schema"
"""Alembic's version table. Not its default name, by which other programs' databases would pass for ours."""

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012")
"""Every schema revision, oldest first. Kept here so that a start without a migration need not import Alembic."""

MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaState(StrEnum):
    """How a database compares with this code: no tables yet, older, or up to date."""

    EMPTY = "empty"
    OLDER = "older"
    UP_TO_DATE = "up_to_date"


def exists(url: str) -> bool:
    """Whether there are tables at this address of a server; nothing is made or changed.

    Raises:
        StoreError: as `layerwatch.daemon.store.database.Database.open`.
    """
    backend = backend_of(url)
    engine = backend.create_engine()
    try:
        with backend.typed_errors(), engine.connect() as connection:
            return sa.inspect(connection).has_table(VERSION_TABLE)
    finally:
        engine.dispose()


def state(connection: sa.Connection) -> SchemaState:
    """Compare the database with this code.

    Raises:
        StoreError: ``foreign`` when the tables belong to another program; ``newer_schema`` when a newer
            layerwatch wrote them.
    """
    names = set(sa.inspect(connection).get_table_names())
    if VERSION_TABLE not in names:
        if names:
            example = ", ".join(sorted(names)[:3])
            raise StoreError(
                StoreReason.FOREIGN,
                f"the database holds tables of another program ({example}); give layerwatch a database of its "
                "own in store.url",
            )
        return SchemaState.EMPTY
    version_table = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text))
    found = connection.execute(sa.select(version_table.c.version_num)).scalars().all()
    if not found:
        return SchemaState.EMPTY
    unknown = sorted(set(found) - set(REVISIONS))
    if unknown:
        raise StoreError(
            StoreReason.NEWER_SCHEMA,
            f"the database has schema {', '.join(unknown)}, this layerwatch knows up to {REVISIONS[-1]}; run the "
            "newer layerwatch again, or restore the backup made before the upgrade",
        )
    return SchemaState.UP_TO_DATE if REVISIONS[-1] in found else SchemaState.OLDER


def upgrade(connection: sa.Connection) -> None:
    """Apply all missing migrations inside the connection's open transaction."""
    # Alembic costs several megabytes and is needed once per upgrade.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

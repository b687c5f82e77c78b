"""Migrations: they build what ``tables.py`` says, all or nothing, whoever else starts at the same time."""

from __future__ import annotations

import re
import signal

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from layerwatch.daemon.store import schema
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.tables import metadata
from layerwatch_testing.servers.postgresql import PostgresqlServer
from storetools import python


def _schema_of(connection: sa.Connection) -> dict[str, str]:
    """Every table and index by name: its definition, whitespace and order of lines apart."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: re.sub(r"\s+", " ", sql) for name, sql in rows if not name.startswith("sqlite_")}


def test_migrations_build_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "version_table": schema.VERSION_TABLE}
        )
        assert compare_metadata(context, metadata) == []


def test_migrations_write_the_same_definitions_as_the_tables(sqlite_database: Database) -> None:
    # compare_metadata does not look at foreign key actions, partial indexes and AUTOINCREMENT.
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection, sqlite_database.read() as migrated:
        metadata.create_all(connection)
        found = _schema_of(migrated)
        found.pop(schema.VERSION_TABLE)
        assert found == _schema_of(connection)


def test_the_list_of_revisions_is_what_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == schema.REVISIONS
    assert scripts.get_current_head() == schema.REVISIONS[-1]


def test_downgrading_the_first_migration_leaves_no_tables(database: Database) -> None:
    from alembic import command

    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        left = set(sa.inspect(connection).get_table_names())
    assert left == {schema.VERSION_TABLE}


def test_a_database_whose_migrations_were_undone_is_migrated_again(database: Database, url: str) -> None:
    test_downgrading_the_first_migration_leaves_no_tables(database)
    again = Database.open(url)
    with again.read() as connection:
        assert schema.state(connection) is schema.SchemaState.UP_TO_DATE
    again.close()


def _catalog_of(url: str) -> set[tuple[object, ...]]:
    """Everything that a server knows of columns, indexes and constraints, order of columns apart."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        columns = connection.exec_driver_sql(
            "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default "
            "FROM information_schema.columns WHERE table_schema = 'public'"
        ).all()
        indexes = connection.exec_driver_sql("SELECT indexname, indexdef FROM pg_indexes").all()
        constraints = connection.exec_driver_sql(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        ).all()
    engine.dispose()
    found = {tuple(row) for row in (*columns, *indexes, *constraints)}
    return {
        row for row in found if schema.VERSION_TABLE not in row and f"{schema.VERSION_TABLE}_pkc" not in row
    }


@pytest.mark.server
def test_migrations_write_the_same_definitions_as_the_tables_on_a_server(
    server: PostgresqlServer, migrated: str, postgresql_url: str
) -> None:
    engine = sa.create_engine(postgresql_url)
    with engine.begin() as connection:
        metadata.create_all(connection)
    engine.dispose()
    assert _catalog_of(server.url(migrated)) == _catalog_of(postgresql_url)


@pytest.mark.server
def test_all_text_is_kept_in_the_order_of_code_points_and_all_rows_have_long_numbers(
    server: PostgresqlServer, migrated: str
) -> None:
    columns = server.execute(
        "SELECT table_name, column_name, data_type, collation_name FROM information_schema.columns "
        f"WHERE table_schema = 'public' AND table_name <> '{schema.VERSION_TABLE}'",
        migrated,
    )
    assert {collation for _, _, kind, collation in columns if kind == "text"} == {"C"}
    assert {kind for _, name, kind, _ in columns if str(name).endswith("id") and name != "event_id"} == {
        "bigint"
    }


_OPEN = """
import sys
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
sys.stdin.readline()
database = Database.open(sys.argv[1])
with database.read() as connection:
    print(len(versions.list_versions(connection)))
database.close()
"""

_DIE_WHILE_MIGRATING = """
import os, signal, sys
import sqlalchemy as sa
from layerwatch.daemon.store.database import Database

created = []

@sa.event.listens_for(sa.Engine, "after_cursor_execute")
def count(connection, cursor, statement, *rest):
    if statement.lstrip().startswith("CREATE TABLE"):
        created.append(statement)
        if len(created) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

Database.open(sys.argv[1])
"""


@pytest.mark.parametrize("attempt", range(3))
def test_several_processes_may_open_a_new_database_at_once(url: str, attempt: int) -> None:
    starts = [python(_OPEN, url) for _ in range(4)]
    # All have imported what they need, or are about to, and wait for this line.
    for process in starts:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = [(*process.communicate(timeout=120), process.returncode) for process in starts]
    assert results == [("0\n", "", 0)] * 4


def test_a_start_that_is_killed_while_migrating_leaves_no_half_schema(url: str) -> None:
    start = python(_DIE_WHILE_MIGRATING, url)
    start.communicate(timeout=120)
    assert start.returncode == -signal.SIGKILL
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == []
    engine.dispose()
    database = Database.open(url)
    with database.read() as connection:
        assert schema.state(connection) is schema.SchemaState.UP_TO_DATE
    database.close()

"""Bringing a database up to date outside the process that keeps it open."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerwatch.daemon.store import schema, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.upgrade import upgrade_apart
from storetools import python, registered


def refused(url: str) -> None:
    """An upgrade where none is due."""
    raise AssertionError(f"{url} is up to date")


def test_a_new_database_is_made_without_bringing_alembic_into_the_process(url: str) -> None:
    program = (
        "import sys\n"
        "from layerwatch.daemon.store.database import Database\n"
        "from layerwatch.daemon.store.upgrade import upgrade_apart\n"
        "Database.open(sys.argv[1], upgrade_apart).close()\n"
        "print('alembic' in sys.modules)\n"
    )
    printed, complaint = python(program, url).communicate(timeout=120)
    assert (printed.strip(), complaint) == ("False", "")
    made = Database.open(url, refused)
    with made.read() as connection:
        assert schema.state(connection) is schema.SchemaState.UP_TO_DATE
    made.close()


def test_a_database_with_rows_is_opened_as_it_is(url: str) -> None:
    database = Database.open(url)
    with database.write() as connection:
        registered(connection, "1")
    database.close()
    again = Database.open(url, refused)
    with again.read() as connection:
        assert [record.key.version for record in versions.list_versions(connection)] == ["1"]
    again.close()


def test_what_the_upgrading_process_refuses_is_refused_here_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot create the folder") as refused:
        upgrade_apart(f"sqlite:///{tmp_path}/file/layerwatch.db")
    assert refused.value.reason is StoreReason.CANNOT_OPEN


def test_a_database_that_is_none_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "layerwatch.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError) as refused:
        Database.open(f"sqlite:///{path}", upgrade_apart)
    assert refused.value.reason is StoreReason.CORRUPT
    assert path.read_bytes() == b"no database" * 1000

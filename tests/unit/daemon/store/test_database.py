"""Opening databases, good and bad, and the two kinds of transaction."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from layerwatch.daemon.store import tables, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.schema import VERSION_TABLE
from storetools import NOW, python, registered


def _file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def _refusal(url: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        Database.open(url)
    return caught.value


def test_open_creates_the_folder_and_keeps_what_is_committed(url: str) -> None:
    database = Database.open(url)
    with database.write() as connection:
        registered(connection, "1")
    database.close()

    again = Database.open(url)
    with again.read() as connection:
        assert [record.key.version for record in versions.list_versions(connection)] == ["1"]
    again.close()


def test_a_relative_path_stays_the_same_file_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    database = Database.open("sqlite:///layerwatch.db")
    with database.read():
        monkeypatch.chdir(tmp_path / "elsewhere")
        # A second connection is opened while the first is in use.
        with database.write() as connection:
            registered(connection, "1")
    database.close()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == []


def test_connections_use_the_write_ahead_log_full_syncs_and_foreign_keys(sqlite_database: Database) -> None:
    with sqlite_database.read() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "cache_size")
        }
    # synchronous 2 is FULL (https://www.sqlite.org/pragma.html#pragma_synchronous).
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
        "cache_size": -1024,
    }


def test_an_exception_rolls_the_whole_write_transaction_back(database: Database) -> None:
    def fail_half_way() -> None:
        with database.write() as connection:
            registered(connection, "1")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    with database.read() as connection:
        assert versions.list_versions(connection) == []


def test_a_read_transaction_refuses_to_write(database: Database) -> None:
    with pytest.raises(StoreError) as caught, database.read() as connection:
        registered(connection, "1")
    assert caught.value.reason is StoreReason.READ_ONLY
    with database.write() as connection:
        # The connection from the pool is writable again.
        registered(connection, "1")


def test_a_reader_sees_one_state_throughout_while_a_writer_commits(database: Database) -> None:
    with database.read() as reading:
        assert versions.list_versions(reading) == []
        with database.write() as writing:
            registered(writing, "1")
        assert versions.list_versions(reading) == []
    with database.read() as reading:
        assert len(versions.list_versions(reading)) == 1


def test_many_threads_read_and_write_without_losing_a_commit(database: Database) -> None:
    failures: list[Exception] = []

    def work(model: str) -> None:
        try:
            for number in range(20):
                with database.write() as connection:
                    registered(connection, str(number), model)
                with database.read() as connection:
                    assert len(versions.list_versions(connection, "r", model)) == number + 1
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"model{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with database.read() as connection:
        assert len(versions.list_versions(connection, limit=1000)) == 6 * 20


def test_a_writer_that_stays_too_long_is_reported_as_busy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerwatch.daemon.store.sqlite._PRAGMAS", ("PRAGMA busy_timeout = 50",))
    monkeypatch.setattr("layerwatch.daemon.store.postgresql.BUSY_TIMEOUT_SECONDS", 0.05)
    database = Database.open(url)
    with pytest.raises(StoreError) as caught, database.write(), database.write():
        pass
    assert caught.value.reason is StoreReason.BUSY
    assert "second layerwatch" in caught.value.detail or "pg_stat_activity" in caught.value.detail
    database.close()


def test_a_violated_constraint_passes_through_as_what_it_is(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
        connection.execute(
            sa.insert(tables.refs).values(registry="r", model="m", ref="latest", version_id=7, moved_at=NOW)
        )


def test_a_closed_database_says_so_and_closing_twice_is_fine(database: Database) -> None:
    database.close()
    database.close()
    with pytest.raises(StoreError) as caught, database.read():
        pass
    assert caught.value.reason is StoreReason.CLOSED


def test_a_file_that_is_no_database_is_refused_with_what_to_do_and_left_alone(sqlite_url: str) -> None:
    _file(sqlite_url).parent.mkdir()
    _file(sqlite_url).write_bytes(b"this is not a database at all" * 200)
    error = _refusal(sqlite_url)
    assert error.reason is StoreReason.CORRUPT
    assert str(_file(sqlite_url)) in error.detail
    assert "restore a backup" in error.detail
    assert _file(sqlite_url).read_bytes() == b"this is not a database at all" * 200


def test_damage_behind_the_header_is_reported_when_it_is_met(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    with database.write() as connection:
        for number in range(200):
            registered(connection, str(number))
    database.close()
    size = _file(sqlite_url).stat().st_size
    with _file(sqlite_url).open("r+b") as stream:
        # The first page keeps the header and the schema; everything else is overwritten.
        stream.seek(4096)
        stream.write(b"\xa5" * (size - 4096))
    with pytest.raises(StoreError) as caught:
        database = Database.open(sqlite_url)
        with database.read() as connection:
            versions.list_versions(connection)
    assert caught.value.reason is StoreReason.CORRUPT


def test_the_database_of_another_program_is_refused_and_left_alone(sqlite_url: str) -> None:
    _file(sqlite_url).parent.mkdir()
    other = sqlite3.connect(_file(sqlite_url))
    other.execute("CREATE TABLE alembic_version (version_num TEXT)")
    other.execute("CREATE TABLE experiments (name TEXT)")
    other.commit()
    other.close()
    before = _file(sqlite_url).read_bytes()
    error = _refusal(sqlite_url)
    assert error.reason is StoreReason.FOREIGN
    assert "experiments" in error.detail
    assert _file(sqlite_url).read_bytes() == before


def test_a_database_of_a_newer_release_is_refused(url: str) -> None:
    database = Database.open(url)
    with database.write() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    database.close()
    error = _refusal(url)
    assert error.reason is StoreReason.NEWER_SCHEMA
    assert "9999" in error.detail


def test_a_folder_in_place_of_the_file_is_refused(sqlite_url: str) -> None:
    _file(sqlite_url).mkdir(parents=True)
    assert _refusal(sqlite_url).reason is StoreReason.CANNOT_OPEN


def test_a_folder_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert _refusal(f"sqlite:///{tmp_path}/file/layerwatch.db").reason is StoreReason.CANNOT_OPEN


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "layerwatch.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?uri=true",
        "sqlite+aiosqlite:///x",
    ],
)
def test_a_url_that_names_no_sqlite_file_is_refused(bad: str) -> None:
    assert _refusal(bad).reason is StoreReason.UNSUPPORTED_URL


def test_a_refused_url_does_not_repeat_its_password() -> None:
    for url in (
        "mysql://layerwatch:hunter2@db/layerwatch",
        "postgresql+asyncpg://layerwatch:hunter2@db/layerwatch",
        "postgresql://layerwatch:hunter2@db",
        # What stands behind the first @ is no host.
        "postgresql://layerwatch:p@hunter2@db/layerwatch",
        "postgresql://layerwatch:hunter2@db:port/layerwatch",
    ):
        error = _refusal(url)
        assert error.reason is StoreReason.UNSUPPORTED_URL
        assert "hunter2" not in str(error)


def test_opening_an_up_to_date_database_imports_nothing_heavy(url: str) -> None:
    Database.open(url).close()
    program = (
        "import sys\n"
        "from layerwatch.daemon.store import alerts, contents, measurements, refs, retention, versions\n"
        "from layerwatch.daemon.store.database import Database\n"
        "Database.open(sys.argv[1]).close()\n"
        "heavy = {'alembic', 'mako', 'torch', 'scipy', 'pydantic', 'sqlalchemy.orm'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    printed, complaint = python(program, url).communicate(timeout=120)
    assert (printed.strip(), complaint) == ("[]", "")


def test_the_query_of_a_url_that_is_refused_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="names no file") as refused:
        Database.open(f"sqlite:///{tmp_path}/layerwatch.db?password=hidden")
    assert refused.value.reason is StoreReason.UNSUPPORTED_URL
    assert "hidden" not in str(refused.value)

"""Databases of a PostgreSQL server: what its errors mean, what is kept secret, and what a loss of it leaves behind."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa

from layerwatch.daemon.store import lineage, schema, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import VersionKey
from layerwatch.daemon.storelocation import store_exists
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.servers import free_port
from layerwatch_testing.servers.postgresql import PASSWORD, USER, PostgresqlServer
from storetools import NOW, judged, python, registered

pytestmark = pytest.mark.server


@pytest.fixture
def own_server(server: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """A server that a test may stop."""
    # Not below pytest's own folder, which only its user may pass: the server is another one.
    with TemporaryDirectory() as folder:
        own = PostgresqlServer(Path(folder))
        yield own
        own.stop()


def _refusal(url: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        Database.open(url)
    assert PASSWORD not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    return caught.value


def test_the_url_may_name_the_library(server: PostgresqlServer, postgresql_url: str) -> None:
    url = postgresql_url.replace("postgresql:", "postgresql+psycopg:")
    Database.open(url).close()
    Database.open(postgresql_url).close()
    assert store_exists(url)


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    port = free_port()
    error = _refusal(f"postgresql://watch:s3cr3t@127.0.0.1:{port}/lw")
    assert error.reason is StoreReason.UNREACHABLE
    assert error.detail.startswith(f"postgresql://127.0.0.1:{port}/lw: ")
    assert "refused" in error.detail
    assert "\n" not in error.detail


@pytest.mark.parametrize(
    "setting", ["foo=bar", "connect_timeout=abc", "sslmode=wrong", "target_session_attrs=x", "keepalives=x"]
)
def test_a_setting_that_the_library_does_not_know_is_a_fault_of_the_url(setting: str) -> None:
    error = _refusal(f"postgresql://watch:s3cr3t@127.0.0.1:{free_port()}/lw?{setting}")
    assert error.reason is StoreReason.UNSUPPORTED_URL
    assert "behind the ? of store.url" in error.detail


def test_a_wrong_password_and_an_unknown_user_are_told_from_a_server_that_is_away(
    server: PostgresqlServer, migrated: str
) -> None:
    for url in (server.url(migrated, password="s3cr3t-no"), server.url(migrated, user="nobody_here")):
        error = _refusal(url)
        assert error.reason is StoreReason.DENIED
        assert "check user and password" in error.detail


def test_a_database_that_is_missing_is_not_made_but_asked_for(server: PostgresqlServer) -> None:
    error = _refusal(server.url("lost"))
    assert error.reason is StoreReason.NO_DATABASE
    assert "CREATE DATABASE" in error.detail
    assert server.execute("SELECT 1 FROM pg_database WHERE datname = 'lost'") == []


def test_a_user_who_may_not_create_tables_is_told_so(server: PostgresqlServer, postgresql_url: str) -> None:
    database = postgresql_url.rpartition("/")[2]
    server.execute("CREATE ROLE guest LOGIN PASSWORD 's3cr3t-guest'")
    try:
        error = _refusal(server.url(database, "guest", "s3cr3t-guest"))
    finally:
        server.execute("DROP ROLE guest")
    assert error.reason is StoreReason.DENIED
    assert "make it the owner" in error.detail


def test_a_server_without_free_connections_is_busy(server: PostgresqlServer, postgresql_url: str) -> None:
    database = postgresql_url.rpartition("/")[2]
    server.execute("CREATE ROLE crowd LOGIN PASSWORD 's3cr3t-crowd' CONNECTION LIMIT 0")
    try:
        error = _refusal(server.url(database, "crowd", "s3cr3t-crowd"))
    finally:
        server.execute("DROP ROLE crowd")
    assert error.reason is StoreReason.BUSY


def test_a_read_only_server_is_said_to_be_one(server: PostgresqlServer, postgresql_url: str) -> None:
    database = postgresql_url.rpartition("/")[2]
    opened = Database.open(postgresql_url)
    # As on a standby: whatever the transaction asks for, nothing may be changed.
    with pytest.raises(StoreError) as caught, opened.write() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        registered(connection, "1")
    opened.close()
    assert caught.value.reason is StoreReason.READ_ONLY
    assert "target_session_attrs" in caught.value.detail
    assert database in caught.value.detail


def test_the_database_of_another_program_is_refused_and_left_alone(
    server: PostgresqlServer, postgresql_url: str
) -> None:
    database = postgresql_url.rpartition("/")[2]
    server.execute("CREATE TABLE experiments (name TEXT)", database)
    error = _refusal(postgresql_url)
    assert error.reason is StoreReason.FOREIGN
    assert "experiments" in error.detail
    assert server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database) == [
        ("experiments",)
    ]


def test_a_database_without_tables_is_no_store_yet(postgresql_url: str) -> None:
    assert not store_exists(postgresql_url)
    Database.open(postgresql_url).close()
    assert store_exists(postgresql_url)
    # Whoever opens it is told what is wrong.
    assert store_exists(f"postgresql://watch:s3cr3t@127.0.0.1:{free_port()}/lw")


def test_without_the_client_library_the_extra_is_named(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How Python remembers that a module cannot be imported.
    for name in [one for one in sys.modules if one.partition(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = _refusal(postgresql_url)
    assert error.reason is StoreReason.MISSING_PACKAGE
    assert "pip install -c constraints.txt '.[postgresql]'" in error.detail


def test_a_store_in_a_file_does_not_import_the_client_library(sqlite_url: str) -> None:
    program = (
        "import sys\n"
        "from layerwatch.daemon.store.database import Database\n"
        "from layerwatch.daemon.store.onedaemon import only_daemon\n"
        "with only_daemon(sys.argv[1]):\n"
        "    Database.open(sys.argv[1]).close()\n"
        "print([name for name in sys.modules if name.startswith('psycopg.')])\n"
    )
    printed, complaint = python(program, sqlite_url).communicate(timeout=120)
    assert (printed.strip(), complaint) == ("[]", "")


def test_the_server_lets_go_of_a_machine_that_died_and_commits_to_its_disk(
    postgresql_database: Database,
) -> None:
    wanted = {
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "synchronous_commit": "on",
        "lock_timeout": "30s",
        "application_name": "layerwatch",
    }
    with postgresql_database.read() as connection:
        found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in wanted}
    assert found == wanted


def test_what_the_url_says_of_the_connection_counts(server: PostgresqlServer, migrated: str) -> None:
    url = f"{server.url(migrated)}?application_name=mine&connect_timeout=3"
    opened = Database.open(url)
    with opened.read() as connection:
        assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "mine"
    opened.close()


def test_names_sort_by_code_point_although_the_server_sorts_as_in_english(
    postgresql_database: Database,
) -> None:
    names = ["B", "a", "C", "ä", "a-b", "aB", "ab", "Z"]
    with postgresql_database.write() as connection:
        for name in names:
            registered(connection, "1", model=name)
    with postgresql_database.read() as connection:
        assert [model for _, model in versions.models(connection)] == sorted(names)


def test_a_parent_of_any_length_is_kept(postgresql_database: Database) -> None:
    # An index that is sorted takes no more than 2.7 kB that cannot be compressed.
    generator = random.Random(1)
    name = "".join(chr(generator.randrange(0x4E00, 0x9FFF)) for _ in range(1024))
    with postgresql_database.write() as connection:
        version = registered(connection, "1")
        edge = lineage.LineageEdge(name, None, None, "card", 0.5)
        lineage.save_found(connection, version.id, [edge], NOW)
        assert lineage.edges_of(connection, [version.id])[version.id] == (edge,)


def test_connections_that_an_administrator_ended_are_replaced_without_an_error(
    server: PostgresqlServer, postgresql_url: str
) -> None:
    database = Database.open(postgresql_url)
    with database.write() as connection:
        registered(connection, "1")
    assert server.end_connections(postgresql_url.rpartition("/")[2]) >= 1
    with database.read() as connection:
        assert len(versions.list_versions(connection)) == 1
    with database.write() as connection:
        registered(connection, "2")
    database.close()


def test_a_connection_that_ends_inside_a_transaction_is_an_error_of_the_store_and_nothing_is_kept(
    server: PostgresqlServer, postgresql_url: str
) -> None:
    database = Database.open(postgresql_url)
    with pytest.raises(StoreError) as caught, database.write() as connection:
        registered(connection, "1")
        server.end_connections(postgresql_url.rpartition("/")[2])
        registered(connection, "2")
    assert caught.value.reason is StoreReason.UNREACHABLE
    with database.write() as connection:
        assert versions.list_versions(connection) == []
    database.close()


@pytest.mark.parametrize("end", [PostgresqlServer.stop, PostgresqlServer.crash])
def test_a_database_outlives_its_server(
    own_server: PostgresqlServer, end: Callable[[PostgresqlServer], None]
) -> None:
    database = Database.open(own_server.url(own_server.create_database()))
    with database.write() as connection:
        judged(connection, "1", Verdict.FAIL)
    end(own_server)
    for _ in range(3):
        with pytest.raises(StoreError) as caught, database.read():
            pass
        assert caught.value.reason is StoreReason.UNREACHABLE
        with pytest.raises(StoreError) as caught, database.write():
            pass
        assert caught.value.reason is StoreReason.UNREACHABLE
    own_server.start()
    with database.write() as connection:
        judged(connection, "2")
    with database.read() as connection:
        found = {one: versions.current(connection, VersionKey("r", "m", one)) for one in ("1", "2")}
    assert [record and record.verdict for record in found.values()] == [Verdict.FAIL, Verdict.PASS]
    database.close()


def test_the_write_lock_of_a_killed_process_is_free_at_once(postgresql_url: str) -> None:
    program = (
        "import sys\n"
        "from storetools import registered\n"
        "from layerwatch.daemon.store.database import Database\n"
        "with Database.open(sys.argv[1]).write() as connection:\n"
        "    registered(connection, '1')\n"
        "    print('inside', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    process = python(program, postgresql_url)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    process.kill()
    process.communicate()
    database = Database.open(postgresql_url)
    with database.write() as connection:
        assert versions.list_versions(connection) == []
    database.close()


def test_two_databases_of_one_server_do_not_wait_for_each_other(
    server: PostgresqlServer, postgresql_database: Database, postgresql_url: str
) -> None:
    other = Database.open(postgresql_url)
    with postgresql_database.write() as one, other.write() as two:
        registered(one, "1")
        registered(two, "1")
    other.close()


def test_two_schemas_of_one_database_are_two_stores(server: PostgresqlServer, postgresql_url: str) -> None:
    database = postgresql_url.rpartition("/")[2]
    opened = []
    for name in ("east", "west"):
        server.execute(f"CREATE SCHEMA {name}", database)
        opened.append(Database.open(f"{postgresql_url}?options=-csearch_path%3D{name}"))
    with opened[0].write() as east, opened[1].write() as west:
        registered(east, "1")
        assert versions.list_versions(west) == []
    for one in opened:
        with one.read() as connection:
            assert schema.state(connection) is schema.SchemaState.UP_TO_DATE
        one.close()


def test_no_password_stands_in_what_objects_and_errors_show(
    server: PostgresqlServer, migrated: str, postgresql_database: Database
) -> None:
    backend = postgresql_database._backend
    shown = [repr(postgresql_database), repr(backend), str(vars(backend)["_url"]), backend.place]
    with pytest.raises(sa.exc.DBAPIError) as caught, postgresql_database.write() as connection:
        connection.exec_driver_sql("SELECT nonsense")
    shown += [str(caught.value), repr(caught.value)]
    assert not any("s3cr3t" in text for text in shown)
    assert USER not in backend.place

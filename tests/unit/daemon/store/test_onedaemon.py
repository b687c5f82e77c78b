"""One daemon at a time on a store, also where the connection that says so may be lost."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from layerwatch.config.errors import ConfigError
from layerwatch.daemon.store import terms, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import AlreadyRunningError, StoreError, StoreReason
from layerwatch.daemon.store.onedaemon import only_daemon
from layerwatch_testing.servers import free_port
from layerwatch_testing.servers.postgresql import PostgresqlServer
from layerwatch_testing.waiting import until
from storetools import python, registered

_HOLD = """
import sys
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.onedaemon import only_daemon
with only_daemon(sys.argv[1]) as hold:
    database = Database.open(sys.argv[1])
    with hold.kept(database, lambda error: None):
        print("held", flush=True)
        sys.stdin.readline()
    database.close()
"""


class Office:
    """A daemon's hold on a store, as `layerwatch.daemon.app` keeps it."""

    def __init__(self, stack: ExitStack, url: str) -> None:
        self.ended_by: list[AlreadyRunningError] = []
        hold = stack.enter_context(only_daemon(url))
        self.database = Database.open(url)
        stack.callback(self.database.close)
        stack.enter_context(hold.kept(self.database, self.ended_by.append))

    def register(self, version: str) -> None:
        with self.database.write() as connection:
            registered(connection, version)

    def versions(self) -> set[str]:
        with self.database.read() as connection:
            return {record.key.version for record in versions.list_versions(connection)}


@contextmanager
def in_office(url: str) -> Iterator[Office]:
    with ExitStack() as stack:
        yield Office(stack, url)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "LOOK_EVERY_SECONDS", 0.05)


@pytest.fixture
def own_server(server: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """A server that a test may stop."""
    with TemporaryDirectory() as folder:
        own = PostgresqlServer(Path(folder))
        yield own
        own.stop()


def _holds(server: PostgresqlServer, database: str) -> list[int]:
    """Processes of the server whose session holds the lock of a daemon on a database."""
    rows = server.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted", database)
    return [int(str(pid)) for (pid,) in rows]


def test_a_second_daemon_is_refused_until_the_first_has_ended(url: str) -> None:
    with in_office(url) as first:
        with pytest.raises(AlreadyRunningError, match="another layerwatch daemon uses this store") as refused:
            only_daemon(url).__enter__()
        assert "s3cr3t" not in str(refused.value)
        first.register("1")
    with in_office(url) as second:
        assert second.versions() == {"1"}
        second.register("2")


def test_a_killed_daemon_leaves_the_store_to_the_next(url: str) -> None:
    process = python(_HOLD, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(AlreadyRunningError):
        only_daemon(url).__enter__()
    process.kill()
    process.communicate()

    def next_one() -> bool:
        try:
            with in_office(url) as office:
                office.register("1")
        except AlreadyRunningError:
            return False
        return True

    # A server learns of the end of a process when it looks at the connection, at once but not in the same moment.
    until(next_one, "the end of the hold")


@pytest.mark.server
def test_who_is_refused_learns_who_has_the_store(postgresql_url: str) -> None:
    with in_office(postgresql_url), pytest.raises(AlreadyRunningError) as refused:
        only_daemon(postgresql_url).__enter__()
    assert f"by process {os.getpid()} on " in str(refused.value)
    assert "within about a minute" in str(refused.value)


def test_only_one_of_many_that_start_together_gets_a_new_store(url: str) -> None:
    held: list[Office] = []
    refused: list[AlreadyRunningError] = []
    over = threading.Event()

    def start() -> None:
        try:
            with in_office(url) as office:
                held.append(office)
                over.wait(60)
        except AlreadyRunningError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(held) + len(refused) == 4, "the end of the race")
    over.set()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 3)


@pytest.mark.server
def test_a_server_that_is_away_at_the_start_is_an_error_of_the_store() -> None:
    url = f"postgresql://watch:s3cr3t@127.0.0.1:{free_port()}/lw"
    with pytest.raises(StoreError) as refused:
        only_daemon(url).__enter__()
    assert refused.value.reason is StoreReason.UNREACHABLE


def test_a_url_that_is_not_supported_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"store\.url") as refused:
        only_daemon("mysql://watch:s3cr3t@db/lw").__enter__()
    assert "s3cr3t" not in str(refused.value)


def _end_the_hold(server: PostgresqlServer, database: str) -> None:
    (pid,) = _holds(server, database)
    server.execute(f"SELECT pg_terminate_backend({pid})")
    until(lambda: pid not in _holds(server, database), "the end of the session")


@pytest.mark.server
def test_a_hold_that_is_lost_is_taken_again_and_the_daemon_goes_on(
    server: PostgresqlServer, postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = postgresql_url.rpartition("/")[2]
    with caplog.at_level(logging.INFO), in_office(postgresql_url) as office:
        _end_the_hold(server, database)
        office.register("1")
        until(lambda: "the store is held again" in caplog.text, "the hold")
        assert len(_holds(server, database)) == 1
        with pytest.raises(AlreadyRunningError):
            only_daemon(postgresql_url).__enter__()
        office.register("2")
        assert (office.versions(), office.ended_by) == ({"1", "2"}, [])
    assert caplog.text.count("the hold on the store is lost") == 1
    assert "s3cr3t" not in caplog.text
    assert _holds(server, database) == []


@pytest.mark.server
def test_a_hold_outlives_a_server_that_is_away_for_a_while(
    own_server: PostgresqlServer, caplog: pytest.LogCaptureFixture
) -> None:
    database = own_server.create_database()
    with caplog.at_level(logging.INFO), in_office(own_server.url(database)) as office:
        own_server.stop()
        until(lambda: "the hold on the store is lost" in caplog.text, "the loss")
        with pytest.raises(StoreError):
            office.register("1")
        own_server.start()
        until(lambda: "the store is held again" in caplog.text, "the hold")
        office.register("2")
        assert (office.versions(), office.ended_by) == ({"2"}, [])
        assert len(_holds(own_server, database)) == 1


def _displace(server: PostgresqlServer, url: str, hold_on: Callable[[Office], None]) -> Office:
    """A second daemon starts in the moment in which the first has lost its hold."""
    database = url.rpartition("/")[2]
    with ExitStack() as stack:
        first = stack.enter_context(in_office(url))

        def second() -> Office | None:
            for pid in _holds(server, database):
                server.execute(f"SELECT pg_terminate_backend({pid})")
            try:
                return Office(stack, url)
            except AlreadyRunningError:
                return None

        successor = until(second, "the second daemon")
        hold_on(first)
        until(lambda: first.ended_by, "the end of the first daemon")
        successor.register("of the second")
        assert successor.versions() == {"of the second"}
        assert successor.ended_by == []
        return first


@pytest.mark.server
def test_a_daemon_that_was_replaced_ends_and_writes_nothing_more(
    server: PostgresqlServer, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It does not look by itself: what it tries to write tells it.
    monkeypatch.setattr(terms, "LOOK_EVERY_SECONDS", 3600)

    def write(first: Office) -> None:
        with pytest.raises(StoreError) as caught:
            first.register("of the first")
        assert caught.value.reason is StoreReason.DISPLACED

    first = _displace(server, postgresql_url, write)
    assert "took this store over" in str(first.ended_by[0])
    assert "s3cr3t" not in str(first.ended_by[0])


@pytest.mark.server
def test_a_daemon_that_was_replaced_notices_without_writing(
    server: PostgresqlServer, postgresql_url: str
) -> None:
    _displace(server, postgresql_url, lambda first: None)


@pytest.mark.server
def test_a_daemon_that_comes_back_after_another_came_and_went_ends(
    server: PostgresqlServer, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "LOOK_EVERY_SECONDS", 3600)
    database = postgresql_url.rpartition("/")[2]
    with in_office(postgresql_url) as first:
        _end_the_hold(server, database)
        with in_office(postgresql_url) as second:
            second.register("2")
        # Nobody holds it now; what the first one remembers may be wrong all the same.
        with pytest.raises(StoreError) as caught:
            first.register("1")
        assert caught.value.reason is StoreReason.DISPLACED
        until(lambda: first.ended_by, "the end of the first daemon")
    assert _holds(server, database) == []


def test_a_folder_that_cannot_be_written_to_is_a_fault_of_the_url(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError) as caught, only_daemon(f"sqlite:///{tmp_path / 'file' / 'layerwatch.db'}"):
        pass

    assert caught.value.reason is StoreReason.CANNOT_OPEN
    assert "let store.url name a folder" in caught.value.detail

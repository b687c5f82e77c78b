"""What is peculiar to SQLite: how its files are opened, and what its errors mean."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from layerwatch.daemon.store.columns import strict_json
from layerwatch.daemon.store.errors import StoreError, StoreReason

BUSY_TIMEOUT_SECONDS = 30.0
CACHE_KIBIBYTES = 1024
WAL_LIMIT_BYTES = 64 * 1024 * 1024

BEGIN_OPTION = "layerwatch_begin"
"""Execution option of an engine: the statements that begin its transactions."""

READ_TRANSACTION = ("PRAGMA query_only = ON", "BEGIN DEFERRED")
# BEGIN IMMEDIATE takes the write lock at once: a transaction that reads first and then writes can neither find
# that its snapshot is stale nor deadlock with another.
WRITE_TRANSACTION = ("PRAGMA query_only = OFF", "BEGIN IMMEDIATE")

_PRAGMAS = (
    f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}",
    "PRAGMA foreign_keys = ON",
    # NORMAL survives kill -9, but after a power failure it may lose the last commits: events that were already
    # sent would be forgotten and sent again under another sequence.
    "PRAGMA synchronous = FULL",
    f"PRAGMA cache_size = -{CACHE_KIBIBYTES}",
    f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}",
)

_REASONS = {
    sqlite3.SQLITE_BUSY: StoreReason.BUSY,
    sqlite3.SQLITE_LOCKED: StoreReason.BUSY,
    sqlite3.SQLITE_PERM: StoreReason.CANNOT_OPEN,
    sqlite3.SQLITE_CANTOPEN: StoreReason.CANNOT_OPEN,
    sqlite3.SQLITE_CORRUPT: StoreReason.CORRUPT,
    sqlite3.SQLITE_NOTADB: StoreReason.CORRUPT,
    sqlite3.SQLITE_READONLY: StoreReason.READ_ONLY,
    sqlite3.SQLITE_FULL: StoreReason.DISK_FULL,
    sqlite3.SQLITE_IOERR: StoreReason.IO_ERROR,
}

_ADVICE = {
    StoreReason.BUSY: "another process or thread holds the write lock; look for a second layerwatch or a backup "
    "that uses the same file",
    StoreReason.CANNOT_OPEN: "check that the path is a file on a local disk, and that layerwatch may read and "
    "write both it and its folder",
    StoreReason.CORRUPT: "the file is damaged or is no database; stop layerwatch, move it away together with its "
    "-wal and -shm files, and restore a backup or start with an empty one (every version is then scanned again)",
    StoreReason.READ_ONLY: "layerwatch must be able to write the file and its folder, and only write "
    "transactions may change it",
    StoreReason.DISK_FULL: "free some space, then layerwatch goes on by itself",
    StoreReason.IO_ERROR: "the disk or the network file system failed; see the system log",
}


class SqliteFile:
    """A database in one file (`layerwatch.daemon.store.backend.Backend`)."""

    read_options: Mapping[str, Any] = {BEGIN_OPTION: READ_TRANSACTION}
    write_options: Mapping[str, Any] = {BEGIN_OPTION: WRITE_TRANSACTION}

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def place(self) -> str:
        return str(self.path)

    def make_room(self) -> None:
        """Create the folder where it is missing."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            detail = f"{folder}: cannot create the folder of the database: {error.strerror}"
            raise StoreError(StoreReason.CANNOT_OPEN, detail) from error

    def create_engine(self) -> sa.Engine:
        return create_engine(self.path)

    def settle(self) -> None:
        enable_wal(self.path)

    def typed_errors(self) -> AbstractContextManager[None]:
        return typed_errors(self.path)

    @contextmanager
    def migrating(self, writer: sa.Engine) -> Iterator[sa.Connection]:
        # Batch migrations rebuild tables; with foreign keys on, dropping the old copy would delete the rows
        # that point to it. The pragma has no effect inside a transaction.
        with writer.connect() as connection:
            cursor = connection.connection.cursor()
            cursor.execute("PRAGMA foreign_keys = OFF")
            try:
                with connection.begin():
                    yield connection
                    self._check_references(connection)
            finally:
                cursor.execute("PRAGMA foreign_keys = ON")
                cursor.close()

    def _check_references(self, connection: sa.Connection) -> None:
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            tables = ", ".join(sorted({str(row[0]) for row in broken}))
            detail = f"{self.path}: the upgrade was undone: {len(broken)} rows of {tables} point to nothing"
            raise StoreError(StoreReason.CORRUPT, detail)


def create_engine(path: Path) -> sa.Engine:
    """An engine over one SQLite file, for use from several threads."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        json_serializer=strict_json,
        poolclass=sa.QueuePool,
        # Connections beyond the first few are closed after use: each holds a page cache.
        pool_size=4,
        max_overflow=60,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: object) -> None:
        # Transactions begin where the listener below says, not where the driver guesses.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        for statement in connection.get_execution_options().get(BEGIN_OPTION, READ_TRANSACTION):
            connection.exec_driver_sql(statement)

    return engine


def enable_wal(path: Path) -> None:
    """Switch the file to write-ahead logging, in which readers and the writer do not wait for each other.

    Raises:
        StoreError: ``cannot_open`` where the file system has no shared memory; ``busy``.
    """
    # SQLite does not wait by itself here, where two processes might wait for each other.
    pause_seconds = 0.05
    for _ in range(int(BUSY_TIMEOUT_SECONDS / pause_seconds)):
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS)
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(pause_seconds)
            continue
        finally:
            connection.close()
        if mode != "wal":
            raise StoreError(
                StoreReason.CANNOT_OPEN,
                f"{path}: SQLite cannot keep a write-ahead log here (journal mode stays {mode!r}); put the database "
                "on a local disk",
            )
        return
    raise StoreError(StoreReason.BUSY, f"{path}: {_ADVICE[StoreReason.BUSY]}")


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file into `StoreError`; others (a violated constraint) pass through."""
    try:
        yield
    except exc.TimeoutError as error:
        detail = f"{path}: no free database connection within {BUSY_TIMEOUT_SECONDS:.0f} s"
        raise StoreError(StoreReason.BUSY, detail) from error
    except exc.DBAPIError as error:
        _raise_typed(path, error.orig, error)
        raise
    except sqlite3.Error as error:
        _raise_typed(path, error, error)
        raise


def _raise_typed(path: Path, origin: Any, cause: Exception) -> None:
    reason = _REASONS.get(_primary_code(origin))
    if reason is not None:
        raise StoreError(reason, f"{path}: {origin}: {_ADVICE[reason]}") from cause


def _primary_code(error: Any) -> int:
    # The low byte is the primary code, the rest narrows it down (https://www.sqlite.org/rescode.html).
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF

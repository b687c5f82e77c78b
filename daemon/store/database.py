"""The database: opening it, and its two kinds of transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from layerwatch.daemon.store import schema, sqlite
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.schema import SchemaState


class Database:
    """One open database, for use from any number of threads.

    Every function of the store takes a connection from `read` or `write`, so that callers decide what belongs
    to one transaction. All databases keep two promises: a read transaction sees one state throughout, and at
    most one write transaction is open at a time, in whichever process. A thread must not open a write
    transaction inside another: the inner one would wait for the outer until it fails as ``busy``.
    """

    def __init__(self, engine: sa.Engine, path: Path) -> None:
        self._path = path
        self._reader = engine.execution_options(**{sqlite.BEGIN_OPTION: sqlite.READ_TRANSACTION})
        self._writer = engine.execution_options(**{sqlite.BEGIN_OPTION: sqlite.WRITE_TRANSACTION})
        self._closed = False

    @classmethod
    def open(cls, url: str, upgrade: Callable[[str], None] | None = None) -> Database:
        """Open the database, create it with its folder where missing, and bring its schema up to date.

        Several processes may do so at once; a start that is killed leaves the old schema or the new one.

        Args:
            url: ``sqlite:///FILE``, or ``sqlite:////FOLDER/FILE`` for a full path.
            upgrade: brings the schema of the database at this address up to date where it is not; None does so here.

        Raises:
            StoreError: ``unsupported_url``, ``cannot_open``, ``corrupt``, ``foreign``, ``newer_schema``, ``busy``,
                ``read_only``, ``disk_full`` or ``io_error``.
        """
        path = database_path(url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            detail = f"{path.parent}: cannot create the folder of the database: {error.strerror}"
            raise StoreError(StoreReason.CANNOT_OPEN, detail) from error
        database = cls(sqlite.create_engine(path), path)
        try:
            database._prepare(database._migrate if upgrade is None else partial(upgrade, url))
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database and cannot change it.

        Raises:
            StoreError: ``closed``, or the database cannot be read.
        """
        self._check_open()
        with sqlite.typed_errors(self._path), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """The only write transaction of the moment: committed on leaving, rolled back on any exception.

        Raises:
            StoreError: ``closed``; ``busy`` when another writer stays for 30 s; or the database cannot be written.
        """
        self._check_open()
        with sqlite.typed_errors(self._path), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all idle connections; those in use close when their transaction ends. May be called twice."""
        self._closed = True
        self._reader.dispose()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(StoreReason.CLOSED, f"{self._path}: the database has been closed")

    def _prepare(self, migrate: Callable[[], None]) -> None:
        # Look before touching: the database of another program stays as it is.
        with self.read() as connection:
            found = schema.state(connection)
        with sqlite.typed_errors(self._path):
            sqlite.enable_wal(self._path)
            if found is not SchemaState.UP_TO_DATE:
                migrate()

    def _migrate(self) -> None:
        # Batch migrations rebuild tables; with foreign keys on, dropping the old copy would delete the rows
        # that point to it. The pragma has no effect inside a transaction.
        with self._writer.connect() as connection:
            cursor = connection.connection.cursor()
            cursor.execute("PRAGMA foreign_keys = OFF")
            try:
                with connection.begin():
                    # The write lock is held from here: another process may have migrated meanwhile.
                    if schema.state(connection) is SchemaState.UP_TO_DATE:
                        return
                    schema.upgrade(connection)
                    self._check_references(connection)
            finally:
                cursor.execute("PRAGMA foreign_keys = ON")
                cursor.close()

    def _check_references(self, connection: sa.Connection) -> None:
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            tables = ", ".join(sorted({str(row[0]) for row in broken}))
            detail = f"{self._path}: the upgrade was undone: {len(broken)} rows of {tables} point to nothing"
            raise StoreError(StoreReason.CORRUPT, detail)


def database_path(url: str) -> Path:
    """The file that ``url`` names, as a full path; raises StoreError (``unsupported_url``), without any secret."""
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        # The text may hold a password, so it is not repeated.
        raise StoreError(StoreReason.UNSUPPORTED_URL, "store.url must be a SQLite file: sqlite:///FILE")
    name = parsed.database
    if not name or name == ":memory:" or name.startswith("file:") or parsed.query or parsed.host:
        # Imported here because it needs pydantic, which commands that only read the store do without.
        from layerwatch.config.secrets import redact_url

        detail = f"{redact_url(url)!r} names no file; use sqlite:///FILE, or sqlite:////FOLDER/FILE for a full path"
        raise StoreError(StoreReason.UNSUPPORTED_URL, detail)
    # Absolute, because connections are opened later too, perhaps in another working folder.
    return Path(name).absolute()

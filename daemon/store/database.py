"""The database: opening it, and its two kinds of transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa

from layerwatch.daemon.store import schema
from layerwatch.daemon.store.address import backend_of
from layerwatch.daemon.store.backend import Backend
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.modelsummaries import kept_in_step
from layerwatch.daemon.store.schema import SchemaState


class Database:
    """One open database, for use from any number of threads.

    Every function of the store takes a connection from `read` or `write`, so that callers decide what belongs
    to one transaction. All databases keep two promises: a read transaction sees one state throughout, and at
    most one write transaction is open at a time, in whichever process. A thread must not open a write
    transaction inside another: the inner one would wait for the outer until it fails as ``busy``.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        engine = backend.create_engine()
        self._reader = engine.execution_options(**backend.read_options)
        self._writer = engine.execution_options(**backend.write_options)
        self._may_write: Callable[[sa.Connection], None] = lambda connection: None
        self._closed = False

    @classmethod
    def open(cls, url: str, upgrade: Callable[[str], None] | None = None) -> Database:
        """Open the database, create it with its folder where missing, and bring its schema up to date.

        Several processes may do so at once; a start that is killed leaves the old schema or the new one.

        Args:
            url: ``sqlite:///FILE``, ``sqlite:////FOLDER/FILE`` for a full path, or
                ``postgresql://USER:PASSWORD@HOST/DATABASE``, which must exist.
            upgrade: brings the schema of the database at this address up to date where it is not; None does so here.

        Raises:
            StoreError: ``unsupported_url``, ``cannot_open``, ``corrupt``, ``foreign``, ``newer_schema``, ``busy``,
                ``read_only``, ``disk_full`` or ``io_error``; of a server also ``unreachable``, ``denied``,
                ``no_database`` or ``missing_package``.
        """
        backend = backend_of(url)
        backend.make_room()
        database = cls(backend)
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
        with self._backend.typed_errors(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """The only write transaction of the moment: committed on leaving, rolled back on any exception.

        Models that change in it are summed up at its end (`modelsummaries`).

        Raises:
            StoreError: ``closed``; ``busy`` when another writer stays for 30 s; or the database cannot be written. When
                the connection to a server is lost at the very end, it may have been committed all the same.
        """
        self._check_open()
        with self._backend.typed_errors(), self._writer.begin() as connection:
            self._may_write(connection)
            with kept_in_step(connection):
                yield connection

    def fence(self, may_write: Callable[[sa.Connection], None]) -> None:
        """Begin every write transaction with a question from now on.

        Args:
            may_write: raises StoreError where this process must not write any more.
        """
        self._may_write = may_write

    def close(self) -> None:
        """Close all idle connections; those in use close when their transaction ends. May be called twice."""
        self._closed = True
        self._reader.dispose()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(StoreReason.CLOSED, f"{self._backend.place}: the database has been closed")

    def _prepare(self, migrate: Callable[[], None]) -> None:
        # Look before touching: the database of another program stays as it is.
        with self.read() as connection:
            found = schema.state(connection)
        with self._backend.typed_errors():
            self._backend.settle()
            if found is not SchemaState.UP_TO_DATE:
                migrate()

    def _migrate(self) -> None:
        with self._backend.migrating(self._writer) as connection:
            # The write lock is held from here: another process may have migrated meanwhile.
            if schema.state(connection) is not SchemaState.UP_TO_DATE:
                schema.upgrade(connection)

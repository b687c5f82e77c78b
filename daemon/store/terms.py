"""The hold of a daemon on a database of a PostgreSQL server: a lock, and a term of office.

The lock keeps a second daemon from starting. It lasts as long as one connection, and this may be lost, with the server
or on the way there, while the daemon is well. So a daemon that holds the lock begins a term, a number that no daemon had
before; every write transaction looks whether the term is still the latest. After a loss the lock is taken again: when
nobody began a term meanwhile, the daemon goes on as if nothing had happened, and otherwise it has been replaced.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import exc

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import AlreadyRunningError, StoreError, StoreReason
from layerwatch.daemon.store.postgresql import DAEMON_LOCK, PostgresqlDatabase

_LOGGER = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 5.0

_TERMS = tables.daemon_terms


class ServerHold:
    """The hold on one database (`layerwatch.daemon.store.onedaemon.Hold`)."""

    def __init__(self, backend: PostgresqlDatabase) -> None:
        self._backend = backend
        self._engine = backend.create_single_engine()
        self._connection: sa.Connection | None = None
        self._term: int | None = None
        self._warned = False
        self._look = threading.Event()
        self._ending = threading.Event()

    def take(self) -> None:
        """Take the lock.

        Raises:
            StoreError: the server cannot be asked.
            AlreadyRunningError: another daemon has it.
        """
        with self._backend.typed_errors():
            connection = self._engine.connect()
            try:
                if not connection.execute(DAEMON_LOCK).scalar():
                    raise AlreadyRunningError(
                        f"another layerwatch daemon uses this store ({self._backend.place}{_holder(connection)}): stop "
                        "it, or give this one its own store.url; the server lets go of one whose machine has died "
                        "within about a minute"
                    )
            except BaseException:
                connection.close()
                raise
        self._connection = connection

    def let_go(self) -> None:
        """Give the lock back."""
        self._drop()
        self._engine.dispose()

    @contextmanager
    def kept(self, database: Database, lost: Callable[[AlreadyRunningError], None]) -> Iterator[None]:
        """Begin a term, and see every few seconds that it goes on."""
        with database.write() as connection:
            self._term = _begin(connection)
        database.fence(self._refuse_when_over)
        thread = threading.Thread(target=self._watch, args=(lost,), name="hold", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._look.set()
            thread.join(LOOK_EVERY_SECONDS)

    def _refuse_when_over(self, connection: sa.Connection) -> None:
        if _latest(connection) != self._term:
            self._look.set()
            detail = f"{self._backend.place}: another layerwatch daemon works on this store now"
            raise StoreError(StoreReason.DISPLACED, detail)

    def _watch(self, lost: Callable[[AlreadyRunningError], None]) -> None:
        while not self._ending.is_set():
            self._look.wait(LOOK_EVERY_SECONDS)
            self._look.clear()
            try:
                if not self._ending.is_set():
                    self._see()
            except AlreadyRunningError as error:
                lost(error)
                return
            except Exception:
                # A thread that ends is missed by nobody; the terms keep the store safe meanwhile.
                _LOGGER.exception(
                    "unexpected error while the hold on the store was looked at; please report it"
                )

    def _see(self) -> None:
        """Look whether the lock is still held, and take it again where it is not.

        Raises:
            AlreadyRunningError: another daemon began a term.
        """
        try:
            if self._connection is not None:
                with self._backend.typed_errors():
                    self._require_term(self._connection)
                return
        except StoreError as error:
            self._drop()
            self._warn("the hold on the store is lost, and taken again when the server answers: %s", error)
        try:
            self._take_again()
        except StoreError as error:
            self._warn("the store cannot be held again yet: %s", error)

    def _take_again(self) -> None:
        with self._backend.typed_errors():
            connection = self._engine.connect()
            try:
                taken = connection.execute(DAEMON_LOCK).scalar()
                self._require_term(connection)
            except BaseException:
                connection.close()
                raise
        if taken:
            self._connection = connection
            self._warned = False
            _LOGGER.info("the store is held again")
        else:
            # By the session that was lost, which the server still believes in, or by a daemon that begins.
            connection.close()
            self._warn("the hold on the store is lost, and another session has it for now")

    def _require_term(self, connection: sa.Connection) -> None:
        if _latest(connection) != self._term:
            raise AlreadyRunningError(
                f"another layerwatch daemon took this store over ({self._backend.place}{_holder(connection)}) while the "
                "connection to it was lost"
            )

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # What is lost cannot be closed in good order.
            connection.invalidate()
            connection.close()

    def _warn(self, text: str, *arguments: object) -> None:
        """Once for each loss."""
        _LOGGER.log(logging.DEBUG if self._warned else logging.WARNING, text, *arguments)
        self._warned = True


def _begin(connection: sa.Connection) -> int:
    """Begin a term, which ends all others; its number."""
    inserted = connection.execute(
        sa.insert(_TERMS).values(host=socket.gethostname(), process=os.getpid(), began_at=datetime.now(UTC))
    )
    assert inserted.inserted_primary_key is not None
    term: int = inserted.inserted_primary_key[0]
    connection.execute(sa.delete(_TERMS).where(_TERMS.c.id < term))
    return term


def _latest(connection: sa.Connection) -> int | None:
    term: int | None = connection.execute(sa.select(sa.func.max(_TERMS.c.id))).scalar()
    return term


def _holder(connection: sa.Connection) -> str:
    """Which daemon began the latest term, as an addition to the place; empty where nobody knows."""
    try:
        row = connection.execute(sa.select(_TERMS).order_by(_TERMS.c.id.desc()).limit(1)).first()
    except exc.ProgrammingError:
        # It is just making the tables.
        return ""
    if row is None:
        return ""
    return f", by process {row.process} on {row.host} since {row.began_at:%Y-%m-%d %H:%M:%S} UTC"

"""At most one daemon works on a store: two would undo each other's claims.

A file is locked, which lasts until the process ends. A lock on a server lasts as long as a connection, which may be lost
while both sides live on; see `layerwatch.daemon.store.terms`.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from layerwatch.config.errors import ConfigError, ConfigProblem
from layerwatch.config.store import check_database_url
from layerwatch.daemon.store.address import backend_of
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import AlreadyRunningError, StoreError, StoreReason
from layerwatch.daemon.store.sqlite import SqliteFile


class Hold(Protocol):
    """What a daemon has on its store."""

    def kept(
        self, database: Database, lost: Callable[[AlreadyRunningError], None]
    ) -> AbstractContextManager[None]:
        """Inside, the store is written by this daemon alone.

        Args:
            database: the store, open and up to date.
            lost: called, from another thread, once another daemon has taken the store over; nothing can be written then.
        """


@contextmanager
def only_daemon(url: str) -> Iterator[Hold]:
    """Take hold of a store, before it is opened, for as long as this daemon works on it.

    Raises:
        ConfigError: the URL, perhaps read only now from a variable or a file, names no database that is supported.
        StoreError: it names none after all, or the server cannot be asked.
        AlreadyRunningError: another daemon has it.
    """
    try:
        check_database_url(url)
    except ValueError as error:
        raise ConfigError([ConfigProblem("store.url", None, str(error))]) from None
    backend = backend_of(url)
    if isinstance(backend, SqliteFile):
        with _locked(backend.path):
            yield _FileHold()
        return
    # Imported here because most stores are files.
    from layerwatch.daemon.store.terms import ServerHold

    hold = ServerHold(backend)
    try:
        hold.take()
        yield hold
    finally:
        hold.let_go()


class _FileHold:
    """A locked file: nothing can take the lock away."""

    def kept(
        self, database: Database, lost: Callable[[AlreadyRunningError], None]
    ) -> AbstractContextManager[None]:
        return nullcontext()


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    path = database.with_name(f"{database.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a")
    except OSError as error:
        detail = f"{path}: {error.strerror}: let store.url name a folder that this user may write to"
        raise StoreError(StoreReason.CANNOT_OPEN, detail) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyRunningError(
                f"another layerwatch daemon uses this store ({path} is locked): stop it, or give this one its own "
                "store.url"
            ) from None
        yield

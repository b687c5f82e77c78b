"""What is peculiar to PostgreSQL: how its databases are reached, and what its errors mean.

The client library, psycopg, is imported with the first engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from layerwatch.config.extras import how_to_install
from layerwatch.daemon.store.columns import strict_json
from layerwatch.daemon.store.errors import StoreError, StoreReason

BUSY_TIMEOUT_SECONDS = 30.0

# Advisory locks belong to one database and are told apart by two numbers: what for, and which schema of it.
_WRITER_LOCK = 0x6C775752
_DAEMON_LOCK = 0x6C776461
_SCHEMA = "hashtext(coalesce(current_schema(), ''))"

WRITER_LOCK = sa.text(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK}, {_SCHEMA})")
"""Waits for the only write transaction of the moment to end; held until the end of one's own."""

DAEMON_LOCK = sa.text(f"SELECT pg_try_advisory_lock({_DAEMON_LOCK}, {_SCHEMA})")
"""True when no other session holds it; held until the end of one's own."""

# A server that stopped answering, or whose machine is gone, is given up in about a minute.
_CLIENT_DEFAULTS: Mapping[str, str | int] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "fallback_application_name": "layerwatch",
}

# And the server lets go, in about the same time, of the locks of a client whose machine is gone; by default, it would
# after two hours.
_SERVER_SETTINGS: Mapping[str, str] = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # Committed means on disk; a server may be set up otherwise.
    "synchronous_commit": "on",
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html; a code counts before its class, the first two letters.
_REASONS = {
    "08": StoreReason.UNREACHABLE,
    "25006": StoreReason.READ_ONLY,
    "25P03": StoreReason.UNREACHABLE,
    "28": StoreReason.DENIED,
    "3D": StoreReason.NO_DATABASE,
    "3F": StoreReason.DENIED,
    "40": StoreReason.BUSY,
    "42P01": StoreReason.CORRUPT,
    "42501": StoreReason.DENIED,
    "53": StoreReason.IO_ERROR,
    "53100": StoreReason.DISK_FULL,
    "53300": StoreReason.BUSY,
    "55P03": StoreReason.BUSY,
    "57": StoreReason.UNREACHABLE,
    "57014": StoreReason.BUSY,
    "58": StoreReason.IO_ERROR,
    "XX001": StoreReason.CORRUPT,
    "XX002": StoreReason.CORRUPT,
}

# A connection that is refused comes without a code: the first of these words counts. Servers may speak other languages: then it is `unreachable`, and
# what the server said stands beside it.
_WORDS = (
    ("database system", StoreReason.UNREACHABLE),
    ("too many", StoreReason.BUSY),
    ("remaining connection slots", StoreReason.BUSY),
    ("password", StoreReason.DENIED),
    ("no pg_hba.conf entry", StoreReason.DENIED),
    ("permission denied for database", StoreReason.DENIED),
    ("role", StoreReason.DENIED),
    ("authentication", StoreReason.DENIED),
    ("database", StoreReason.NO_DATABASE),
)
_FATAL = "FATAL:"
_INVALID = re.compile(r"invalid (\w+|integer) value[: ]")
"""What libpq says when it refuses a setting of its own, before it asks anybody."""

_ADVICE = {
    StoreReason.UNSUPPORTED_URL: "check what stands behind the ? of store.url: the settings of libpq, such as sslmode=require",
    StoreReason.UNREACHABLE: "check host and port of store.url, and that the server runs; a daemon that runs already goes "
    "on by itself once it answers",
    StoreReason.DENIED: "check user and password of store.url (it is read at the start), and that the user may create "
    "tables there: the simplest is to make it the owner of a database of its own",
    StoreReason.NO_DATABASE: "create it, with the user of store.url as its owner: CREATE DATABASE name OWNER user",
    StoreReason.BUSY: "the server has no connection or lock to give; look for a long transaction in pg_stat_activity, "
    "or raise max_connections",
    StoreReason.READ_ONLY: "only write transactions may change the database, and only on the primary server: with "
    "several hosts in store.url, add target_session_attrs=read-write",
    StoreReason.DISK_FULL: "the disk of the server is full; free some space there, then layerwatch goes on by itself",
    StoreReason.IO_ERROR: "the server failed; see its log",
    StoreReason.CORRUPT: "the database is damaged, or was replaced by another; see the log of the server, restore a "
    "backup, and start layerwatch again",
}

_LONGEST_QUOTE = 400


class PostgresqlDatabase:
    """One database of a server (`layerwatch.daemon.store.backend.Backend`).

    Readers see the state at their first statement (``REPEATABLE READ``). Writers take turns by an advisory lock, so
    that each sees all that was committed before it, and none fails for another's sake.
    """

    read_options: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    write_options: Mapping[str, Any] = {
        "isolation_level": "READ COMMITTED",
        "postgresql_readonly": False,
        "layerwatch_writes": True,
    }

    def __init__(self, url: sa.URL) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        query = [url.query.get(name, ()) for name in ("password", "sslpassword")]
        passwords = [
            url.password,
            *(one for value in query for one in ([value] if isinstance(value, str) else value)),
        ]
        self._secrets = tuple(str(one) for one in passwords if one)
        port = "" if url.port is None else f":{url.port}"
        self._place = f"postgresql://{url.host or ''}{port}/{url.database}"

    @property
    def place(self) -> str:
        """Host, port and database."""
        return self._place

    def make_room(self) -> None:
        """Nothing: databases are made by whoever runs the server."""

    def settle(self) -> None:
        """Nothing: what counts is set for each connection."""

    def create_engine(self) -> sa.Engine:
        """Few connections: a server has a hundred for everybody unless it is told otherwise."""
        engine = self._engine(
            pool_size=3, max_overflow=13, pool_timeout=BUSY_TIMEOUT_SECONDS, pool_pre_ping=True
        )

        @event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            if connection.get_execution_options().get("layerwatch_writes"):
                connection.execute(WRITER_LOCK)

        return engine

    def create_single_engine(self) -> sa.Engine:
        """An engine whose connections are closed after use, and commit each statement."""
        return self._engine(poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")

    @contextmanager
    def migrating(self, writer: sa.Engine) -> Iterator[sa.Connection]:
        with writer.begin() as connection:
            yield connection

    @contextmanager
    def typed_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.TimeoutError as error:
            detail = f"{self.place}: no free database connection within {BUSY_TIMEOUT_SECONDS:.0f} s"
            raise StoreError(StoreReason.BUSY, detail) from error
        except exc.DBAPIError as error:
            reason = _reason_of(error)
            if reason is None:
                raise
            detail = f"{self.place}: {self._quoted(error)}: {_ADVICE[reason]}"
            raise StoreError(reason, detail) from error

    def _engine(self, **options: Any) -> sa.Engine:
        asked = self._url.query
        try:
            engine = sa.create_engine(
                self._url,
                connect_args={name: value for name, value in _CLIENT_DEFAULTS.items() if name not in asked},
                json_serializer=strict_json,
                # Values may be long, and stand in logs beside the error otherwise.
                hide_parameters=True,
                **options,
            )
        except ImportError as error:
            detail = f"a store on PostgreSQL needs the package {error.name or 'psycopg'}: " + how_to_install(
                "postgresql"
            )
            raise StoreError(StoreReason.MISSING_PACKAGE, detail) from error

        @event.listens_for(engine, "connect")
        def configure(connection: Any, record: object) -> None:
            settings = {**_SERVER_SETTINGS, "lock_timeout": str(int(BUSY_TIMEOUT_SECONDS * 1000))}
            connection.autocommit = True
            for name, value in settings.items():
                connection.execute(f"SET {name} = {value}")
            connection.autocommit = False

        return engine

    def _quoted(self, error: exc.DBAPIError) -> str:
        """What the server or the library said, in one line and without the password."""
        said = " ".join(str(error.orig).split())
        for secret in self._secrets:
            said = said.replace(secret, "<secret>")
        return said if len(said) <= _LONGEST_QUOTE else f"{said[:_LONGEST_QUOTE]}..."


def _reason_of(error: exc.DBAPIError) -> StoreReason | None:
    """The reason of an error about the database as a whole; None for another one."""
    code = getattr(error.orig, "sqlstate", None)
    if code is not None:
        return _REASONS.get(code, _REASONS.get(code[:2]))
    if isinstance(error, exc.ProgrammingError):
        # Without a code no server said so: the library found it in the URL.
        return StoreReason.UNSUPPORTED_URL
    if not isinstance(error, exc.OperationalError | exc.InterfaceError):
        return None
    if _INVALID.search(str(error.orig)):
        return StoreReason.UNSUPPORTED_URL
    _, fatal, said = str(error.orig).partition(_FATAL)
    words = (reason for word, reason in _WORDS if fatal and word in said)
    return next(words, StoreReason.UNREACHABLE)

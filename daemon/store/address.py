"""What ``store.url`` names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.sqlite import SqliteFile

if TYPE_CHECKING:
    from layerwatch.daemon.store.postgresql import PostgresqlDatabase

_SQLITE = ("sqlite", "sqlite+pysqlite")
_POSTGRESQL = ("postgresql", "postgresql+psycopg")


def backend_of(url: str) -> SqliteFile | PostgresqlDatabase:
    """The database that ``url`` names; nothing is opened or contacted yet.

    Raises:
        StoreError: ``unsupported_url``, without any secret.
    """
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        parsed = None
    if parsed is not None and parsed.drivername in _SQLITE:
        return SqliteFile(_path_of(parsed, url))
    if parsed is not None and parsed.drivername in _POSTGRESQL:
        return _server_of(parsed)
    # The text may hold a password, so it is not repeated.
    raise StoreError(
        StoreReason.UNSUPPORTED_URL,
        "store.url must be a SQLite file (sqlite:///FILE) or a database of a PostgreSQL server "
        "(postgresql://USER:PASSWORD@HOST/DATABASE; in a password @ : / % are written %40 %3A %2F %25)",
    )


def _path_of(parsed: sa.URL, url: str) -> Path:
    name = parsed.database
    if not name or name == ":memory:" or name.startswith("file:") or parsed.query or parsed.host:
        # Imported here because it needs pydantic, which commands that only read the store do without.
        from layerwatch.config.secrets import redact_url

        detail = f"{redact_url(url)!r} names no file; use sqlite:///FILE, or sqlite:////FOLDER/FILE for a full path"
        raise StoreError(StoreReason.UNSUPPORTED_URL, detail)
    # Absolute, because connections are opened later too, perhaps in another working folder.
    return Path(name).absolute()


def _server_of(parsed: sa.URL) -> PostgresqlDatabase:
    # What stands behind an unescaped @ of a password would be taken for the host, and shown.
    if "@" in (parsed.host or ""):
        detail = "store.url: @ : / and % inside of user and password must be written %40 %3A %2F and %25"
        raise StoreError(StoreReason.UNSUPPORTED_URL, detail)
    if not parsed.database:
        detail = "store.url names no database: postgresql://USER:PASSWORD@HOST/DATABASE"
        raise StoreError(StoreReason.UNSUPPORTED_URL, detail)
    # Imported here because most stores are files.
    from layerwatch.daemon.store.postgresql import PostgresqlDatabase

    return PostgresqlDatabase(parsed)

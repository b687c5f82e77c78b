"""Real databases, one for each test: a SQLite file and, as far as there is a server, one on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from layerwatch.daemon.store.database import Database
from layerwatch_testing.emptystore import empty_store
from layerwatch_testing.servers import ServerMissing, shared
from layerwatch_testing.servers.postgresql import PostgresqlServer
from storetools import NewDatabase

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
BOTH = (SQLITE, pytest.param(POSTGRESQL, marks=pytest.mark.server))


@pytest.fixture(scope="session")
def server() -> PostgresqlServer:
    """The PostgreSQL server of all tests."""
    try:
        return shared("postgresql", PostgresqlServer)
    except ServerMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def migrated(server: PostgresqlServer) -> str:
    """Name of a database with tables and without rows, to make others like it: much faster than to migrate each."""
    name = server.create_database()
    Database.open(server.url(name)).close()
    return name


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of a file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'data' / 'layerwatch.db'}"


@pytest.fixture
def postgresql_url(server: PostgresqlServer) -> Iterator[str]:
    """URL of a database without tables."""
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str:
    """URL of a database without tables: a file that does not exist yet, and one on a server."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """A new, empty database in a file."""
    opened = Database.open(empty_store(tmp_path / "data" / "layerwatch.db"))
    yield opened
    opened.close()


@pytest.fixture
def postgresql_database(server: PostgresqlServer, migrated: str) -> Iterator[Database]:
    """A new, empty database on a server."""
    with _like(server, migrated) as opened:
        yield opened


@pytest.fixture(params=BOTH)
def database(request: pytest.FixtureRequest) -> Database:
    """A new, empty database, of either kind."""
    found: Database = request.getfixturevalue(f"{request.param}_database")
    return found


@pytest.fixture(scope="session", params=BOTH)
def new_database(request: pytest.FixtureRequest) -> NewDatabase:
    """Makes a new database for one example of a property test, where fixtures are shared between examples."""
    if request.param == SQLITE:
        return _in_a_file
    server: PostgresqlServer = request.getfixturevalue("server")
    migrated: str = request.getfixturevalue("migrated")
    return lambda: _like(server, migrated)


@contextmanager
def _in_a_file() -> Iterator[Database]:
    with TemporaryDirectory() as folder:
        database = Database.open(empty_store(Path(folder) / "layerwatch.db"))
        yield database
        database.close()


@contextmanager
def _like(server: PostgresqlServer, migrated: str) -> Iterator[Database]:
    name = server.create_database(migrated)
    database = Database.open(server.url(name))
    yield database
    database.close()
    server.drop_database(name)

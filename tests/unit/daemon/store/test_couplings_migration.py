"""A database that was written before couplings were kept is brought up to date with what is in it."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from layerwatch.daemon.store import contents, schema, tables
from layerwatch.daemon.store.database import Database
from layerwatch.metrics.measurement import METRIC_SET
from storetools import NOW, content


def test_contents_from_before_have_no_couplings_and_lose_nothing(url: str) -> None:
    _with_the_schema_before(url)
    database = Database.open(url)
    with database.read() as connection:
        assert schema.state(connection) is schema.SchemaState.UP_TO_DATE
        assert contents.load(connection, "f", METRIC_SET) == content("f")
    database.close()


def test_downgrading_takes_the_couplings_and_nothing_else(database: Database) -> None:
    with database.write() as connection:
        contents.save(connection, content("f"), NOW)
        command.downgrade(_config(connection), "0002")
        assert "content_couplings" not in sa.inspect(connection).get_table_names()
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.contents)).scalar() == 1


def _with_the_schema_before(url: str) -> None:
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        command.upgrade(_config(connection), "0002")
        # Without couplings nothing is written to the table that is not there yet.
        contents.save(connection, content("f"), NOW)
    engine.dispose()


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.attributes["connection"] = connection
    return config

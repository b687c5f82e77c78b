"""A database that was written before remarks were kept is brought up to date with what is in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from layerwatch.daemon.store import contents, schema, tables
from layerwatch.daemon.store.database import Database
from layerwatch.metrics.census.remark import StorageRemark, StorageRemarkKind
from layerwatch.metrics.measurement import METRIC_SET
from storetools import NOW, content

_REMARKS = (
    StorageRemark("a\u2028.fc", StorageRemarkKind.ZERO_POINT, "off by one", "7", "8"),
    StorageRemark("", StorageRemarkKind.MISSING_BLOCKS, "block 3 is missing", "4", "3"),
)


def test_remarks_come_back_as_they_were(database: Database) -> None:
    remarked = replace(content("f"), remarks=_REMARKS)
    with database.write() as connection:
        contents.save(connection, remarked, NOW)
        assert contents.load(connection, "f", METRIC_SET) == remarked
        contents.save(connection, content("f"), NOW)
        assert contents.load(connection, "f", METRIC_SET) == content("f")
        assert connection.execute(sa.select(tables.content_remarks)).all() == []


def test_a_remark_about_a_hostile_name_is_kept(database: Database) -> None:
    # UTF-8 has no form for lone surrogates, PostgreSQL none for NUL.
    hostile = StorageRemark("a\ud800\x00b", StorageRemarkKind.SHAPES, "a\ud800\x00b is wrong")
    with database.write() as connection:
        contents.save(connection, replace(content("f"), remarks=(hostile,)), NOW)
        loaded = contents.load(connection, "f", METRIC_SET)
    assert loaded is not None
    assert loaded.remarks[0].layer == "a\\ud800\\x00b"


def test_contents_from_before_have_no_remarks_and_lose_nothing(url: str) -> None:
    _with_the_schema_before(url)
    database = Database.open(url)
    with database.read() as connection:
        assert schema.state(connection) is schema.SchemaState.UP_TO_DATE
        assert contents.load(connection, "f", METRIC_SET) == content("f")
    database.close()


def test_downgrading_takes_the_remarks_and_nothing_else(database: Database) -> None:
    with database.write() as connection:
        contents.save(connection, replace(content("f"), remarks=_REMARKS), NOW)
        command.downgrade(_config(connection), "0009")
        assert "content_remarks" not in sa.inspect(connection).get_table_names()
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.contents)).scalar() == 1


def _with_the_schema_before(url: str) -> None:
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        command.upgrade(_config(connection), "0009")
        # Without remarks nothing is written to the table that is not there yet.
        contents.save(connection, content("f"), NOW)
    engine.dispose()


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.attributes["connection"] = connection
    return config

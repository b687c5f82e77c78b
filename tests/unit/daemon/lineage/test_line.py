from __future__ import annotations

import sqlalchemy as sa

from layerwatch.daemon.lineage.line import ancestry
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import Lineage, VersionRecord
from storetools import judged


def line(connection: sa.Connection, version: VersionRecord) -> list[tuple[str, str | None]]:
    return [(record.key.version, origin) for record, origin in ancestry(connection, version)]


def test_without_declarations_the_line_is_the_natural_order(database: Database) -> None:
    with database.write() as connection:
        for name in ("v10", "v2", "v1"):
            judged(connection, name)
        last = judged(connection, "v11")
        assert line(connection, last) == [("v1", None), ("v2", None), ("v10", None), ("v11", None)]


def test_a_declared_parent_is_followed_past_versions_of_another_branch(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        judged(connection, "v2")
        judged(connection, "v3")
        last = judged(connection, "v4", lineage=Lineage("v2", "quantized", "card", 1.0))
        assert line(connection, last) == [("v1", None), ("v2", None), ("v4", "quantized from v2")]


def test_a_parent_that_is_not_there_is_passed_over_for_the_version_before(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1")
        last = judged(connection, "v2", lineage=Lineage("v0", "finetuned", "card", 1.0))
        assert line(connection, last) == [("v1", None), ("v2", None)]


def test_a_circle_of_declarations_ends(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1", lineage=Lineage("v3", None, "card", 1.0))
        judged(connection, "v2", lineage=Lineage("v1", None, "card", 1.0))
        last = judged(connection, "v3", lineage=Lineage("v2", None, "card", 1.0))
        assert [name for name, _ in line(connection, last)] == ["v1", "v2", "v3"]


def test_bytes_that_were_replaced_are_no_step(database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1", fingerprint="first bytes")
        judged(connection, "v1", fingerprint="other bytes")
        last = judged(connection, "v2")
        (first, _), _ = ancestry(connection, last)
        assert first.fingerprint == "other bytes"

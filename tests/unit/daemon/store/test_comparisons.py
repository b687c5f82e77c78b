from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from layerwatch.daemon.store import comparisons, contents, retention, tables
from layerwatch.daemon.store.database import Database
from layerwatch.metrics.change import AlignedChange, Method
from layerwatch_testing.models import scan, write_safetensors
from layerwatch_testing.networks import finetuned, network
from storetools import NOW, content, judged, later


@pytest.fixture
def exact(tmp_path: Path) -> dict[str, AlignedChange]:
    """What a real comparison of two files gives, all parts of it."""
    before = write_safetensors(tmp_path / "before.safetensors", network())
    after = write_safetensors(tmp_path / "after.safetensors", finetuned(network()))
    return dict(scan(after, before).exact)


def test_a_comparison_comes_back_as_it_was(database: Database, exact: dict[str, AlignedChange]) -> None:
    assert {one.method for one in exact.values()} == {Method.EXACT}
    with database.write() as connection:
        comparisons.save(connection, "new", "old", exact, NOW)
    with database.read() as connection:
        assert comparisons.load(connection, "new", "old") == exact
        assert comparisons.load(connection, "old", "new") is None


def test_a_later_comparison_takes_the_place_of_an_earlier_one(
    database: Database, exact: dict[str, AlignedChange]
) -> None:
    with database.write() as connection:
        comparisons.save(connection, "new", "old", exact, NOW)
        comparisons.save(connection, "new", "old", {"fc1": exact["fc1"]}, later(1))
        assert comparisons.load(connection, "new", "old") == {"fc1": exact["fc1"]}


def test_numbers_that_are_not_finite_and_hostile_names_come_back(database: Database) -> None:
    odd = {"a\x00b\udc80": AlignedChange(float("inf"), None, 0.0, Method.EXACT)}
    with database.write() as connection:
        comparisons.save(connection, "new", "old", odd, NOW)
        assert comparisons.load(connection, "new", "old") == odd


@pytest.mark.parametrize("text", ["", "[]", "{", '{"fc": 3}', '{"fc": {"method": "guessed"}}', "null"])
def test_a_comparison_that_cannot_be_read_back_is_as_good_as_none(database: Database, text: str) -> None:
    with database.write() as connection:
        comparisons.save(connection, "new", "old", {}, NOW)
        connection.execute(sa.update(tables.comparisons).values(layers=text))
        assert comparisons.load(connection, "new", "old") is None


def test_one_of_an_older_metric_set_is_not_used(database: Database, exact: dict[str, AlignedChange]) -> None:
    with database.write() as connection:
        comparisons.save(connection, "new", "old", exact, NOW)
        connection.execute(sa.update(tables.comparisons).values(metric_set="older"))
        assert comparisons.load(connection, "new", "old") is None


def test_retention_removes_a_comparison_with_either_side(
    database: Database, exact: dict[str, AlignedChange]
) -> None:
    with database.write() as connection:
        for version in ("v1", "v2", "v3"):
            judged(connection, version, fingerprint=version)
            contents.save(connection, content(version), NOW)
        comparisons.save(connection, "v2", "v1", exact, NOW)
        comparisons.save(connection, "v3", "v2", exact, NOW)
        pruned = retention.prune(connection, 1, NOW)
        assert (pruned.contents, pruned.comparisons) == (1, 1)
        assert comparisons.load(connection, "v2", "v1") is None
        assert comparisons.load(connection, "v3", "v2") == exact

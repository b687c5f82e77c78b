"""Refs: movable names."""

from __future__ import annotations

import pytest

from layerwatch.daemon.store import refs
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import RefRecord
from storetools import NOW, later, registered


def test_a_ref_moves_once_for_each_new_target(database: Database) -> None:
    with database.write() as connection:
        one, two = registered(connection, "1"), registered(connection, "2")
        moves = [
            refs.point(connection, "r", "m", "latest", target.id, later(step))
            for step, target in enumerate((one, one, two, two, one))
        ]
        assert refs.list_refs(connection) == [RefRecord("r", "m", "latest", one.id)]
    assert moves == [True, False, True, False, True]


def test_refs_are_listed_by_registry_and_model(database: Database) -> None:
    with database.write() as connection:
        targets = {
            (registry, model): registered(connection, "1", model, registry).id
            for registry in ("r2", "r1")
            for model in ("m2", "m1")
        }
        for (registry, model), target in targets.items():
            refs.point(connection, registry, model, "latest", target, NOW)
        assert [(one.registry, one.model) for one in refs.list_refs(connection)] == sorted(targets)
        assert [one.model for one in refs.list_refs(connection, "r1")] == ["m1", "m2"]
        assert refs.list_refs(connection, "r2", "m1") == [
            RefRecord("r2", "m1", "latest", targets["r2", "m1"])
        ]


def test_a_removed_ref_is_gone_and_removing_it_again_says_so(database: Database) -> None:
    with database.write() as connection:
        refs.point(connection, "r", "m", "latest", registered(connection, "1").id, NOW)
        assert refs.remove(connection, "r", "m", "latest")
        assert not refs.remove(connection, "r", "m", "latest")
        assert refs.list_refs(connection) == []


def test_a_ref_cannot_point_at_nothing_or_at_another_model(database: Database) -> None:
    with database.write() as connection:
        other = registered(connection, "1", model="other")
        for target in (4711, other.id):
            with pytest.raises(StoreError) as caught:
                refs.point(connection, "r", "m", "latest", target, NOW)
            assert caught.value.reason is StoreReason.NOT_FOUND
        assert refs.list_refs(connection) == []

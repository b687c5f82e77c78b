"""Kinship that nobody declared: shared tensors and near sketches, across models and registries."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa

from kin import Weights, matrices, measured, moved, published
from layerwatch.daemon.lineage.weights import Kinship, catch_up, find_in_weights, record
from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.scan.content import unreadable_content
from layerwatch.daemon.store import contents, lineage, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionKey, VersionRecord
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.relation import Relation
from layerwatch_testing.networks import network, with_one_layer_trained
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld
from storetools import NOW, judged


def parents(kin: Kinship) -> list[str]:
    return [edge.parent for edge in kin.edges]


def test_unrelated_models_are_no_parents(database: Database) -> None:
    with database.write() as connection:
        for seed in range(4):
            _, kin = published(connection, "v1", matrices(seed), model=f"m{seed}")
            assert kin.edges == ()


def test_the_nearest_version_is_found_in_another_registry(database: Database) -> None:
    base = matrices(0)
    with database.write() as connection:
        published(connection, "v1", base, model="base", registry="hub")
        published(connection, "v1", matrices(5), model="other", registry="hub")
        _, kin = published(connection, "v1", moved(base, 0.1), model="tuned", registry="prod")
        (edge,) = kin.edges
        assert (edge.parent, edge.source, edge.relation) == ("hub/base/v1", "weights", None)
        assert edge.evidence is not None
        # Noise of a tenth of the weights' deviation; sketches of 48 x 40 matrices tell it within a few percent.
        assert edge.evidence["distance"] == pytest.approx(0.1, rel=0.1)
        assert edge.confidence > 0.8


def test_the_nearest_of_many_relatives_is_found_by_signature(database: Database) -> None:
    base = matrices(0)
    with database.write() as connection:
        near = moved(base, 0.2, 77)
        published(connection, "v1", near, model="near")
        for number in range(20):
            published(connection, "v1", moved(base, 0.2, number), model=f"m{number}")
        _, kin = published(connection, "v1", moved(near, 0.02, 99), model="child")
        assert parents(kin) == ["r/near/v1"]


def test_layers_that_stayed_frozen_give_the_parent_away(database: Database) -> None:
    base = matrices(0)
    with database.write() as connection:
        parent, _ = published(connection, "v1", base, model="base")
        _, kin = published(connection, "v1", moved(base, 3.0, only=["l5"]), model="head")
        (edge,) = kin.edges
        assert edge.parent_id == parent.id
        assert edge.evidence is not None
        assert (edge.evidence["identical"], edge.evidence["tensors"]) == (5, 6)
        assert edge.confidence == pytest.approx(0.99)


def test_a_model_put_together_of_two_has_both_for_parents(database: Database) -> None:
    one, other = matrices(1), matrices(2)
    with database.write() as connection:
        published(connection, "v1", one, model="one")
        published(connection, "v1", other, model="other")
        halves = {name: (one if name < "l3" else other)[name] for name in one}
        _, kin = published(connection, "v1", halves, model="franken")
        assert set(parents(kin)) == {"r/one/v1", "r/other/v1"}


def test_layers_under_other_names_are_recognised_by_their_bytes(database: Database) -> None:
    base = matrices(0)
    with database.write() as connection:
        published(connection, "v1", base, model="base")
        renamed = {f"model.{name}": values for name, values in base.items()}
        _, kin = published(connection, "v1", renamed, model="export")
        assert [(edge.parent, edge.relation) for edge in kin.edges] == [("r/base/v1", "reexported")]


def test_zeros_and_ones_are_nobodys(database: Database) -> None:
    constants = {"b": np.zeros((48, 40), np.float32), "g": np.ones((48, 40), np.float32)}
    with database.write() as connection:
        published(connection, "v1", {**constants, "l0": matrices(1)["l0"]}, model="one")
        _, kin = published(connection, "v1", {**constants, "l0": matrices(2)["l0"]}, model="other")
        assert kin.edges == ()


def test_a_later_version_of_the_model_is_never_its_parent(database: Database) -> None:
    base = matrices(0)
    with database.write() as connection:
        published(connection, "v2", moved(base, 0.1))
        _, kin = published(connection, "v1", base)
        assert kin.edges == ()


def test_what_was_made_from_a_version_is_never_its_parent(database: Database) -> None:
    base = matrices(0)
    with database.write() as connection:
        declared = DeclaredLineage("base/v1", Relation.FINETUNED, "card")
        published(connection, "v1", moved(base, 0.1), declared, model="app")
        _, kin = published(connection, "v1", base, model="base")
        assert kin.edges == ()


def test_judging_again_finds_the_same(database: Database) -> None:
    base = matrices(0)
    with database.write() as connection:
        published(connection, "v1", base)
        child, first = published(connection, "v2", moved(base, 0.1, only=["l0", "l1"]))
        again = find_in_weights(
            connection, child, measured(connection, child.fingerprint, moved(base, 0.1, only=["l0", "l1"]))
        )
        assert again.edges == first.edges
        record(connection, child, again, NOW)
        assert lineage.edges_of(connection, [child.id])[child.id] == first.edges


def test_an_unreadable_version_tells_nothing(database: Database) -> None:
    lost = UnreadableError(UnreadableReason.TRUNCATED, "x", "3 bytes are missing")
    with database.write() as connection:
        version = judged(connection, "v1")
        found = find_in_weights(connection, version, unreadable_content(version.fingerprint, 0, lost))
        assert found == Kinship()
        record(connection, version, found, NOW)
        assert lineage.edges_of(connection, [version.id]) == {}


def test_only_so_many_rows_are_read_however_many_models_there_are(database: Database) -> None:
    base = matrices(0, layers=2)

    def statements(connection: sa.Connection, version: str) -> int:
        count = 0

        def counted(*_: object) -> None:
            nonlocal count
            count += 1

        child = judged(connection, version, model=version)
        content = measured(connection, child.fingerprint, moved(base, 0.1, seed=count))
        sa.event.listen(connection, "before_cursor_execute", counted)
        find_in_weights(connection, child, content)
        sa.event.remove(connection, "before_cursor_execute", counted)
        return count

    with database.write() as connection:
        for number in range(6):
            published(connection, "v1", moved(base, 0.3, number), model=f"m{number}")
        few = statements(connection, "few")
        for number in range(6, 30):
            published(connection, "v1", moved(base, 0.3, number), model=f"m{number}")
        assert statements(connection, "many") <= few + 2


def test_a_declared_parent_is_held_against_the_nearest_other_version(database: Database) -> None:
    base, other = matrices(0), matrices(1)
    with database.write() as connection:
        published(connection, "v1", base, model="base")
        published(connection, "v1", other, model="other")
        declared = DeclaredLineage("other/v1", Relation.QUANTIZED, "card")
        _, kin = published(connection, "v1", moved(base, 0.05), declared, model="q")
        found = kin.evidence
        assert found is not None
        assert (found.declared, found.source, found.relation) == ("other/v1", "card", Relation.QUANTIZED)
        assert (found.nearest, found.is_nearer) == ("r/base/v1", True)
        assert abs(found.cosine.value) < 0.1
        assert found.nearest_cosine.value > 0.99


def test_a_declared_parent_that_is_the_nearest_is_not_contradicted(database: Database) -> None:
    base, other = matrices(0), matrices(1)
    with database.write() as connection:
        published(connection, "v1", other, model="other")
        published(connection, "v1", base, model="base")
        published(connection, "v1", base, model="copy-of-base")
        declared = DeclaredLineage("base/v1", Relation.QUANTIZED, "card")
        _, kin = published(connection, "v1", moved(base, 0.05), declared, model="q")
        assert kin.evidence is None or not kin.evidence.is_nearer


def test_a_sibling_that_is_nearer_than_the_common_parent_contradicts_nothing(database: Database) -> None:
    base = matrices(0)
    pruned = DeclaredLineage("v1", Relation.PRUNED, "lineage.json")
    with database.write() as connection:
        published(connection, "v1", base, model="m")
        first = moved(base, 0.12)
        published(connection, "v2", first, pruned, model="m")
        _, kin = published(connection, "v3", moved(first, 0.02, seed=7), pruned, model="m")
        assert kin.evidence is None or not kin.evidence.is_nearer


def judged_before_anything_was_kept(
    connection: sa.Connection, model: str, state: Weights, version: str = "v1"
) -> VersionRecord:
    found = judged(connection, version, model=model)
    measured(connection, found.fingerprint, state)
    return found


def test_versions_judged_before_anything_was_kept_of_their_weights_are_looked_into_in_batches(
    database: Database,
) -> None:
    base = matrices(0)
    with database.write() as connection:
        first = judged_before_anything_was_kept(connection, "base", base)
        second = judged_before_anything_was_kept(connection, "head", moved(base, 3.0, only=["l5"]))
        third = judged_before_anything_was_kept(connection, "stranger", matrices(9))
        judged(connection, "v1", model="numbers-forgotten")
    assert catch_up(database, 2) == 2
    assert catch_up(database, 2) == 1
    assert catch_up(database, 2) == 0
    with database.read() as connection:
        edges = lineage.edges_of(connection, [first.id, second.id, third.id])
        assert list(edges) == [second.id]
        (edge,) = edges[second.id]
        assert (edge.parent, edge.parent_id, edge.source) == ("r/base/v1", first.id, "weights")
        after = versions.get(connection, second.id)
        assert after is not None
        assert (after.verdict, after.judged_at, after.report) == (second.verdict, second.judged_at, "{}")
    with database.write() as connection:
        _, kin = published(connection, "v1", moved(base, 0.1), model="tuned")
        assert parents(kin) == ["r/base/v1"]


def test_an_old_version_is_not_called_the_child_of_one_that_was_judged_since(database: Database) -> None:
    base = matrices(0)
    with database.write() as connection:
        old = judged_before_anything_was_kept(connection, "old", base)
        copy, _ = published(connection, "v1", moved(base, 3.0, only=["l5"]), model="copy")
    assert catch_up(database, 20) == 1
    with database.write() as connection:
        assert lineage.edges_of(connection, [old.id, copy.id]) == {}
        # What both have was in the old one first.
        _, kin = published(connection, "v1", moved(base, 3.0, 7, only=["l5"]), model="third")
        assert parents(kin) == ["r/old/v1"]


def test_a_version_that_could_not_be_read_is_not_looked_into_again_and_again(database: Database) -> None:
    with database.write() as connection:
        version = judged(connection, "v1")
        error = UnreadableError(UnreadableReason.TRUNCATED, "model.safetensors", "100 bytes are missing")
        contents.save(connection, unreadable_content(version.fingerprint, 0, error), NOW)
    assert catch_up(database, 20) == 0


def test_real_scans_leave_what_kinship_is_found_by(rig: Rig, world: DirectoryWorld) -> None:
    base = network()
    world.publish("base", "v1", base)
    world.publish("tuned", "v1", with_one_layer_trained(base))
    world.publish("stranger", "v1", network(seed=9))
    rig.cycle()
    found = {}
    with rig.database.write() as connection:
        for model in ("base", "stranger", "tuned"):
            version = versions.current(connection, VersionKey("reg", model, "v1"))
            assert version is not None
            content = contents.load(connection, version.fingerprint, METRIC_SET)
            assert content is not None
            found[model] = find_in_weights(connection, version, content)
            record(connection, version, found[model], NOW)
    assert found["base"].edges == found["stranger"].edges == ()
    (edge,) = found["tuned"].edges
    assert edge.parent == "reg/base/v1"
    assert edge.evidence is not None
    assert edge.evidence["identical"] == 5
    assert edge.evidence["distance"] == pytest.approx(0.02 * 0.47, rel=0.5)

"""Edges of the lineage in a real store."""

from __future__ import annotations

import sqlalchemy as sa

from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.store import lineage, tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.lineage import LineageEdge
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.metrics.merge import MergeMethod, MergeRecipe
from layerwatch.metrics.relation import Relation
from storetools import NOW, judged, later, registered


def edges(connection: sa.Connection, version: VersionRecord) -> tuple[LineageEdge, ...]:
    return lineage.edges_of(connection, [version.id]).get(version.id, ())


def declared(parent: str, source: str = "lineage.json") -> DeclaredLineage:
    return DeclaredLineage(parent, Relation.FINETUNED, source)


FOUND = LineageEdge("r/m/v0", None, None, "weights", 0.9, {"distance": 0.1, "cosine": 0.99})


def test_all_declarations_are_kept_with_source_and_confidence(database: Database) -> None:
    with database.write() as connection:
        base = judged(connection, "v1")
        version = registered(connection, "v2")
        lineage.save_declared(connection, version.id, [declared("v1"), declared("hf:a/b", "card")], NOW)
        assert edges(connection, version) == (
            LineageEdge("v1", base.id, "finetuned", "lineage.json", 1.0),
            LineageEdge("hf:a/b", None, "finetuned", "card", 0.4),
        )
        assert lineage.parents_of(connection, [version.id]) == {base.id}
        assert lineage.children_of(connection, [base.id]) == {version.id}


def test_a_merge_has_an_edge_to_each_model_and_its_base(database: Database) -> None:
    recipe = MergeRecipe(MergeMethod.TIES, (0.5, 0.5), "org/base")
    merge = DeclaredLineage(
        "org/base", Relation.MERGED, "mergekit_config.yml", ("org/a", "org/b+org/lora"), recipe
    )
    with database.write() as connection:
        version = registered(connection, "v1")
        lineage.save_declared(connection, version.id, [merge], NOW)
        assert [(edge.parent, edge.relation) for edge in edges(connection, version)] == [
            ("org/base", "merged"),
            ("org/a", "merged"),
            ("org/b", "merged"),
            ("org/lora", "adapter"),
        ]


def test_declarations_follow_the_registry_and_what_was_found_stays(database: Database) -> None:
    with database.write() as connection:
        version = registered(connection, "v1")
        lineage.save_declared(connection, version.id, [declared("a"), declared("b")], NOW)
        lineage.save_found(connection, version.id, [FOUND], NOW)
        lineage.save_declared(connection, version.id, [declared("b")], later(9))
        assert [edge.parent for edge in edges(connection, version)] == ["b", "r/m/v0"]
        rows = connection.execute(sa.select(tables.lineage_edges.c.found_at)).scalars().all()
        assert set(rows) == {NOW}
        lineage.save_found(connection, version.id, [], later(9))
        assert [edge.parent for edge in edges(connection, version)] == ["b"]


def test_a_parent_that_comes_later_is_linked_then(database: Database) -> None:
    with database.write() as connection:
        child = registered(connection, "q", model="int8")
        lineage.save_declared(connection, child.id, [declared("hf:meta/llama")], NOW)
        assert edges(connection, child)[0].parent_id is None
        other = registered(connection, "c0ffee", model="someone/else", registry="hub")
        lineage.save_declared(connection, other.id, [], NOW)
        assert edges(connection, child)[0].parent_id is None
        base = registered(connection, "c0ffee", model="meta/llama", registry="hub")
        lineage.save_declared(connection, base.id, [], NOW)
        assert edges(connection, child)[0].parent_id == base.id


def test_a_version_that_is_forgotten_leaves_the_name_of_the_parent(database: Database) -> None:
    with database.write() as connection:
        base, child = judged(connection, "v1"), registered(connection, "v2")
        lineage.save_declared(connection, child.id, [declared("v1")], NOW)
        connection.execute(sa.delete(tables.versions).where(tables.versions.c.id == base.id))
        assert edges(connection, child) == (LineageEdge("v1", None, "finetuned", "lineage.json", 1.0),)
        connection.execute(sa.delete(tables.versions).where(tables.versions.c.id == child.id))
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.lineage_edges)).scalar() == 0


def test_bases_of_other_models_are_known(database: Database) -> None:
    with database.write() as connection:
        base, own = judged(connection, "v1", model="base"), judged(connection, "v1")
        child = registered(connection, "v2")
        lineage.save_declared(connection, child.id, [declared("base/v1"), declared("v1")], NOW)
        assert lineage.declared_bases(connection) == {base.id}
        assert lineage.declared_parents(connection, [child.id]) == {base.id, own.id}


def test_no_more_edges_than_are_of_use_are_kept(database: Database) -> None:
    with database.write() as connection:
        version = registered(connection, "v1")
        lineage.save_declared(connection, version.id, [declared(f"hf:x/{n}") for n in range(500)], NOW)
        assert len(edges(connection, version)) == 64

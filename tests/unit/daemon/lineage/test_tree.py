"""The tree of a model: over models and registries, with merges, copies and circles."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from layerwatch.daemon.lineage import tree
from layerwatch.daemon.lineage.tree import drawn, graph_to_json, lineage_graph
from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.store import lineage
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.lineage import LineageEdge
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.relation import Relation
from storetools import NOW, judged


def version(
    connection: sa.Connection,
    name: str,
    *parents: tuple[str, Relation | None],
    model: str = "m",
    registry: str = "r",
    verdict: Verdict = Verdict.PASS,
) -> VersionRecord:
    found = judged(connection, name, verdict, model=model, registry=registry)
    declared = [DeclaredLineage(parent, relation, "lineage.json") for parent, relation in parents]
    lineage.save_declared(connection, found.id, declared, NOW)
    return found


def lines(connection: sa.Connection, model: str = "m", only: str | None = None) -> list[str]:
    graph = lineage_graph(connection, "r", model, only)
    assert graph is not None
    return list(drawn(graph))


def test_versions_stand_under_what_they_were_made_from(database: Database) -> None:
    with database.write() as connection:
        version(connection, "1", model="base", registry="hub")
        version(connection, "v1", ("hub/base/1", Relation.FINETUNED))
        version(connection, "v2", ("v1", Relation.FINETUNED), verdict=Verdict.WARN)
        version(connection, "v10", ("v1", None), verdict=Verdict.FAIL)
        version(connection, "q", ("m/v2", Relation.QUANTIZED), model="m-int8")
        assert lines(connection) == [
            "hub/base 1  pass",
            "└── r/m v1  pass  finetuned (lineage.json 100%)",
            "    ├── r/m v2  warn  finetuned (lineage.json 100%)",
            "    │   └── r/m-int8 q  pass  quantized (lineage.json 100%)",
            "    └── r/m v10  fail  derived (lineage.json 100%)",
        ]


def test_a_merge_stands_under_its_first_parent_and_names_the_others(database: Database) -> None:
    with database.write() as connection:
        version(connection, "v1")
        version(connection, "v1", model="other")
        version(connection, "soup", ("v1", Relation.MERGED), ("other/v1", Relation.MERGED), ("gone/x", None))
        others = (
            "; also from r/other v1 merged (lineage.json 100%)"
            "; also from gone/x (not in the store) derived (lineage.json 100%)"
        )
        assert lines(connection, only="soup") == [
            "r/m v1  pass",
            f"└── r/m soup  pass  merged (lineage.json 100%){others}",
            "r/other v1  pass",
        ]


def test_a_parent_that_nobody_has_is_a_root_by_its_name(database: Database) -> None:
    with database.write() as connection:
        version(connection, "v1", ("meta/llama@main", Relation.FINETUNED))
        assert lines(connection) == [
            "meta/llama@main  not in the store",
            "└── r/m v1  pass  finetuned (lineage.json 100%)",
        ]


def test_a_circle_is_drawn_once_from_its_oldest_version(database: Database) -> None:
    with database.write() as connection:
        version(connection, "v1", ("v3", None))
        version(connection, "v2", ("v1", None))
        version(connection, "v3", ("v2", None))
        assert [line.lstrip("└─ ").split("  ")[0] for line in lines(connection)] == [
            "r/m v1",
            "r/m v2",
            "r/m v3",
        ]


def test_what_the_weights_show_stands_beside_the_declaration(database: Database) -> None:
    with database.write() as connection:
        base = version(connection, "v1")
        child = version(connection, "v2", ("v1", Relation.QUANTIZED))
        found = LineageEdge("r/m/v1", base.id, None, "weights", 0.95, {"distance": 0.0512, "cosine": 0.99})
        lineage.save_found(connection, child.id, [found], NOW)
        alone = version(connection, "v3")
        identical = {"identical": 5, "tensors": 6, "share": 0.8, "distance": 0.1, "cosine": 0.9}
        shared = LineageEdge("r/m/v2", child.id, None, "weights", 0.99, identical)
        lineage.save_found(connection, alone.id, [shared], NOW)
        assert lines(connection) == [
            "r/m v1  pass",
            "└── r/m v2  pass  quantized (lineage.json 100%; weights: distance 0.051)",
            "    └── r/m v3  pass  derived (weights 99%: 5 of 6 tensors identical, distance 0.1)",
        ]


def test_one_version_has_its_ancestors_and_descendants_and_no_siblings(database: Database) -> None:
    with database.write() as connection:
        version(connection, "v1")
        version(connection, "v2", ("v1", None))
        version(connection, "v3", ("v1", None))
        version(connection, "v4", ("v2", None))
        names = [line.lstrip("└─ ").split("  ")[0] for line in lines(connection, only="v2")]
        assert names == ["r/m v1", "r/m v2", "r/m v4"]
        assert lineage_graph(connection, "r", "m", "v9") is None


def test_a_line_of_thousands_is_drawn_and_one_of_more_is_cut(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as connection:
        version(connection, "v0")
        for number in range(1, 60):
            version(connection, f"v{number}", (f"v{number - 1}", None))
        found = lines(connection)
        assert len(found) == 60
        assert max(map(len, found)) < 200
        monkeypatch.setattr(tree, "MOST_NODES", 10)
        graph = lineage_graph(connection, "r", "m", "v59")
        assert graph is not None
        assert graph.left_out
        assert len(graph.versions) <= 11


def test_the_json_names_nodes_and_edges(database: Database) -> None:
    with database.write() as connection:
        base = version(connection, "v1")
        child = version(connection, "v2", ("v1", Relation.PRUNED), ("hf:a/b", None))
        graph = lineage_graph(connection, "r", "m")
        assert graph is not None
        found = json.loads(json.dumps(graph_to_json(graph)))
    assert [node["version"] for node in found["nodes"]] == ["v1", "v2"]
    assert found["complete"] is True
    assert [
        (edge["version_id"], edge["parent_id"], edge["parent"], edge["relation"]) for edge in found["edges"]
    ] == [
        (child.id, base.id, "v1", "pruned"),
        (child.id, None, "hf:a/b", None),
    ]

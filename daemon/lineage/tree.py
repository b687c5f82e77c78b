"""The lineage of a model as a graph over models and registries, and as lines of text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from layerwatch.daemon.store import lineage, versions
from layerwatch.daemon.store.lineage import WEIGHTS, LineageEdge
from layerwatch.daemon.store.ordering import sort_key
from layerwatch.daemon.store.records import VersionKey, VersionRecord

MOST_NODES = 2000
"""Of a larger family the nearest are shown."""

_DEEPEST = 30
"""Levels that are drawn; what is deeper stands in one column."""


@dataclass(frozen=True, slots=True)
class Link:
    """One edge of the graph.

    Attributes:
        child: row of the version that was made.
        parent: row of the version that it was made from; the name as it was written where that is not in the store.
        edge: what is known of it.
    """

    child: int
    parent: int | str
    edge: LineageEdge


@dataclass(frozen=True, slots=True)
class LineageGraph:
    """The versions that some versions of a model were made from, and those that were made of them.

    Attributes:
        model: registry and model.
        versions: by row, those asked for first.
        links: from each version to its parents, in order of how much they are believed: declared ones first.
        left_out: whether there are more versions than are looked at.
    """

    model: tuple[str, str]
    versions: Mapping[int, VersionRecord]
    links: Sequence[Link]
    left_out: bool


def lineage_graph(
    connection: Connection, registry: str, model: str, version: str | None = None
) -> LineageGraph | None:
    """The lineage of a model.

    Args:
        version: of this one version alone; None for all versions of the model.

    Returns:
        None where the store holds no such version.
    """
    asked = _asked(connection, registry, model, version)
    if not asked:
        return None
    rows = dict.fromkeys(record.id for record in asked)
    left_out = len(rows) > MOST_NODES
    for step in (lineage.parents_of, lineage.children_of):
        newest: Collection[int] = [record.id for record in asked]
        while newest and not left_out:
            newest = sorted(step(connection, newest) - rows.keys())
            left_out = len(rows) + len(newest) > MOST_NODES
            rows |= dict.fromkeys(newest[: MOST_NODES - len(rows)])
    # What descendants were made from besides is named, and not followed.
    rows |= dict.fromkeys(sorted(lineage.parents_of(connection, list(rows)) - rows.keys()))
    known = {record.id: record for record in asked}
    for row in rows:
        if row not in known:
            found = versions.get_without_report(connection, row)
            if found is not None:
                known[row] = found
    return LineageGraph((registry, model), known, tuple(_links(connection, known)), left_out)


def graph_to_json(graph: LineageGraph) -> dict[str, Any]:
    """Nodes and edges; an edge to a version that is not in the store has no ``parent_id``."""
    return {
        "model": "/".join(graph.model),
        "complete": not graph.left_out,
        "nodes": [
            {
                "id": record.id,
                "registry": record.key.registry,
                "model": record.key.model,
                "version": record.key.version,
                "fingerprint": record.fingerprint,
                "verdict": None if record.verdict is None else record.verdict.value,
                "state": record.state.value,
                "current": record.current,
                "gone": record.gone_at is not None,
            }
            for record in graph.versions.values()
        ],
        "edges": [
            {
                "version_id": link.child,
                "parent_id": link.parent if isinstance(link.parent, int) else None,
                "parent": link.edge.parent,
                "relation": link.edge.relation,
                "source": link.edge.source,
                "confidence": link.edge.confidence,
                "evidence": None if link.edge.evidence is None else dict(link.edge.evidence),
            }
            for link in graph.links
        ],
    }


def drawn(graph: LineageGraph) -> Iterator[str]:
    """The graph as a tree, a line for each version.

    A version with several parents stands under the first of them, with "also from" for the others. Versions that name
    each other in a circle are drawn from the oldest on.
    """
    parents: dict[int, list[Link]] = {}
    for link in graph.links:
        parents.setdefault(link.child, []).append(link)
    children: dict[int | str, list[Link]] = {}
    for links in parents.values():
        children.setdefault(links[0].parent, []).append(links[0])
    for links in children.values():
        links.sort(key=lambda link: _place(graph.versions[link.child]))
    drawing = _Drawing(graph, parents, children, set())
    outside = sorted({link.parent for link in graph.links if isinstance(link.parent, str)} & children.keys())
    for name in outside:
        yield f"{name}  not in the store"
        yield from drawing.below(name, "")
    first = [record for record in graph.versions.values() if record.id not in parents]
    for record in sorted(first, key=_place):
        yield from drawing.whole(record)
    for record in sorted(graph.versions.values(), key=_place):
        # What is left names itself in a circle.
        if record.id not in drawing.done:
            yield from drawing.whole(record)


@dataclass(frozen=True, slots=True)
class _Drawing:
    graph: LineageGraph
    parents: Mapping[int, Sequence[Link]]
    children: Mapping[int | str, Sequence[Link]]
    done: set[int]

    def whole(self, record: VersionRecord) -> Iterator[str]:
        self.done.add(record.id)
        links = self.parents.get(record.id, ())
        yield f"{self._version(record)}{_also(self._origin(link) for link in links)}"
        yield from self.below(record.id, "")

    def below(self, parent: int | str, indent: str) -> Iterator[str]:
        """The lines below a version. A stack in place of recursion: a line of versions may be long."""
        waiting = [(link, indent, is_last) for link, is_last in self._next(parent)]
        while waiting:
            link, indent, is_last = waiting.pop()
            record = self.graph.versions[link.child]
            if record.id in self.done:
                continue
            self.done.add(record.id)
            first, *others = self.parents[record.id]
            branch, deeper = ("└── ", "    ") if is_last else ("├── ", "│   ")
            also = _also(self._origin(one) for one in others)
            yield f"{indent}{branch}{self._version(record)}  {_edge(first.edge)}{also}"
            below = indent + deeper if len(indent) < len(deeper) * _DEEPEST else indent
            waiting += [(one, below, last) for one, last in self._next(record.id)]

    def _next(self, parent: int | str) -> list[tuple[Link, bool]]:
        """The edges to draw below a version, the last one first."""
        links = [link for link in self.children.get(parent, ()) if link.child not in self.done]
        return [(link, place == 0) for place, link in enumerate(reversed(links))]

    def _version(self, record: VersionRecord) -> str:
        key = record.key
        verdict = record.verdict.value if record.verdict is not None else record.state.value
        if not record.current:
            verdict += ", replaced by other bytes"
        elif record.gone_at is not None:
            verdict += ", gone"
        return f"{_name(key)}  {verdict}"

    def _origin(self, link: Link) -> str:
        known = self.graph.versions.get(link.parent) if isinstance(link.parent, int) else None
        name = _name(known.key) if known is not None else f"{link.edge.parent} (not in the store)"
        return f"{name} {_edge(link.edge)}"


def _asked(connection: Connection, registry: str, model: str, version: str | None) -> list[VersionRecord]:
    if version is None:
        return [one for one in versions.of_model(connection, registry, model) if one.current]
    found = versions.current(connection, VersionKey(registry, model, version))
    return [] if found is None else [found]


def _links(connection: Connection, known: Mapping[int, VersionRecord]) -> Iterator[Link]:
    """Each parent of a version once: what the weights say of a declared one is added to the declaration."""
    edges = lineage.edges_of(connection, known)
    for child in known:
        links: dict[int | str, LineageEdge] = {}
        for edge in edges.get(child, ()):
            parent = edge.parent if edge.parent_id is None else edge.parent_id
            if parent == child or (isinstance(parent, int) and parent not in known):
                continue
            if parent not in links:
                links[parent] = edge
            elif edge.source == WEIGHTS:
                links[parent] = _confirmed(links[parent], edge)
        yield from (Link(child, parent, edge) for parent, edge in links.items())


def _confirmed(declared: LineageEdge, shown: LineageEdge) -> LineageEdge:
    return LineageEdge(
        declared.parent,
        declared.parent_id,
        declared.relation,
        declared.source,
        declared.confidence,
        shown.evidence,
    )


def _place(record: VersionRecord) -> tuple[str, str, bytes, int]:
    return record.key.registry, record.key.model, sort_key(record.order_key), record.id


def _name(key: VersionKey) -> str:
    return f"{key.registry}/{key.model} {key.version}"


def _edge(edge: LineageEdge) -> str:
    """How a version came from its parent: ``quantized (lineage.json 100%; weights: distance 0.052)``."""
    shown = _shown(edge)
    if edge.source == WEIGHTS:
        return f"{edge.relation or 'derived'} (weights {edge.confidence:.0%}: {shown})"
    weights = f"; weights: {shown}" if edge.evidence else ""
    return f"{edge.relation or 'derived'} ({edge.source} {edge.confidence:.0%}{weights})"


def _shown(edge: LineageEdge) -> str:
    evidence = edge.evidence or {}
    told = []
    if evidence.get("identical"):
        told.append(f"{evidence['identical']} of {evidence['tensors']} tensors identical")
    distance = evidence.get("distance")
    if distance is not None:
        told.append(f"distance {distance:.2g}")
    return ", ".join(told) or "alike"


def _also(origins: Iterable[str]) -> str:
    told = "; also from ".join(origins)
    return f"; also from {told}" if told else ""

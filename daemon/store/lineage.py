"""Edges of the lineage: from a version to what it was made from, as it is declared and as its weights show.

The row of a version holds the one declaration that it is judged by; here are all, and what nobody declared. A parent is
kept as it was written, beside the version that this means; one that is registered later is linked then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.registries.declarations import confidence_of
from layerwatch.daemon.registries.lineagefile import MERGEKIT_FILE, MERGEKIT_MOE_FILE
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.origins import name_of, names_of, resolve
from layerwatch.daemon.store.versionrows import fetch
from layerwatch.metrics.relation import Relation

WEIGHTS = "weights"
"""Source of the edges that nobody declared."""

_TABLE = tables.lineage_edges
_MOST_EDGES = 64
_MOST_WAITING = 1000


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """One edge.

    Attributes:
        parent: as its author wrote it; registry/model/version where it was found in the weights.
        parent_id: row of the version that this means; None when it is not in the store.
        relation: how the version came from the parent; None when not said.
        source: where the declaration was read, or `WEIGHTS`.
        confidence: 0..1.
        evidence: what the weights show; None for a declaration.
    """

    parent: str
    parent_id: int | None
    relation: str | None
    source: str
    confidence: float
    evidence: Mapping[str, float | int | None] | None = None


def save_declared(
    connection: sa.Connection, version_id: int, declared: Sequence[DeclaredLineage], now: datetime
) -> None:
    """Keep what is declared of a version, in place of what was; edges found in the weights stay.

    Edges of other versions that have waited for this one are linked to it.

    Args:
        declared: all declarations, the most reliable first.
        now: time of finding.

    Raises:
        StoreError: ``not_found``.
    """
    version = fetch(connection, version_id)
    named: dict[str, LineageEdge] = {}
    for parent, relation, one in _expanded(declared):
        if parent not in named and len(named) < _MOST_EDGES:
            found = resolve(connection, version, parent)
            named[parent] = LineageEdge(
                parent,
                None if found is None else found.id,
                None if relation is None else relation.value,
                one.source,
                confidence_of(one),
            )
    before = edges_of(connection, [version_id]).get(version_id, ())
    shown = [edge for edge in before if edge.source == WEIGHTS]
    edges = [*named.values(), *shown]
    if edges != list(before):
        _write(connection, version_id, edges, now)
    _link_waiting(connection, version_id)


def save_found(
    connection: sa.Connection, version_id: int, found: Sequence[LineageEdge], now: datetime
) -> None:
    """Keep what was found in the weights of a version, in place of what was found before; declarations stay."""
    before = edges_of(connection, [version_id]).get(version_id, ())
    edges = [*(edge for edge in before if edge.source != WEIGHTS), *found]
    if edges != list(before):
        _write(connection, version_id, edges, now)


def edges_of(connection: sa.Connection, version_ids: Iterable[int]) -> dict[int, tuple[LineageEdge, ...]]:
    """The edges of each of these versions to its parents, declared ones first; versions without one are left out."""
    return _edges(connection, _TABLE.c.version_id, version_ids)


def children_of(connection: sa.Connection, version_ids: Iterable[int]) -> set[int]:
    """The versions that an edge leads from to one of these."""
    found: set[int] = set()
    for chunk in chunks(version_ids):
        query = sa.select(_TABLE.c.version_id).where(_TABLE.c.parent_version_id.in_(chunk))
        found.update(connection.execute(query).scalars())
    return found


def parents_of(connection: sa.Connection, version_ids: Collection[int]) -> set[int]:
    """The versions in the store that these were made from, by any edge."""
    edges = edges_of(connection, version_ids)
    return {edge.parent_id for found in edges.values() for edge in found if edge.parent_id is not None}


def declared_parents(connection: sa.Connection, version_ids: Iterable[int]) -> set[int]:
    """The versions in the store that these are declared to be made from."""
    edges = edges_of(connection, version_ids)
    return {
        edge.parent_id
        for found in edges.values()
        for edge in found
        if edge.parent_id is not None and edge.source != WEIGHTS
    }


def declared_bases(connection: sa.Connection) -> set[int]:
    """The versions that versions of other models are declared to be made from."""
    child, parent = tables.versions.alias(), tables.versions.alias()
    query = (
        sa.select(_TABLE.c.parent_version_id)
        .join(child, child.c.id == _TABLE.c.version_id)
        .join(parent, parent.c.id == _TABLE.c.parent_version_id)
        .where(
            _TABLE.c.source != WEIGHTS,
            sa.or_(child.c.registry != parent.c.registry, child.c.model != parent.c.model),
        )
        .distinct()
    )
    return set(connection.execute(query).scalars())


def _expanded(
    declared: Iterable[DeclaredLineage],
) -> Iterator[tuple[str, Relation | None, DeclaredLineage]]:
    """(parent, relation, declaration) of every model that is named, in order."""
    for one in declared:
        base = one.recipe.base if one.recipe is not None else None
        for name in (one.parent, *one.parents, *(() if base is None else (base,))):
            model, plus, lora = name.partition("+")
            if plus and one.source in (MERGEKIT_FILE, MERGEKIT_MOE_FILE):
                yield model, one.relation, one
                yield lora, Relation.ADAPTER, one
            else:
                yield name, one.relation, one


def _write(connection: sa.Connection, version_id: int, edges: Sequence[LineageEdge], now: datetime) -> None:
    known = {
        (row.parent, row.source): row.found_at
        for row in connection.execute(
            sa.select(_TABLE.c.parent, _TABLE.c.source, _TABLE.c.found_at).where(
                _TABLE.c.version_id == version_id
            )
        )
    }
    connection.execute(sa.delete(_TABLE).where(_TABLE.c.version_id == version_id))
    if edges:
        connection.execute(
            sa.insert(_TABLE),
            [
                {
                    "version_id": version_id,
                    "position": position,
                    "parent": edge.parent,
                    "parent_name": name_of(edge.parent),
                    "parent_version_id": edge.parent_id,
                    "relation": edge.relation,
                    "source": edge.source,
                    "confidence": edge.confidence,
                    "evidence": None if edge.evidence is None else dict(edge.evidence),
                    "found_at": known.get((edge.parent, edge.source), now),
                }
                for position, edge in enumerate(edges)
            ],
        )


def _edges(
    connection: sa.Connection, column: sa.Column[int], values: Iterable[int]
) -> dict[int, tuple[LineageEdge, ...]]:
    found: dict[int, list[LineageEdge]] = {}
    for chunk in chunks(values):
        query = sa.select(_TABLE).where(column.in_(chunk)).order_by(_TABLE.c.version_id, _TABLE.c.position)
        for row in connection.execute(query):
            edge = LineageEdge(
                row.parent, row.parent_version_id, row.relation, row.source, row.confidence, row.evidence
            )
            found.setdefault(row.version_id, []).append(edge)
    return {version_id: tuple(edges) for version_id, edges in found.items()}


def _link_waiting(connection: sa.Connection, version_id: int) -> None:
    """Let edges lead to a version that they named before it was there."""
    version = fetch(connection, version_id)
    waiting = (
        sa.select(_TABLE.c.version_id, _TABLE.c.position, _TABLE.c.parent)
        .where(
            _TABLE.c.parent_name.in_(names_of(version)),
            _TABLE.c.parent_version_id.is_(None),
            _TABLE.c.version_id != version_id,
        )
        .order_by(_TABLE.c.version_id)
        .limit(_MOST_WAITING)
    )
    for row in connection.execute(waiting).all():
        found = resolve(connection, fetch(connection, row.version_id), row.parent)
        if found is not None:
            connection.execute(
                sa.update(_TABLE)
                .where(_TABLE.c.version_id == row.version_id, _TABLE.c.position == row.position)
                .values(parent_version_id=found.id)
            )

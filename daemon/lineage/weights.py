"""Where a version comes from by its weights alone, in milliseconds among thousands of versions.

Two marks do not lie. Tensors whose bytes another version had before: what fine-tuning froze, what a quantiser leaves
alone, the halves of a model that was put together. And the nearest sketches: training and converting leave a model near
the one that it was made from. Neither has a direction: of two versions the one that was measured later is called the
child, unless a declaration says otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from layerwatch.daemon.store import contents, kinship, lineage, measurements, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.lineage import WEIGHTS, LineageEdge
from layerwatch.daemon.store.ordering import sort_key
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.metrics.estimate import LayerSketch
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.lineage import LineageEvidence, lineage_evidence
from layerwatch.metrics.measurement import METRIC_SET, LayerKind
from layerwatch.metrics.nearest import Candidate, Nearest, nearest_parent
from layerwatch.metrics.relation import Relation

_GENERATIONS = 8
_MATRICES = (LayerKind.LINEAR, LayerKind.EMBEDDING, LayerKind.CONV, LayerKind.STACK)
_LEAST_SHARED = 0.1
"""Share of the layers, or of the weights, that must be the same byte for byte. Tables of positions are the same in
unrelated models, but they are few and small."""
_MOST_SHARERS = 3
_MOST_CANDIDATES = 6
_MOST_COMPARED_LAYERS = 16
_LEAST_COSINE = 0.5
_MOST_GENERATIONS = 64
_MOST_DESCENDANTS = 2000
_CERTAIN, _NEAR, _UNSURE = 0.99, 0.95, 0.5


@dataclass(frozen=True, slots=True)
class Kinship:
    """What the weights tell of one version's origin.

    Attributes:
        edges: to the versions that it shares tensors with, and to the nearest one.
        evidence: the declared parent beside the nearest other version; None where there are not both.
        family, signature, digests: what is remembered of the version itself, for those that come later.
    """

    edges: tuple[LineageEdge, ...] = ()
    evidence: LineageEvidence | None = None
    family: str = ""
    signature: NDArray[np.float32] | None = None
    digests: tuple[str, ...] = ()


def find_in_weights(
    connection: Connection, version: VersionRecord, content: ContentRecord, *, only_earlier: bool = False
) -> Kinship:
    """Look for the versions that this one was made from. Reads only; `record` keeps what was found.

    Args:
        content: what was found in the version; its measurements are in the store.
        only_earlier: leave out what was registered after this version, in other models, too.
    """
    if content.file_problem is not None:
        return Kinship()
    matrices = [one for one in content.layers if one.kind in _MATRICES and one.digest is not None]
    own = kinship.load_sketches(connection, matrices)
    family = kinship.family_of(layer.name for layer in matrices)
    numbers = kinship.signature(own)
    may_be = _Eligible(connection, version, only_earlier)
    shared = _shared(connection, version, content.layers, may_be)
    compared = _some(matrices)
    sketches = {layer.name: own[layer.name] for layer in compared if layer.name in own}
    near = _candidates(connection, version, family, numbers, may_be)
    models = {record.id: _sketches_of(connection, record, compared) for record in near}
    ordered = nearest_parent(sketches, {str(row): model for row, model in models.items()})
    named = {record.id: record for record in near}
    edges = _edges(shared, ordered, named, len({one.digest for one in content.layers if one.digest}))
    return Kinship(
        edges,
        _evidence(connection, version, sketches, compared, ordered, named, models),
        family,
        numbers,
        tuple(one.digest for one in content.layers if one.digest is not None),
    )


def record(connection: Connection, version: VersionRecord, found: Kinship, now: datetime) -> None:
    """Keep what was found, and the version itself for those that come later."""
    if found.signature is None:
        return
    lineage.save_found(connection, version.id, found.edges, now)
    kinship.save(connection, version.id, found.digests, found.family, found.signature)


def catch_up(database: Database, limit: int) -> int:
    """Look into versions that were judged before anything was kept of their weights, the oldest first.

    They become parents that can be found, and get their own edges to versions that were there before them. Verdicts and
    reports stay as they are. Each version is a short write transaction of its own.

    Args:
        limit: most versions of this call.

    Returns:
        How many were looked into; less than ``limit`` when none is left.

    Raises:
        StoreError: the database cannot be read or written, or is busy.
    """
    with database.read() as connection:
        waiting = kinship.unsigned(connection, limit)
    for version in waiting:
        with database.write() as connection:
            # Retention or another scan may have been faster.
            present = versions.get_without_report(connection, version.id)
            content = contents.load(connection, version.fingerprint, METRIC_SET)
            if present is None or present.judged_at is None or content is None:
                continue
            found = find_in_weights(connection, present, content, only_earlier=True)
            kinship.claim(connection, present.id, found.digests)
            record(connection, present, found, present.judged_at)
    return len(waiting)


class _Eligible:
    """Which versions may be called the parent of one."""

    def __init__(self, connection: Connection, version: VersionRecord, only_earlier: bool) -> None:
        self._connection = connection
        self._version = version
        self._only_earlier = only_earlier
        self._known: dict[int, VersionRecord | None] = {}

    def __call__(self, version_id: int) -> VersionRecord | None:
        """The version, unless it came later, is an earlier revision of the same name, or was made from this one."""
        if version_id not in self._known:
            self._known[version_id] = self._judged(version_id)
        return self._known[version_id]

    def _judged(self, version_id: int) -> VersionRecord | None:
        own = self._version.key
        other = versions.get_without_report(self._connection, version_id)
        if other is None or other.key == own or (self._only_earlier and other.id > self._version.id):
            return None
        if (other.key.registry, other.key.model) == (own.registry, own.model):
            return other if self._place(other) < self._place(self._version) else None
        return None if other.id in self._descendants else other

    def _place(self, version: VersionRecord) -> tuple[bytes, int]:
        return sort_key(version.order_key), version.id

    @cached_property
    def _descendants(self) -> set[int]:
        """The versions that are known to come from this one; a new one has none."""
        found: set[int] = set()
        newest = {self._version.id}
        for _ in range(_MOST_GENERATIONS):
            newest = lineage.children_of(self._connection, newest) - found
            found |= newest
            if not newest or len(found) > _MOST_DESCENDANTS:
                break
        return found


def _shared(
    connection: Connection, version: VersionRecord, layers: Sequence[LayerEntry], may_be: _Eligible
) -> list[tuple[VersionRecord, int, float]]:
    """(version, number of tensors, share of the weights) that are the same byte for byte, the most first."""
    sizes = {one.digest: prod(one.shape) for one in layers if one.digest is not None}
    owners = {
        digest: owner for digest, owner in kinship.owners_of(connection, sizes).items() if owner != version.id
    }
    # Zeros and ones are the same everywhere, and say nothing.
    known = measurements.load_scalars(connection, owners)
    owners = {
        digest: owner
        for digest, owner in owners.items()
        if digest in known and not known[digest].constant and known[digest].max_abs > 0.0
    }
    total = max(1, sum(sizes.values()))
    found = []
    for owner, count in Counter(owners.values()).most_common():
        share = sum(sizes[digest] for digest, one in owners.items() if one == owner) / total
        if max(share, count / len(sizes)) < _LEAST_SHARED:
            continue
        parent = may_be(owner)
        if parent is not None:
            found.append((parent, count, share))
    return found[:_MOST_SHARERS]


def _candidates(
    connection: Connection,
    version: VersionRecord,
    family: str,
    numbers: NDArray[np.float32],
    may_be: _Eligible,
) -> list[VersionRecord]:
    found = []
    for one in kinship.relatives(connection, version.id, family, numbers):
        candidate = may_be(one.version_id)
        if candidate is not None:
            found.append(candidate)
        if len(found) == _MOST_CANDIDATES:
            break
    return found


def _some(matrices: Sequence[LayerEntry]) -> list[LayerEntry]:
    """As many layers as are compared, spread over the model."""
    if len(matrices) <= _MOST_COMPARED_LAYERS:
        return list(matrices)
    places = np.linspace(0, len(matrices) - 1, _MOST_COMPARED_LAYERS).round().astype(int)
    return [matrices[place] for place in dict.fromkeys(places.tolist())]


def _sketches_of(
    connection: Connection, version: VersionRecord, wanted: Iterable[LayerEntry]
) -> dict[str, LayerSketch]:
    layers = contents.load_layers(connection, version.fingerprint, METRIC_SET, [one.name for one in wanted])
    return kinship.load_sketches(connection, layers)


def _edges(
    shared: Sequence[tuple[VersionRecord, int, float]],
    ordered: Nearest,
    named: Mapping[int, VersionRecord],
    tensors: int,
) -> tuple[LineageEdge, ...]:
    edges: dict[int, LineageEdge] = {}
    near = {int(one.name): one for one in ordered.candidates}
    for parent, count, share in shared:
        is_copy = count == tensors
        edges[parent.id] = LineageEdge(
            _name(parent),
            parent.id,
            Relation.REEXPORTED.value if is_copy else None,
            WEIGHTS,
            _CERTAIN if share >= 0.5 or count >= tensors / 2 else _NEAR,
            {"identical": count, "tensors": tensors, "share": share, **_numbers(near.get(parent.id))},
        )
    first = ordered.candidates[0] if ordered.candidates else None
    if first is not None and _is_related(first) and int(first.name) not in edges:
        parent = named[int(first.name)]
        edges[parent.id] = LineageEdge(
            _name(parent), parent.id, None, WEIGHTS, _confidence(ordered), _numbers(first)
        )
    return tuple(edges.values())


def _confidence(ordered: Nearest) -> float:
    """From the margin to the next candidate; where nothing decides between them, one half."""
    if not ordered.decisive:
        return _UNSURE
    near, *others = (one.distance.value for one in ordered.candidates if one.comparable and one.distance)
    far = min([*others, 1.0])
    return round(_UNSURE + (_NEAR - _UNSURE) * (1.0 - near / far if far > 0.0 else 0.0), 3)


def _is_related(candidate: Candidate) -> bool:
    cosine = candidate.cosine
    return candidate.comparable and cosine is not None and cosine.value - 2 * cosine.error >= _LEAST_COSINE


def _numbers(candidate: Candidate | None) -> dict[str, float | int | None]:
    if candidate is None or candidate.distance is None or candidate.cosine is None:
        return {}
    return {"distance": candidate.distance.value, "cosine": candidate.cosine.value}


def _evidence(
    connection: Connection,
    version: VersionRecord,
    sketches: Mapping[str, LayerSketch],
    compared: Sequence[LayerEntry],
    ordered: Nearest,
    named: Mapping[int, VersionRecord],
    models: Mapping[int, Mapping[str, LayerSketch]],
) -> LineageEvidence | None:
    edges = lineage.edges_of(connection, [version.id]).get(version.id, ())
    declared = next((one for one in edges if one.source != WEIGHTS), None)
    if declared is None or declared.parent_id is None:
        return None
    parent = versions.get_without_report(connection, declared.parent_id)
    kin = _descendants(connection, declared.parent_id)
    rival = next((one for one in ordered.candidates if int(one.name) not in kin), None)
    if parent is None or rival is None:
        return None
    if named[int(rival.name)].fingerprint == parent.fingerprint:
        # The same bytes under another name contradict nothing.
        return None
    of_parent = models.get(parent.id) or _sketches_of(connection, parent, compared)
    relation = declared.relation
    return lineage_evidence(
        sketches,
        of_parent,
        models[int(rival.name)],
        declared=declared.parent,
        source=declared.source,
        confidence=declared.confidence,
        relation=Relation(relation) if relation in set(Relation) else None,
        nearest=_name(named[int(rival.name)]),
    )


def _descendants(connection: Connection, ancestor: int) -> set[int]:
    """The version itself and what came from it: two prunings of one model are nearer to each other than to it."""
    known, last = {ancestor}, {ancestor}
    for _ in range(_GENERATIONS):
        last = lineage.children_of(connection, last) - known
        if not last:
            break
        known |= last
    return known


def _name(version: VersionRecord) -> str:
    key = version.key
    return f"{key.registry}/{key.model}/{key.version}"

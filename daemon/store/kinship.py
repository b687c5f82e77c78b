"""What is kept to find the version that another was made from: first owners of tensors, and signatures.

A signature holds all sketches of a version in 128 numbers. It is linear as they are: every layer, in units of its own
norm, is folded by random signs that its name seeds, and the layers are added up. The distance of two signatures is
that of the models, each layer counted alike, within about one part in eight (sqrt(2 / 128)): enough to pick the few
out of thousands whose sketches are then compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.records import VersionRecord, VersionState
from layerwatch.daemon.store.versionrows import LISTED, to_record
from layerwatch.metrics.estimate import LayerSketch
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.sketch import SIZE

_ORIGINS = tables.tensor_origins
_SIGNATURES = tables.signatures
_MEASUREMENTS = tables.measurements
_VERSIONS = tables.versions
_CONTENTS = tables.contents

_NUMBERS = 128
_MOST_SIGNATURES = 4096
"""Half a kilobyte each; of larger families the latest are looked at."""


@dataclass(frozen=True, slots=True)
class Relative:
    """A version of the same family.

    Attributes:
        version_id, fingerprint: which.
        distance: between the signatures, over the norm of the version's own; about 1.4 for unrelated models.
    """

    version_id: int
    fingerprint: str
    distance: float


def family_of(names: Iterable[str]) -> str:
    """What models have in common whose layers have the same names."""
    text = "\0".join(sorted(names))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def signature(sketches: Mapping[str, LayerSketch]) -> NDArray[np.float32]:
    """The signature of a model, shape (128,).

    Args:
        sketches: by layer name; those that cannot be used are left out.
    """
    total = np.zeros(_NUMBERS)
    for name, layer in sketches.items():
        if layer.usable and layer.norm > 0.0:
            key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:16]
            words = np.random.Philox(key=int.from_bytes(key, "big")).random_raw(SIZE * SIZE // 64)
            bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")
            cells = layer.sketch.reshape(-1) / layer.norm
            total += np.where(bits, cells, -cells).reshape(_NUMBERS, -1).sum(axis=1, dtype=np.float64)
    return total.astype(np.float32)


def save(
    connection: sa.Connection,
    version_id: int,
    digests: Iterable[str],
    family: str,
    numbers: NDArray[np.float32],
) -> None:
    """Remember a measured version: as first owner of the tensors that nobody had before, and by its signature."""
    wanted = list(dict.fromkeys(digests))
    known = owners_of(connection, wanted)
    new = [{"digest": digest, "version_id": version_id} for digest in wanted if digest not in known]
    if new:
        connection.execute(sa.insert(_ORIGINS), new)
    connection.execute(sa.delete(_SIGNATURES).where(_SIGNATURES.c.version_id == version_id))
    connection.execute(
        sa.insert(_SIGNATURES).values(
            version_id=version_id,
            metric_set=METRIC_SET,
            family=family,
            signature=numbers.astype("<f4").tobytes(),
        )
    )


def unsigned(connection: sa.Connection, limit: int) -> list[VersionRecord]:
    """Judged versions whose numbers are in the store and whose signature is not, the oldest rows first.

    So are those that were judged before signatures were kept.
    """
    signed = sa.select(_SIGNATURES.c.version_id).where(
        _SIGNATURES.c.version_id == _VERSIONS.c.id, _SIGNATURES.c.metric_set == METRIC_SET
    )
    readable = sa.select(_CONTENTS.c.id).where(
        _CONTENTS.c.fingerprint == _VERSIONS.c.fingerprint,
        _CONTENTS.c.metric_set == METRIC_SET,
        _CONTENTS.c.problem_reason.is_(None),
    )
    query = (
        sa.select(*LISTED)
        .where(_VERSIONS.c.state == VersionState.JUDGED.value, ~signed.exists(), readable.exists())
        .order_by(_VERSIONS.c.id)
        .limit(limit)
    )
    return [to_record(row) for row in connection.execute(query)]


def claim(connection: sa.Connection, version_id: int, digests: Iterable[str]) -> None:
    """Make a version the first owner of those of its tensors that are said to have been seen first in a later row."""
    for chunk in chunks(dict.fromkeys(digests)):
        connection.execute(
            sa.update(_ORIGINS)
            .where(_ORIGINS.c.digest.in_(chunk), _ORIGINS.c.version_id > version_id)
            .values(version_id=version_id)
        )


def owners_of(connection: sa.Connection, digests: Iterable[str]) -> dict[str, int]:
    """The version in which each of these tensors was seen first; new ones are left out."""
    found: dict[str, int] = {}
    for chunk in chunks(digests):
        query = sa.select(_ORIGINS.c.digest, _ORIGINS.c.version_id).where(_ORIGINS.c.digest.in_(chunk))
        found.update({row.digest: row.version_id for row in connection.execute(query)})
    return found


def relatives(
    connection: sa.Connection, version_id: int, family: str, numbers: NDArray[np.float32]
) -> list[Relative]:
    """The versions of a family but this one, the nearest first; of equal bytes only the oldest row."""
    query = (
        sa.select(_SIGNATURES.c.version_id, _SIGNATURES.c.signature, _VERSIONS.c.fingerprint)
        .join(_VERSIONS, _VERSIONS.c.id == _SIGNATURES.c.version_id)
        .where(
            _SIGNATURES.c.family == family,
            _SIGNATURES.c.metric_set == METRIC_SET,
            _SIGNATURES.c.version_id != version_id,
        )
        .order_by(_SIGNATURES.c.version_id.desc())
        .limit(_MOST_SIGNATURES)
    )
    rows = [row for row in connection.execute(query) if len(row.signature) == 4 * _NUMBERS]
    own = float(np.linalg.norm(numbers))
    if not rows or own <= 0.0:
        return []
    stored = np.frombuffer(b"".join(row.signature for row in rows), dtype="<f4").reshape(len(rows), -1)
    distances = np.linalg.norm(stored - numbers, axis=1) / own
    oldest = {
        row.fingerprint: Relative(row.version_id, row.fingerprint, float(distance))
        for row, distance in zip(rows, distances, strict=True)
    }
    return sorted(oldest.values(), key=lambda one: (one.distance, one.version_id))


def load_sketches(connection: sa.Connection, layers: Sequence[LayerEntry]) -> dict[str, LayerSketch]:
    """Sketches of layers as their weights are stored, by layer name; those that are not kept are left out.

    Much cheaper than loading the measurements: spectra and the other numbers stay where they are.
    """
    stored: dict[str, LayerSketch] = {}
    columns = [
        _MEASUREMENTS.c[name] for name in ("digest", "shape", "dtype", "scalars", "sketch", "raw_sketch")
    ]
    for chunk in chunks(dict.fromkeys(layer.digest for layer in layers if layer.digest)):
        query = sa.select(*columns).where(
            _MEASUREMENTS.c.digest.in_(chunk), _MEASUREMENTS.c.metric_set == METRIC_SET
        )
        for row in connection.execute(query):
            # A sketch with a batch norm folded in is no sketch of these weights.
            blob = row.sketch if row.scalars.get("folded_by") is None else row.raw_sketch
            if blob is not None and len(blob) == 4 * SIZE * SIZE:
                cells = np.frombuffer(blob, dtype="<f4").reshape(SIZE, SIZE)
                stored[row.digest] = LayerSketch(
                    cells.astype(np.float32, copy=False),
                    float(row.scalars["norm"]),
                    tuple(row.shape),
                    row.dtype,
                )
    return {layer.name: stored[layer.digest] for layer in layers if layer.digest in stored}

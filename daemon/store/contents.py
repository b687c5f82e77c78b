"""Contents: what was found in a set of weight files, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.columns import safe_text
from layerwatch.daemon.store.records import ContentRecord, SkippedTensor
from layerwatch.metrics.census.remark import StorageRemark, remark_of, remark_to_json
from layerwatch.metrics.coupling import coupling_of, coupling_to_json
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import LayerKind

_CONTENTS = tables.contents
_LAYERS = tables.content_layers
_COUPLINGS = tables.content_couplings
_REMARKS = tables.content_remarks


def save(connection: sa.Connection, content: ContentRecord, now: datetime) -> None:
    """Keep a content in place of the one with the same fingerprint and metric set, if any."""
    connection.execute(sa.delete(_CONTENTS).where(*_key(content.fingerprint, content.metric_set)))
    reason, detail = content.file_problem or (None, None)
    inserted = connection.execute(
        sa.insert(_CONTENTS).values(
            fingerprint=content.fingerprint,
            metric_set=content.metric_set,
            format=content.format,
            size_bytes=content.size_bytes,
            skipped=[[tensor.name, tensor.reason] for tensor in content.skipped],
            problem_reason=reason,
            problem_detail=detail,
            measure_seconds=content.measure_seconds,
            saved_at=now,
        )
    )
    assert inserted.inserted_primary_key is not None
    (content_id,) = inserted.inserted_primary_key
    if content.layers:
        connection.execute(
            sa.insert(_LAYERS),
            [
                {
                    "content_id": content_id,
                    "position": position,
                    "name": layer.name,
                    "kind": layer.kind.value,
                    "shape": list(layer.shape),
                    "dtype": layer.dtype,
                    "digest": layer.digest,
                    "problem_reason": layer.problem_reason,
                    "problem_detail": layer.problem_detail,
                }
                for position, layer in enumerate(content.layers)
            ],
        )
    if content.couplings:
        connection.execute(
            sa.insert(_COUPLINGS).values(
                content_id=content_id, couplings=[coupling_to_json(one) for one in content.couplings]
            )
        )
    if content.remarks:
        connection.execute(
            sa.insert(_REMARKS).values(
                content_id=content_id, remarks=[_remark(one) for one in content.remarks]
            )
        )


def load(connection: sa.Connection, fingerprint: str, metric_set: str) -> ContentRecord | None:
    """The content with this key, or None."""
    row = connection.execute(sa.select(_CONTENTS).where(*_key(fingerprint, metric_set))).first()
    if row is None:
        return None
    layers = connection.execute(
        sa.select(_LAYERS).where(_LAYERS.c.content_id == row.id).order_by(_LAYERS.c.position)
    )
    couplings = connection.execute(
        sa.select(_COUPLINGS.c.couplings).where(_COUPLINGS.c.content_id == row.id)
    ).scalar()
    remarks = connection.execute(
        sa.select(_REMARKS.c.remarks).where(_REMARKS.c.content_id == row.id)
    ).scalar()
    return ContentRecord(
        fingerprint=row.fingerprint,
        metric_set=row.metric_set,
        format=row.format,
        size_bytes=row.size_bytes,
        layers=tuple(map(_entry, layers)),
        skipped=tuple(SkippedTensor(name, reason) for name, reason in row.skipped),
        file_problem=None if row.problem_reason is None else (row.problem_reason, row.problem_detail),
        measure_seconds=row.measure_seconds,
        couplings=tuple(coupling_of(one) for one in couplings or ()),
        remarks=tuple(remark_of(one) for one in remarks or ()),
    )


def load_layers(
    connection: sa.Connection, fingerprint: str, metric_set: str, names: Iterable[str]
) -> list[LayerEntry]:
    """Some layers of a content, in file order; none where the content is not kept."""
    content_id = connection.execute(sa.select(_CONTENTS.c.id).where(*_key(fingerprint, metric_set))).scalar()
    found: list[sa.Row[Any]] = []
    for chunk in chunks(names if content_id is not None else ()):
        query = sa.select(_LAYERS).where(_LAYERS.c.content_id == content_id, _LAYERS.c.name.in_(chunk))
        found.extend(connection.execute(query))
    return [_entry(row) for row in sorted(found, key=lambda row: row.position)]


def _remark(remark: StorageRemark) -> dict[str, str]:
    # The layer's name in the form in which the layer has it.
    return {name: safe_text(text) for name, text in remark_to_json(remark).items()}


def _entry(row: sa.Row[Any]) -> LayerEntry:
    return LayerEntry(
        name=row.name,
        kind=LayerKind(row.kind),
        shape=tuple(row.shape),
        dtype=row.dtype,
        digest=row.digest,
        problem_reason=row.problem_reason,
        problem_detail=row.problem_detail,
    )


def _key(fingerprint: str, metric_set: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return _CONTENTS.c.fingerprint == fingerprint, _CONTENTS.c.metric_set == metric_set

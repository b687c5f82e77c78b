"""Rows of the versions table as records, and the conditions that several modules share."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import merges, tables
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import Lineage, VersionKey, VersionRecord, VersionState
from layerwatch.metrics.findings import Verdict

_VERSIONS = tables.versions

_MERGE = (
    sa.select(tables.merges.c.declaration)
    .where(tables.merges.c.version_id == _VERSIONS.c.id)
    .correlate(_VERSIONS)
    .scalar_subquery()
    .label("merge")
)

LISTED = (*(column for column in _VERSIONS.c if column.name not in ("report", "sort_key")), _MERGE)
"""The columns of a list: everything but the report, which is large."""

WITH_REPORT = (*LISTED, _VERSIONS.c.report)

PRESENT = sa.and_(_VERSIONS.c.is_current, _VERSIONS.c.gone_at.is_(None))
"""The bytes that the registry offers under this name now."""


def to_record(row: sa.Row[Any]) -> VersionRecord:
    """The record of a row of `LISTED` (report None) or `WITH_REPORT`."""
    return VersionRecord(
        id=row.id,
        key=VersionKey(row.registry, row.model, row.version),
        revision=row.revision,
        fingerprint=row.fingerprint,
        previous_fingerprint=row.previous_fingerprint,
        source_path=row.source_path,
        order_key=row.order_key,
        lineage=Lineage(
            row.parent,
            row.relation,
            row.lineage_source,
            row.lineage_confidence,
            merges.parents_of(row.merge),
            merges.recipe_of(row.merge),
        ),
        state=VersionState(row.state),
        attempts=row.attempts,
        not_before=row.not_before,
        discovered_at=row.discovered_at,
        judged_at=row.judged_at,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        current=row.is_current,
        gone_at=row.gone_at,
        report=row._mapping.get("report"),
        token=row.token,
    )


def fetch(connection: sa.Connection, version_id: int) -> VersionRecord:
    """The row with this number, without its report.

    Raises:
        StoreError: ``not_found``.
    """
    row = connection.execute(sa.select(*LISTED).where(_VERSIONS.c.id == version_id)).first()
    if row is None:
        raise StoreError(StoreReason.NOT_FOUND, f"there is no version row {version_id}")
    return to_record(row)


def of_key(key: VersionKey) -> sa.ColumnElement[bool]:
    """Condition: the current row of this version."""
    return sa.and_(
        _VERSIONS.c.registry == key.registry,
        _VERSIONS.c.model == key.model,
        _VERSIONS.c.version == key.version,
        _VERSIONS.c.is_current,
    )


def describe(record: VersionRecord) -> str:
    """How messages name a version row."""
    key = record.key
    return (
        f"version {key.version!r} of {key.registry}/{key.model} (row {record.id}, revision {record.revision})"
    )

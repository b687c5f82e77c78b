"""Retention: what is forgotten, and what must not be.

Forgotten are the numbers of old versions, and the rows of those that cannot come back. The row of a version that
its registry still offers stays for ever, with its verdict and findings: without it the next poll would take the
version for new, scan it again and tell people again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.alerts.model import AlertPhase
from layerwatch.daemon.store import (
    alerts,
    auditlog,
    baselines,
    comparisons,
    lineage,
    merges,
    silences,
    summaries,
    tables,
)
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.records import VersionState
from layerwatch.metrics.findings import Verdict

_VERSIONS = tables.versions
_CONTENTS = tables.contents
_LAYERS = tables.content_layers
_MEASUREMENTS = tables.measurements
_OUTBOX = tables.outbox

_PASSING = (Verdict.PASS.value, Verdict.WARN.value)
_LIGHT = tuple(
    _VERSIONS.c[name]
    for name in (
        "id",
        "version",
        "revision",
        "is_current",
        "fingerprint",
        "parent",
        "state",
        "verdict",
        "gone_at",
    )
)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one call to `prune` removed.

    Attributes:
        reports: reports of versions whose rows stay.
        versions: rows of versions that are gone or superseded.
        contents, comparisons, measurements: no longer referenced.
        events: delivered or given up long ago.
        transitions: of alerts, as old.
        silences: over for as long.
        audit: entries of the audit log that were older than theirs are kept.
        deferred: True when a scan was running, which may be about to use any content or measurement: none was
            removed, and the next call will.
    """

    reports: int
    versions: int
    contents: int
    comparisons: int
    measurements: int
    events: int
    transitions: int
    silences: int
    audit: int
    deferred: bool


def prune(
    connection: sa.Connection,
    keep_versions: int,
    events_before: datetime,
    audit_before: datetime | None = None,
) -> Pruned:
    """Remove what is old and not needed.

    Kept in full are, of every model: the last ``keep_versions`` revisions in natural order; those waiting for a
    scan or being scanned; the nearest passing version before any of these, which is what they are judged
    against; targets of refs; the pinned and the last accepted baseline; bytes that a firing alert is about; and
    of all of these the declared parent, the versions of the model that they were merged from, and the revision they
    replaced; and what versions of other models are declared to be made from. Alert states, baseline history and
    undelivered events are never removed.

    Args:
        keep_versions: at least 1.
        events_before: events delivered, and what else was over, before this time are removed.
        audit_before: entries of the audit log from before this time are removed; None for none.

    Raises:
        ValueError: when ``keep_versions`` is below 1.
    """
    if keep_versions < 1:
        raise ValueError(f"keep_versions must be at least 1, not {keep_versions}")
    kept_fingerprints: set[str] = set()
    without_report: list[int] = []
    obsolete: list[int] = []
    bases = lineage.declared_bases(connection)
    for registry, model, rows in _models(connection):
        kept = _kept(connection, registry, model, rows, keep_versions) | bases
        for row in rows:
            if row.id in kept:
                kept_fingerprints.add(row.fingerprint)
            elif row.is_current and row.gone_at is None:
                without_report.append(row.id)
            else:
                obsolete.append(row.id)
    scanning = sa.select(_VERSIONS.c.id).where(_VERSIONS.c.state == VersionState.SCANNING.value)
    over = sa.or_(_OUTBOX.c.delivered_at < events_before, _OUTBOX.c.dead_at < events_before)
    deferred = connection.execute(scanning.limit(1)).first() is not None
    return Pruned(
        reports=_drop_reports(connection, without_report),
        versions=_delete(connection, _VERSIONS, obsolete),
        contents=0 if deferred else _drop_contents(connection, kept_fingerprints),
        comparisons=0 if deferred else comparisons.prune(connection),
        measurements=0 if deferred else _drop_measurements(connection),
        events=connection.execute(sa.delete(_OUTBOX).where(over)).rowcount,
        transitions=alerts.prune_alerts(connection, events_before),
        silences=silences.prune_silences(connection, events_before),
        audit=0 if audit_before is None else auditlog.prune_audit_log(connection, audit_before),
        deferred=deferred,
    )


def _models(connection: sa.Connection) -> Iterator[tuple[str, str, Sequence[sa.Row[Any]]]]:
    """Every model with all its version rows, the last in natural order first."""
    names = connection.execute(sa.select(_VERSIONS.c.registry, _VERSIONS.c.model).distinct()).all()
    for registry, model in names:
        rows = connection.execute(
            sa.select(*_LIGHT)
            .where(_VERSIONS.c.registry == registry, _VERSIONS.c.model == model)
            .order_by(_VERSIONS.c.sort_key.desc(), _VERSIONS.c.id.desc())
        ).all()
        yield registry, model, rows


def _kept(
    connection: sa.Connection, registry: str, model: str, rows: Sequence[sa.Row[Any]], keep_versions: int
) -> set[int]:
    """Row numbers of the versions of one model to keep in full."""
    targets = set(
        connection.execute(
            sa.select(tables.refs.c.version_id).where(
                tables.refs.c.registry == registry, tables.refs.c.model == model
            )
        ).scalars()
    )
    chosen = {
        (record.version, record.fingerprint) for record in baselines.in_use(connection, registry, model)
    }
    firing = _firing_fingerprints(connection, registry, model)
    kept = set()
    judged_against = False
    for place, row in enumerate(rows):
        if place < keep_versions or _waits(row):
            kept.add(row.id)
            judged_against = True
        elif judged_against and _passes(row):
            kept.add(row.id)
            judged_against = False
        elif row.id in targets or (row.version, row.fingerprint) in chosen or row.fingerprint in firing:
            kept.add(row.id)
    # Judged against the declared parent, and told apart from the bytes it replaced.
    base = [row for row in rows if row.id in kept]
    parents = {row.parent for row in base} | _merged_from(connection, [row.id for row in base])
    replaced = {(row.version, row.revision - 1) for row in base}
    kept.update(row.id for row in rows if row.is_current and row.version in parents)
    kept |= lineage.declared_parents(connection, [row.id for row in base])
    kept.update(row.id for row in rows if (row.version, row.revision) in replaced)
    return kept


def _merged_from(connection: sa.Connection, version_ids: Collection[int]) -> set[str]:
    names: set[str] = set()
    for chunk in chunks(version_ids):
        query = sa.select(tables.merges.c.declaration).where(tables.merges.c.version_id.in_(chunk))
        for declaration in connection.execute(query).scalars():
            recipe = merges.recipe_of(declaration)
            names.update(merges.parents_of(declaration))
            names.update([recipe.base] if recipe is not None and recipe.base is not None else [])
    return names


def _waits(row: sa.Row[Any]) -> bool:
    queued = row.state == VersionState.PENDING.value and row.is_current and row.gone_at is None
    return queued or row.state == VersionState.SCANNING.value


def _passes(row: sa.Row[Any]) -> bool:
    return bool(row.is_current and row.state == VersionState.JUDGED.value and row.verdict in _PASSING)


def _firing_fingerprints(connection: sa.Connection, registry: str, model: str) -> set[str]:
    states = tables.alert_states
    query = sa.select(states.c.fingerprint).where(
        states.c.registry == registry, states.c.model == model, states.c.phase == AlertPhase.FIRING.value
    )
    return set(connection.execute(query).scalars())


def _drop_reports(connection: sa.Connection, version_ids: Collection[int]) -> int:
    dropped = 0
    for chunk in chunks(version_ids):
        statement = sa.update(_VERSIONS).where(_VERSIONS.c.id.in_(chunk), _VERSIONS.c.report.is_not(None))
        dropped += connection.execute(statement.values(report=None)).rowcount
        summaries.drop_numbers(connection, chunk)
    return dropped


def _drop_contents(connection: sa.Connection, kept_fingerprints: Collection[str]) -> int:
    rows = connection.execute(sa.select(_CONTENTS.c.id, _CONTENTS.c.fingerprint)).all()
    return _delete(
        connection, _CONTENTS, [row.id for row in rows if row.fingerprint not in kept_fingerprints]
    )


def _drop_measurements(connection: sa.Connection) -> int:
    used = (
        sa.exists()
        .where(_LAYERS.c.digest == _MEASUREMENTS.c.digest, _LAYERS.c.content_id == _CONTENTS.c.id)
        .where(_CONTENTS.c.metric_set == _MEASUREMENTS.c.metric_set)
    )
    return connection.execute(sa.delete(_MEASUREMENTS).where(~used)).rowcount


def _delete(connection: sa.Connection, table: sa.Table, row_ids: Collection[int]) -> int:
    deleted = 0
    for chunk in chunks(row_ids):
        deleted += connection.execute(sa.delete(table).where(table.c.id.in_(chunk))).rowcount
    return deleted

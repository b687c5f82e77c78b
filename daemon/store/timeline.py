"""Every revision of every version of a model, with its summary, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.records import VersionState
from layerwatch.daemon.store.summaries import COUNTS
from layerwatch.metrics.findings import Verdict

_VERSIONS = tables.versions
_SUMMARIES = tables.version_summaries
_COLUMNS = (
    _VERSIONS.c.id,
    _VERSIONS.c.version,
    _VERSIONS.c.fingerprint,
    _VERSIONS.c.is_current,
    _VERSIONS.c.parent,
    _VERSIONS.c.relation,
    _VERSIONS.c.state,
    _VERSIONS.c.discovered_at,
    _VERSIONS.c.judged_at,
    _VERSIONS.c.verdict,
    _VERSIONS.c.gone_at,
    *COUNTS,
)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One revision. Attributes as in `records.VersionRecord` and `summaries.VersionSummary`."""

    id: int
    version: str
    fingerprint: str
    is_current: bool
    parent: str | None
    relation: str | None
    state: VersionState
    discovered_at: datetime
    judged_at: datetime | None
    verdict: Verdict | None
    gone_at: datetime | None
    mean_alpha: float | None
    layer_count: int | None
    broken: int | None
    suspect: int | None
    undecided: int | None
    worst_layer: str | None
    worst_words: str | None


def count(connection: sa.Connection, registry: str, model: str) -> int:
    """How many revisions a model has; 0 where the store knows no such model."""
    return connection.execute(sa.select(sa.func.count()).where(*_of(registry, model))).scalar_one()


def page(
    connection: sa.Connection, registry: str, model: str, limit: int, offset: int
) -> list[TimelineEntry]:
    """Some of them, in natural order, the newest first."""
    query: sa.Select[Any] = (
        sa.select(*_COLUMNS)
        .join_from(_VERSIONS, _SUMMARIES, isouter=True)
        .where(*_of(registry, model))
        .order_by(_VERSIONS.c.sort_key.desc(), _VERSIONS.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return [_entry(row) for row in connection.execute(query)]


def _of(registry: str, model: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _VERSIONS.c.registry == registry, _VERSIONS.c.model == model


def _entry(row: sa.Row[Any]) -> TimelineEntry:
    verdict = None if row.verdict is None else Verdict(row.verdict)
    return TimelineEntry(**{**row._mapping, "state": VersionState(row.state), "verdict": verdict})

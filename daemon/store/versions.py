"""Versions of models: what was discovered, where each is in its life, what was found.

The scan queue is in ``queue.py``, verdicts and findings in ``verdicts.py``; both are offered here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import merges, modelsummaries, tables
from layerwatch.daemon.store.ordering import sort_key
from layerwatch.daemon.store.queue import (
    claim_next,
    counts_by_state,
    release,
    reopen,
    reset_interrupted,
)
from layerwatch.daemon.store.records import Lineage, VersionKey, VersionRecord, VersionState
from layerwatch.daemon.store.verdicts import findings, record_verdict
from layerwatch.daemon.store.versionrows import LISTED, PRESENT, WITH_REPORT, of_key, to_record
from layerwatch.metrics.findings import Verdict

__all__ = [
    "Known",
    "all_models",
    "claim_next",
    "count_present",
    "counts_by_state",
    "current",
    "current_of_registry",
    "findings",
    "get",
    "get_without_report",
    "known",
    "list_versions",
    "mark_gone",
    "models",
    "of_model",
    "passing_before",
    "present_in_registry",
    "previous_passing",
    "previous_revision",
    "record_verdict",
    "register",
    "release",
    "reopen",
    "reset_interrupted",
]

_VERSIONS = tables.versions


@dataclass(frozen=True, slots=True)
class Known:
    """As much of a current version as a look at its registry needs."""

    id: int
    model: str
    version: str
    location: str
    token: str | None
    fingerprint: str
    gone_at: datetime | None
    verdict: Verdict | None


def register(
    connection: sa.Connection,
    key: VersionKey,
    fingerprint: str,
    source_path: str,
    order_key: str,
    lineage: Lineage,
    now: datetime,
    token: str | None = None,
) -> VersionRecord:
    """Tell the store that a registry offers these bytes under this name.

    An unknown name becomes a pending version. The same bytes again change nothing, except that the version is
    no longer gone and that path and token, and before its judgement the declared lineage, follow the registry. Other
    bytes under a known name become a new pending revision, and the old one is no longer current.

    Returns:
        The current row of the version.
    """
    known = current(connection, key)
    if known is not None and known.fingerprint == fingerprint:
        _follow_registry(connection, known, source_path, token, lineage)
    else:
        if known is not None:
            connection.execute(
                sa.update(_VERSIONS).where(_VERSIONS.c.id == known.id).values(is_current=False)
            )
        inserted = connection.execute(
            sa.insert(_VERSIONS).values(
                registry=key.registry,
                model=key.model,
                version=key.version,
                revision=1 if known is None else known.revision + 1,
                is_current=True,
                fingerprint=fingerprint,
                previous_fingerprint=None if known is None else known.fingerprint,
                source_path=source_path,
                token=token,
                order_key=order_key,
                sort_key=sort_key(order_key),
                **_lineage_columns(lineage),
                state=VersionState.PENDING.value,
                attempts=0,
                discovered_at=now,
            )
        )
        assert inserted.inserted_primary_key is not None
        merges.save(connection, inserted.inserted_primary_key[0], lineage)
        modelsummaries.touch(connection, key.registry, key.model)
    registered = current(connection, key)
    assert registered is not None
    return registered


def get(connection: sa.Connection, version_id: int) -> VersionRecord | None:
    """The row with this number, with its report, or None."""
    row = connection.execute(sa.select(*WITH_REPORT).where(_VERSIONS.c.id == version_id)).first()
    return None if row is None else to_record(row)


def get_without_report(connection: sa.Connection, version_id: int) -> VersionRecord | None:
    """The row with this number, without its report, or None."""
    row = connection.execute(sa.select(*LISTED).where(_VERSIONS.c.id == version_id)).first()
    return None if row is None else to_record(row)


def previous_revision(connection: sa.Connection, version: VersionRecord) -> VersionRecord | None:
    """What was found under the same name before, without its report; None for the first revision."""
    key = version.key
    query = sa.select(*LISTED).where(
        _VERSIONS.c.registry == key.registry,
        _VERSIONS.c.model == key.model,
        _VERSIONS.c.version == key.version,
        _VERSIONS.c.revision == version.revision - 1,
    )
    row = connection.execute(query).first()
    return None if row is None else to_record(row)


def current(connection: sa.Connection, key: VersionKey) -> VersionRecord | None:
    """The current revision of a version, with its report, or None."""
    row = connection.execute(sa.select(*WITH_REPORT).where(of_key(key))).first()
    return None if row is None else to_record(row)


def current_of_registry(connection: sa.Connection, registry: str) -> list[VersionRecord]:
    """The current revisions of all versions of a registry, gone ones too, without their reports.

    Sorted by model, within a model in natural order.
    """
    order = (_VERSIONS.c.model, _VERSIONS.c.sort_key, _VERSIONS.c.id)
    of_registry = (_VERSIONS.c.registry == registry, _VERSIONS.c.is_current)
    return [
        to_record(row) for row in connection.execute(sa.select(*LISTED).where(*of_registry).order_by(*order))
    ]


def known(connection: sa.Connection, registry: str, models: Sequence[str]) -> dict[tuple[str, str], Known]:
    """The current versions of some models, gone ones too, by model and version."""
    query = sa.select(*_KNOWN).where(
        _VERSIONS.c.registry == registry, _VERSIONS.c.model.in_(models), _VERSIONS.c.is_current
    )
    return {(one.model, one.version): one for one in map(_known, connection.execute(query))}


def present_in_registry(connection: sa.Connection, registry: str) -> Iterator[Known]:
    """The versions that the registry offered at the last look, one after the other."""
    query = sa.select(*_KNOWN).where(_VERSIONS.c.registry == registry, PRESENT)
    return map(_known, connection.execute(query.execution_options(yield_per=1000)))


def count_present(connection: sa.Connection, registry: str) -> int:
    """How many versions the registry offered at the last look."""
    query = sa.select(sa.func.count()).where(_VERSIONS.c.registry == registry, PRESENT)
    return connection.execute(query).scalar_one()


_KNOWN = tuple(
    _VERSIONS.c[name]
    for name in ("id", "model", "version", "source_path", "token", "fingerprint", "gone_at", "verdict")
)


def _known(row: sa.Row[Any]) -> Known:
    verdict = None if row.verdict is None else Verdict(row.verdict)
    return Known(
        row.id, row.model, row.version, row.source_path, row.token, row.fingerprint, row.gone_at, verdict
    )


def list_versions(
    connection: sa.Connection,
    registry: str | None = None,
    model: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> list[VersionRecord]:
    """Revisions of versions, latest discovered first, without their reports.

    Args:
        registry, model: only those; None for all.
        limit: at most this many.
        before: only rows with a smaller number, to go on after the last one of the list before.
    """
    query = sa.select(*LISTED).order_by(_VERSIONS.c.id.desc()).limit(limit)
    if registry is not None:
        query = query.where(_VERSIONS.c.registry == registry)
    if model is not None:
        query = query.where(_VERSIONS.c.model == model)
    if before is not None:
        query = query.where(_VERSIONS.c.id < before)
    return [to_record(row) for row in connection.execute(query)]


def models(connection: sa.Connection) -> list[tuple[str, str]]:
    """(registry, model) of every model of which some version is not gone, sorted."""
    columns = (_VERSIONS.c.registry, _VERSIONS.c.model)
    query = sa.select(*columns).where(PRESENT).distinct().order_by(*columns)
    return [(registry, model) for registry, model in connection.execute(query)]


def registries(connection: sa.Connection) -> set[str]:
    """Every registry of which some version is not gone."""
    return set(connection.execute(sa.select(_VERSIONS.c.registry).where(PRESENT).distinct()).scalars())


def passing_before(
    connection: sa.Connection, registry: str, model: str, order_key: str, limit: int
) -> list[VersionRecord]:
    """The versions before ``order_key`` whose verdict is pass or warn, nearest first, without their reports.

    A version that is gone counts: its measurements are still there. One that waits for a rescan does not.
    """
    query = (
        sa.select(*LISTED)
        .where(
            _VERSIONS.c.registry == registry,
            _VERSIONS.c.model == model,
            _VERSIONS.c.is_current,
            _VERSIONS.c.state == VersionState.JUDGED.value,
            _VERSIONS.c.verdict.in_((Verdict.PASS.value, Verdict.WARN.value)),
            _VERSIONS.c.sort_key < sort_key(order_key),
        )
        .order_by(_VERSIONS.c.sort_key.desc(), _VERSIONS.c.id.desc())
        .limit(limit)
    )
    return [to_record(row) for row in connection.execute(query)]


def previous_passing(
    connection: sa.Connection, registry: str, model: str, order_key: str
) -> VersionRecord | None:
    """The nearest of `passing_before`, or None."""
    nearest = passing_before(connection, registry, model, order_key, limit=1)
    return nearest[0] if nearest else None


def of_model(connection: sa.Connection, registry: str, model: str) -> list[VersionRecord]:
    """Every revision of every version of a model, in natural order, without their reports."""
    query = (
        sa.select(*LISTED)
        .where(_VERSIONS.c.registry == registry, _VERSIONS.c.model == model)
        .order_by(_VERSIONS.c.sort_key, _VERSIONS.c.id)
    )
    return [to_record(row) for row in connection.execute(query)]


def all_models(connection: sa.Connection) -> list[tuple[str, str]]:
    """(registry, model) of every model that the store remembers, also of one that is gone, sorted."""
    columns = (_VERSIONS.c.registry, _VERSIONS.c.model)
    query = sa.select(*columns).distinct().order_by(*columns)
    return [(registry, model) for registry, model in connection.execute(query)]


def mark_gone(connection: sa.Connection, registry: str, model: str, version: str, now: datetime) -> bool:
    """Note that the registry no longer lists a version. It is not scanned until it is registered again.

    Returns:
        True when this is news.
    """
    statement = sa.update(_VERSIONS).where(
        of_key(VersionKey(registry, model, version)), _VERSIONS.c.gone_at.is_(None)
    )
    modelsummaries.touch(connection, registry, model)
    return connection.execute(statement.values(gone_at=now)).rowcount > 0


def _follow_registry(
    connection: sa.Connection, known: VersionRecord, source_path: str, token: str | None, lineage: Lineage
) -> None:
    # The lineage a verdict was given with stays beside it.
    followed = known.lineage if known.state is VersionState.JUDGED else lineage
    before = (known.gone_at, known.source_path, known.token, known.lineage)
    if before == (None, source_path, token, followed):
        return
    if known.gone_at is not None:
        modelsummaries.touch(connection, known.key.registry, known.key.model)
    connection.execute(
        sa.update(_VERSIONS)
        .where(_VERSIONS.c.id == known.id)
        .values(gone_at=None, source_path=source_path, token=token, **_lineage_columns(followed))
    )
    if followed != known.lineage:
        merges.save(connection, known.id, followed)


def _lineage_columns(lineage: Lineage) -> dict[str, str | float | None]:
    return {
        "parent": lineage.parent,
        "relation": lineage.relation,
        "lineage_source": lineage.source,
        "lineage_confidence": lineage.confidence,
    }

"""The scan queue: which version is examined next.

Versions of one model are taken strictly one after the other, in their natural order, because each may be judged
against the one before. Models do not wait for each other.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import VersionRecord, VersionState
from layerwatch.daemon.store.versionrows import LISTED, PRESENT, describe, fetch, to_record

_VERSIONS = tables.versions


def claim_next(connection: sa.Connection, now: datetime) -> VersionRecord | None:
    """Take the next version to scan: it becomes ``scanning`` with one more attempt.

    Each model offers the first of its pending versions in natural order, unless one of its versions is being
    scanned or that first one must wait until after ``now``; then the later ones wait too. Among models the
    longest waiting version goes first, at equal times by registry and model. Versions that are gone or
    superseded are passed over. Needs a write transaction, so that no two callers get the same row.
    """
    heads = _heads()
    ready = sa.or_(heads.c.not_before.is_(None), heads.c.not_before <= now)
    by_age = (heads.c.discovered_at, heads.c.registry, heads.c.model)
    row = connection.execute(sa.select(heads).where(ready).order_by(*by_age).limit(1)).first()
    if row is None:
        return None
    head = to_record(row)
    attempts = head.attempts + 1
    _update(connection, head.id, state=VersionState.SCANNING.value, attempts=attempts, not_before=None)
    return replace(head, state=VersionState.SCANNING, attempts=attempts, not_before=None)


def release(
    connection: sa.Connection, version_id: int, not_before: datetime | None, counted: bool = True
) -> None:
    """Put a version back in the queue after a failure that may pass, not to be tried before ``not_before``.

    Args:
        counted: False when the scan was given up for no fault of the version; then the attempt does not count. None is
            taken off a version that is in the queue already.

    Raises:
        StoreError: ``not_found``; ``wrong_state`` when it has been judged.
    """
    version = fetch(connection, version_id)
    if version.state is VersionState.JUDGED:
        raise StoreError(
            StoreReason.WRONG_STATE, f"{describe(version)} is judged; reopen it to scan it again"
        )
    begun = version.state is VersionState.SCANNING
    attempts = max(0, version.attempts - 1) if begun and not counted else version.attempts
    _update(
        connection, version_id, state=VersionState.PENDING.value, not_before=not_before, attempts=attempts
    )


def reopen(connection: sa.Connection, version_id: int) -> None:
    """Queue a judged version for another scan. Verdict, report and findings stay until the new ones replace them.

    A version that is pending already stays so, with its wait and its attempts forgotten.

    Raises:
        StoreError: ``not_found``; ``wrong_state`` when it is being scanned, superseded or gone.
    """
    version = fetch(connection, version_id)
    if version.state is VersionState.SCANNING:
        raise StoreError(
            StoreReason.WRONG_STATE, f"{describe(version)} is being scanned now; wait for its verdict"
        )
    if not version.current:
        detail = f"{describe(version)} was replaced by other bytes; rescan the current revision instead"
        raise StoreError(StoreReason.WRONG_STATE, detail)
    if version.gone_at is not None:
        detail = f"{describe(version)} is no longer in its registry; put it back to scan it again"
        raise StoreError(StoreReason.WRONG_STATE, detail)
    _update(connection, version_id, state=VersionState.PENDING.value, not_before=None, attempts=0)


def reset_interrupted(connection: sa.Connection) -> int:
    """Put all versions that were being scanned back in the queue. For the start, when no scan runs yet.

    The attempt that was interrupted does not count. That cannot go on for ever through a version's own fault: its
    files are opened in a process of their own, which dies alone and is then counted; what ends the daemon comes
    from outside.

    Returns:
        How many there were.
    """
    begun = _VERSIONS.c.attempts
    statement = (
        sa.update(_VERSIONS)
        .where(_VERSIONS.c.state == VersionState.SCANNING.value)
        .values(state=VersionState.PENDING.value, attempts=sa.case((begun > 0, begun - 1), else_=0))
    )
    return connection.execute(statement).rowcount


def counts_by_state(connection: sa.Connection) -> dict[VersionState, int]:
    """How many current versions that are not gone are in each state; every state is listed."""
    query = sa.select(_VERSIONS.c.state, sa.func.count()).where(PRESENT).group_by(_VERSIONS.c.state)
    counted = {VersionState(state): count for state, count in connection.execute(query)}
    return {state: counted.get(state, 0) for state in VersionState}


def _heads() -> sa.Subquery:
    """The first pending version of every model of which none is being scanned."""
    scanning = _VERSIONS.alias("scanning")
    busy = sa.exists().where(
        scanning.c.registry == _VERSIONS.c.registry,
        scanning.c.model == _VERSIONS.c.model,
        scanning.c.state == VersionState.SCANNING.value,
    )
    place = sa.func.row_number().over(
        partition_by=(_VERSIONS.c.registry, _VERSIONS.c.model),
        order_by=(_VERSIONS.c.sort_key, _VERSIONS.c.id),
    )
    queued = (
        sa.select(*LISTED, place.label("place"))
        .where(PRESENT, _VERSIONS.c.state == VersionState.PENDING.value, ~busy)
        .subquery("queued")
    )
    return sa.select(queued).where(queued.c.place == 1).subquery("heads")


def _update(connection: sa.Connection, version_id: int, **values: Any) -> None:
    connection.execute(sa.update(_VERSIONS).where(_VERSIONS.c.id == version_id).values(**values))

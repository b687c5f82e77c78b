"""How things are in the store as a whole: what waits, what failed, what is left behind. For people, so a few of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.model import AlertPhase
from layerwatch.daemon.store import outbox, tables
from layerwatch.daemon.store.exporting import oldest_waiting
from layerwatch.daemon.store.outbox import Backlog, GivenUp
from layerwatch.daemon.store.records import VersionKey, VersionState
from layerwatch.daemon.store.versionrows import PRESENT
from layerwatch.metrics.findings import RuleGroup, Verdict

_VERSIONS = tables.versions
_FINDINGS = tables.findings
_OUTBOX = tables.outbox
_WAITING = sa.and_(_OUTBOX.c.delivered_at.is_(None), _OUTBOX.c.dead_at.is_(None))
_NAMES = tuple(
    _VERSIONS.c[name]
    for name in ("id", "registry", "model", "version", "fingerprint", "attempts", "not_before", "judged_at")
)


@dataclass(frozen=True, slots=True)
class QueuedVersion:
    """A version that is scanned, or waits for another attempt.

    Attributes:
        id: its row.
        attempts: begun so far.
        not_before: no attempt before this time; None when none is imposed.
    """

    id: int
    key: VersionKey
    attempts: int
    not_before: datetime | None


@dataclass(frozen=True, slots=True)
class Unexamined:
    """A version that could not be examined, or not all of it.

    Attributes:
        layer: what could not be examined first of all; None for the version as a whole.
        reason, words: why, both empty where that is not kept.
    """

    key: VersionKey
    fingerprint: str
    judged_at: datetime | None
    layer: str | None
    reason: str
    words: str


@dataclass(frozen=True, slots=True)
class Queue:
    """The scan queue.

    Attributes:
        waiting: versions that wait, those that wait for another attempt too; ``oldest`` waits longest.
        running, retrying: of each at most as many as were asked for.
        unexamined: how many there are, and the newest of them.
    """

    waiting: int
    oldest: datetime | None
    running: tuple[QueuedVersion, ...]
    retrying: tuple[QueuedVersion, ...]
    unexamined: int
    last_unexamined: tuple[Unexamined, ...]


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """What the outbox knows of one receiver.

    Attributes:
        backlog, given_up: None where nothing waits, or was left behind.
        delivered_at: when it last took something.
        error_reason, error: why the attempt before failed at what waits first; None where it did not.
        next_attempt_at: for what waits first.
    """

    backlog: Backlog | None = None
    given_up: GivenUp | None = None
    delivered_at: datetime | None = None
    error_reason: DeliveryReason | None = None
    error: str | None = None
    next_attempt_at: datetime | None = None


def kind_and_size(connection: sa.Connection) -> tuple[str, int]:
    """Kind of the database, and the bytes it takes on its disk."""
    if connection.dialect.name == "sqlite":
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return "SQLite", pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
    return "PostgreSQL", size


def firing_alerts(connection: sa.Connection) -> int:
    """How many alerts about models fire."""
    states = tables.alert_states
    query = sa.select(sa.func.count()).where(
        states.c.phase == AlertPhase.FIRING.value, states.c.rule_group != RuleGroup.DELIVERY.value
    )
    return connection.execute(query).scalar_one()


def versions_by_registry(connection: sa.Connection) -> dict[str, int]:
    """How many versions each registry offers."""
    query = sa.select(_VERSIONS.c.registry, sa.func.count()).where(PRESENT).group_by(_VERSIONS.c.registry)
    return {registry: count for registry, count in connection.execute(query)}


def queue(connection: sa.Connection, most: int) -> Queue:
    """The scan queue, with at most ``most`` versions of each kind."""
    pending = sa.and_(_VERSIONS.c.state == VersionState.PENDING.value, PRESENT)
    undecided = sa.and_(PRESENT, _VERSIONS.c.verdict == Verdict.UNDECIDED.value)
    # Their numbers come from the index of what is present: the rows of all versions are many.
    numbers = sorted(connection.execute(sa.select(_VERSIONS.c.id).where(undecided)).scalars(), reverse=True)
    newest = sa.select(*_NAMES).where(_VERSIONS.c.id.in_(numbers[:most])).order_by(_VERSIONS.c.id.desc())
    return Queue(
        waiting=_count(connection, pending),
        oldest=oldest_waiting(connection),
        running=_queued(connection, _VERSIONS.c.state == VersionState.SCANNING.value, most),
        retrying=_queued(connection, sa.and_(pending, _VERSIONS.c.attempts > 0), most),
        unexamined=len(numbers),
        last_unexamined=tuple(_unexamined(connection, row) for row in connection.execute(newest).all()),
    )


def receivers(connection: sa.Connection, names: Sequence[str], now: datetime) -> dict[str, ReceiverState]:
    """What the outbox knows of these receivers."""
    backlogs = {one.receiver: one for one in outbox.backlogs(connection)}
    given_up = {one.receiver: one for one in outbox.given_up(connection, now)}
    return {name: _receiver(connection, name, backlogs.get(name), given_up.get(name)) for name in names}


def _count(connection: sa.Connection, which: sa.ColumnElement[bool]) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(_VERSIONS).where(which)).scalar_one()


def _queued(connection: sa.Connection, which: sa.ColumnElement[bool], most: int) -> tuple[QueuedVersion, ...]:
    query = sa.select(*_NAMES).where(which).order_by(_VERSIONS.c.not_before, _VERSIONS.c.id).limit(most)
    return tuple(
        QueuedVersion(row.id, _key(row), row.attempts, row.not_before) for row in connection.execute(query)
    )


def _unexamined(connection: sa.Connection, row: sa.Row[Any]) -> Unexamined:
    found = connection.execute(
        sa.select(_FINDINGS.c.layer, _FINDINGS.c.message, _FINDINGS.c.evidence)
        .where(_FINDINGS.c.version_id == row.id, _FINDINGS.c.rule_group == RuleGroup.EXAMINATION.value)
        .order_by(_FINDINGS.c.position)
        .limit(1)
    ).first()
    if found is None:
        return Unexamined(_key(row), row.fingerprint, row.judged_at, None, "", "")
    reason = str(found.evidence.get("reason", ""))
    return Unexamined(_key(row), row.fingerprint, row.judged_at, found.layer, reason, found.message)


def _receiver(
    connection: sa.Connection, name: str, backlog: Backlog | None, given_up: GivenUp | None
) -> ReceiverState:
    delivered_at = connection.execute(
        sa.select(sa.func.max(_OUTBOX.c.delivered_at, type_=_OUTBOX.c.delivered_at.type)).where(
            _OUTBOX.c.receiver == name, _OUTBOX.c.delivered_at.is_not(None)
        )
    ).scalar()
    if backlog is None:
        return ReceiverState(given_up=given_up, delivered_at=delivered_at)
    first = connection.execute(
        sa.select(_OUTBOX.c.error_reason, _OUTBOX.c.error_detail, _OUTBOX.c.next_attempt_at)
        .where(_WAITING, _OUTBOX.c.receiver == name)
        .order_by(_OUTBOX.c.id)
        .limit(1)
    ).one()
    reason = None if first.error_reason is None else DeliveryReason(first.error_reason)
    return ReceiverState(backlog, given_up, delivered_at, reason, first.error_detail, first.next_attempt_at)


def _key(row: sa.Row[Any]) -> VersionKey:
    return VersionKey(row.registry, row.model, row.version)

"""States of alerts, and the outbox of events on their way to receivers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.model import AlertIdentity, AlertPhase, AlertState
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.metrics.findings import RuleGroup, Severity

_STATES = tables.alert_states
_OUTBOX = tables.outbox

_WAITING = sa.and_(_OUTBOX.c.delivered_at.is_(None), _OUTBOX.c.dead_at.is_(None))


class OutboxStatus(StrEnum):
    """Where an event for one receiver is: to be sent, delivered, or given up."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """An outbox row as an operator sees it.

    Attributes:
        entry: what is sent, and the failed attempts so far.
        delivered_at: when the receiver took it, or None.
        dead_at: when it was given up, or None.
        failed_at: when the last failed attempt was, or None.
        error_reason, error_detail: of the last failure, or None.
    """

    entry: OutboxEntry
    delivered_at: datetime | None
    dead_at: datetime | None
    failed_at: datetime | None
    error_reason: DeliveryReason | None
    error_detail: str | None

    @property
    def status(self) -> OutboxStatus:
        """Where it is now."""
        if self.delivered_at is not None:
            return OutboxStatus.DELIVERED
        return OutboxStatus.WAITING if self.dead_at is None else OutboxStatus.DEAD


def load_state(connection: sa.Connection, identity: AlertIdentity) -> AlertState | None:
    """The state of one alert, or None when it never fired."""
    row = connection.execute(sa.select(_STATES).where(*_of_identity(identity))).first()
    return None if row is None else _to_state(row)


def save_state(connection: sa.Connection, state: AlertState) -> None:
    """Keep the state of one alert in place of the earlier one."""
    values = {
        "phase": state.phase.value,
        "episode": state.episode,
        "version": state.version,
        "fingerprint": state.fingerprint,
        "severity": state.severity.value,
        "layers": list(state.layers),
        "started_at": state.started_at,
        "notified_at": state.notified_at,
        "sequence": state.sequence,
    }
    identity = state.identity
    updated = connection.execute(sa.update(_STATES).where(*_of_identity(identity)).values(**values))
    if updated.rowcount == 0:
        connection.execute(
            sa.insert(_STATES).values(
                registry=identity.registry,
                model=identity.model,
                ref=identity.ref,
                rule_group=identity.group.value,
                **values,
            )
        )


def list_states(
    connection: sa.Connection,
    phase: AlertPhase | None = None,
    registry: str | None = None,
    model: str | None = None,
) -> list[AlertState]:
    """All alert states that match, sorted by identity."""
    query = sa.select(_STATES).order_by(
        _STATES.c.registry, _STATES.c.model, _STATES.c.ref, _STATES.c.rule_group
    )
    if phase is not None:
        query = query.where(_STATES.c.phase == phase.value)
    if registry is not None:
        query = query.where(_STATES.c.registry == registry)
    if model is not None:
        query = query.where(_STATES.c.model == model)
    return [_to_state(row) for row in connection.execute(query)]


def enqueue(connection: sa.Connection, event_id: str, receiver: str, payload: str, now: datetime) -> bool:
    """Queue an event for a receiver, due at once. One that is there already, in whatever state, stays as it is.

    Returns:
        True when it is new.
    """
    query = sa.select(_OUTBOX.c.id).where(_OUTBOX.c.event_id == event_id, _OUTBOX.c.receiver == receiver)
    if connection.execute(query).first() is not None:
        return False
    connection.execute(
        sa.insert(_OUTBOX).values(
            event_id=event_id,
            receiver=receiver,
            payload=payload,
            created_at=now,
            attempts=0,
            next_attempt_at=now,
        )
    )
    return True


def oldest_undelivered(connection: sa.Connection) -> datetime | None:
    """When the oldest event that is still to be delivered was queued; None when none is. Dead ones do not count."""
    oldest: datetime | None = connection.execute(
        sa.select(sa.func.min(_OUTBOX.c.created_at)).where(_WAITING)
    ).scalar()
    return oldest


def list_outbox(
    connection: sa.Connection, limit: int = 100, status: OutboxStatus | None = None
) -> list[OutboxRecord]:
    """The latest events, latest first, at most ``limit``; only those with ``status`` unless that is None."""
    query = sa.select(_OUTBOX).order_by(_OUTBOX.c.id.desc()).limit(limit)
    if status is OutboxStatus.WAITING:
        query = query.where(_WAITING)
    elif status is OutboxStatus.DELIVERED:
        query = query.where(_OUTBOX.c.delivered_at.is_not(None))
    elif status is OutboxStatus.DEAD:
        query = query.where(_OUTBOX.c.dead_at.is_not(None))
    return [_to_outbox_record(row) for row in connection.execute(query)]


def replay(connection: sa.Connection, entry_id: int, now: datetime) -> None:
    """Queue a dead event again, due at once, with its attempts forgotten and its id unchanged.

    Raises:
        StoreError: ``not_found``; ``wrong_state`` when it is not dead.
    """
    row = connection.execute(sa.select(_OUTBOX.c.dead_at).where(_OUTBOX.c.id == entry_id)).first()
    if row is None:
        raise StoreError(StoreReason.NOT_FOUND, f"there is no event {entry_id} in the outbox")
    if row.dead_at is None:
        detail = f"event {entry_id} was not given up: it is delivered or still being tried"
        raise StoreError(StoreReason.WRONG_STATE, detail)
    # The age limit of receivers counts from created_at; without a new one it would be given up at once.
    _update(connection, entry_id, dead_at=None, attempts=0, next_attempt_at=now, created_at=now)


class DatabaseOutbox:
    """The dispatcher's view of the outbox (`layerwatch.alerts.outbox.Outbox`); one transaction for each call.

    Marks apply to events that are still to be delivered; on others they change nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, now: datetime, limit: int) -> list[OutboxEntry]:
        """Entries whose next attempt is not after ``now``, lowest id first, at most ``limit``."""
        query = sa.select(_OUTBOX).where(_WAITING, _OUTBOX.c.next_attempt_at <= now)
        with self._database.read() as connection:
            return [_to_entry(row) for row in connection.execute(query.order_by(_OUTBOX.c.id).limit(limit))]

    def mark_delivered(self, entry_id: int, now: datetime) -> None:
        """The receiver has it; never due again."""
        with self._database.write() as connection:
            _update(connection, entry_id, _WAITING, delivered_at=now)

    def mark_failed(
        self, entry_id: int, now: datetime, next_attempt_at: datetime, reason: DeliveryReason, detail: str
    ) -> None:
        """One more attempt failed: adds one to ``attempts`` and makes it due again at ``next_attempt_at``."""
        with self._database.write() as connection:
            _update(
                connection,
                entry_id,
                _WAITING,
                attempts=_OUTBOX.c.attempts + 1,
                next_attempt_at=next_attempt_at,
                failed_at=now,
                error_reason=reason.value,
                error_detail=detail,
            )

    def mark_dead(self, entry_id: int, now: datetime, reason: DeliveryReason, detail: str) -> None:
        """Given up: never due again by itself, kept for the operator to see and replay."""
        error = {"error_reason": reason.value, "error_detail": detail}
        with self._database.write() as connection:
            _update(connection, entry_id, _WAITING, dead_at=now, **error)


def _update(
    connection: sa.Connection, entry_id: int, *conditions: sa.ColumnElement[bool], **values: Any
) -> None:
    connection.execute(sa.update(_OUTBOX).where(_OUTBOX.c.id == entry_id, *conditions).values(**values))


def _of_identity(identity: AlertIdentity) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _STATES.c.registry == identity.registry,
        _STATES.c.model == identity.model,
        _STATES.c.ref == identity.ref,
        _STATES.c.rule_group == identity.group.value,
    )


def _to_state(row: sa.Row[Any]) -> AlertState:
    return AlertState(
        identity=AlertIdentity(row.registry, row.model, row.ref, RuleGroup(row.rule_group)),
        phase=AlertPhase(row.phase),
        episode=row.episode,
        version=row.version,
        fingerprint=row.fingerprint,
        severity=Severity(row.severity),
        layers=tuple(row.layers),
        started_at=row.started_at,
        notified_at=row.notified_at,
        sequence=row.sequence,
    )


def _to_entry(row: sa.Row[Any]) -> OutboxEntry:
    return OutboxEntry(
        id=row.id,
        event_id=row.event_id,
        receiver=row.receiver,
        payload=row.payload,
        created_at=row.created_at,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
    )


def _to_outbox_record(row: sa.Row[Any]) -> OutboxRecord:
    return OutboxRecord(
        entry=_to_entry(row),
        delivered_at=row.delivered_at,
        dead_at=row.dead_at,
        failed_at=row.failed_at,
        error_reason=None if row.error_reason is None else DeliveryReason(row.error_reason),
        error_detail=row.error_detail,
    )

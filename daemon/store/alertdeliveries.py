"""Where the latest messages about alerts are: delivered, waiting, or given up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.model import AlertIdentity
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.outbox import OutboxStatus
from layerwatch.metrics.findings import RuleGroup

_TOLD = tables.alert_told
_OUTBOX = tables.outbox
_IDENTITY = tuple(_TOLD.c[name] for name in ("registry", "model", "ref", "rule_group"))
_WAITING = sa.and_(_OUTBOX.c.delivered_at.is_(None), _OUTBOX.c.dead_at.is_(None))
_COLUMNS = tuple(column for column in _OUTBOX.c if column.name != "payload")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message about a group of alerts, on its way to a receiver.

    Attributes:
        id: number of the event in the outbox.
        attempts: that failed.
        next_attempt_at: not before this time, while it waits.
        settled_at: when it was delivered or given up; None while it waits.
        error_reason, error_detail: of the last failure, or None.
    """

    id: int
    receiver: str
    status: OutboxStatus
    attempts: int
    next_attempt_at: datetime
    settled_at: datetime | None
    error_reason: DeliveryReason | None
    error_detail: str | None


def deliveries_of(
    connection: sa.Connection, identities: Collection[AlertIdentity]
) -> dict[AlertIdentity, list[Delivery]]:
    """The message about each alert that says most of how things are, one for each receiver, sorted by receiver.

    That is the first one that waits, since those behind it wait for it, or else the last one. Alerts that nobody was
    told of are left out.
    """
    groups: dict[AlertIdentity, list[tuple[str, str]]] = {}
    for chunk in chunks(identities):
        wanted = [(one.registry, one.model, one.ref, one.group.value) for one in chunk]
        query = (
            sa.select(*_IDENTITY, _TOLD.c.receiver, _TOLD.c.group_key)
            .where(sa.tuple_(*_IDENTITY).in_(wanted))
            .order_by(_TOLD.c.receiver)
        )
        for row in connection.execute(query):
            identity = AlertIdentity(row.registry, row.model, row.ref, RuleGroup(row.rule_group))
            groups.setdefault(identity, []).append((row.group_key, row.receiver))
    latest = _latest(connection, {stream for found in groups.values() for stream in found})
    told = {
        identity: [latest[stream] for stream in found if stream in latest]
        for identity, found in groups.items()
    }
    return {identity: found for identity, found in told.items() if found}


def _latest(
    connection: sa.Connection, streams: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Delivery]:
    """By (stream, receiver)."""
    last = _chosen(connection, sa.func.max(_OUTBOX.c.id), _OUTBOX.c.stream.is_not(None), streams)
    held_up = {stream for stream, one in last.items() if one.status is OutboxStatus.WAITING}
    return {**last, **_chosen(connection, sa.func.min(_OUTBOX.c.id), _WAITING, held_up)}


def _chosen(
    connection: sa.Connection,
    which: sa.ColumnElement[int],
    among: sa.ColumnElement[bool],
    streams: Collection[tuple[str, str]],
) -> dict[tuple[str, str], Delivery]:
    found = {}
    for chunk in chunks(sorted(streams)):
        # SQLite finds pairs by no index: their parts it does.
        ids = (
            sa.select(which)
            .where(
                among,
                _OUTBOX.c.stream.is_not(None),
                _OUTBOX.c.stream.in_({stream for stream, _ in chunk}),
                _OUTBOX.c.receiver.in_({receiver for _, receiver in chunk}),
            )
            .group_by(_OUTBOX.c.stream, _OUTBOX.c.receiver)
        )
        for row in connection.execute(sa.select(*_COLUMNS).where(_OUTBOX.c.id.in_(ids))):
            found[row.stream, row.receiver] = _delivery(row)
    return {stream: found[stream] for stream in streams if stream in found}


def _delivery(row: sa.Row[Any]) -> Delivery:
    status = OutboxStatus.WAITING if row.dead_at is None else OutboxStatus.DEAD
    return Delivery(
        id=row.id,
        receiver=row.receiver,
        status=OutboxStatus.DELIVERED if row.delivered_at is not None else status,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        settled_at=row.delivered_at or row.dead_at,
        error_reason=None if row.error_reason is None else DeliveryReason(row.error_reason),
        error_detail=row.error_detail,
    )

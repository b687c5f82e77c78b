"""The outbox: events on their way to receivers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.outbox import OutboxEntry, Result
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.upserts import insert_missing

_OUTBOX = tables.outbox

_WAITING = sa.and_(_OUTBOX.c.delivered_at.is_(None), _OUTBOX.c.dead_at.is_(None))

CLAIM = timedelta(minutes=10)
"""A claim that is older belongs to a daemon that is gone."""


class OutboxStatus(StrEnum):
    """Where an event for one receiver is: to be sent, delivered, or given up."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An event for one receiver, to be queued; fields as of `OutboxEntry`."""

    event_id: str
    receiver: str
    payload: str
    stream: str


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


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one receiver."""

    receiver: str
    waiting: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Events that one receiver never took, since it last took one.

    Attributes:
        events: how many.
        first: when the first of them was given up.
        reason, detail: of the latest.
    """

    receiver: str
    events: int
    first: datetime
    reason: DeliveryReason
    detail: str


def enqueue(
    connection: sa.Connection,
    event_id: str,
    receiver: str,
    payload: str,
    now: datetime,
    stream: str | None = None,
) -> bool:
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
            stream=stream,
        )
    )
    return True


def enqueue_all(connection: sa.Connection, entries: Iterable[NewEntry], now: datetime) -> None:
    """Queue events, as `enqueue` does each."""
    rows = [
        {
            "event_id": one.event_id,
            "receiver": one.receiver,
            "payload": one.payload,
            "created_at": now,
            "attempts": 0,
            "next_attempt_at": now,
            "stream": one.stream,
        }
        for one in entries
    ]
    insert_missing(connection, _OUTBOX, rows, ("event_id", "receiver"))


def backlogs(connection: sa.Connection) -> list[Backlog]:
    """What waits, by receiver; receivers for which nothing waits are left out."""
    query = (
        sa.select(_OUTBOX.c.receiver, sa.func.count(), sa.func.min(_OUTBOX.c.created_at))
        .where(_WAITING)
        .group_by(_OUTBOX.c.receiver)
        .order_by(_OUTBOX.c.receiver)
    )
    return [Backlog(*row) for row in connection.execute(query)]


def given_up(connection: sa.Connection, now: datetime) -> list[GivenUp]:
    """Receivers that did not take events which were given up, and have taken none since.

    Times that lie in the future, left by a clock that was set back, count for nothing.
    """
    found = []
    dead = _OUTBOX.c.dead_at.is_not(None)
    for receiver in connection.execute(sa.select(_OUTBOX.c.receiver).where(dead).distinct()).scalars():
        of_receiver = _OUTBOX.c.receiver == receiver
        last_taken = connection.execute(
            sa.select(sa.func.max(_OUTBOX.c.delivered_at)).where(of_receiver, _OUTBOX.c.delivered_at <= now)
        ).scalar()
        since = [dead, of_receiver, _OUTBOX.c.dead_at <= now]
        if last_taken is not None:
            # Results of one moment are recorded together: the last of them may be the one that was given up.
            since.append(_OUTBOX.c.dead_at >= last_taken)
        count, first = connection.execute(
            sa.select(sa.func.count(), sa.func.min(_OUTBOX.c.dead_at)).where(*since)
        ).one()
        if not count:
            continue
        latest = connection.execute(
            sa.select(_OUTBOX.c.error_reason, _OUTBOX.c.error_detail)
            .where(*since)
            .order_by(_OUTBOX.c.dead_at.desc())
            .limit(1)
        ).one()
        reason = DeliveryReason(latest.error_reason or DeliveryReason.UNEXPECTED)
        found.append(GivenUp(receiver, count, first, reason, latest.error_detail or ""))
    return sorted(found, key=lambda one: one.receiver)


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

    Where its group has had later events, the last of them is sent once more behind it: it says how things are now.

    Raises:
        StoreError: ``not_found``; ``wrong_state`` when it is not dead.
    """
    row = connection.execute(sa.select(_OUTBOX.c.dead_at).where(_OUTBOX.c.id == entry_id)).first()
    if row is None:
        raise StoreError(StoreReason.NOT_FOUND, f"there is no event {entry_id} in the outbox")
    if row.dead_at is None:
        detail = f"event {entry_id} was not given up: it is delivered or still being tried"
        raise StoreError(StoreReason.WRONG_STATE, detail)
    _revive(connection, _OUTBOX.c.id == entry_id, now)


def replay_all(connection: sa.Connection, receiver: str, now: datetime) -> int:
    """Queue all dead events of a receiver again, as `replay` does; how many."""
    return _revive(connection, sa.and_(_OUTBOX.c.receiver == receiver, _OUTBOX.c.dead_at.is_not(None)), now)


def give_up_others(connection: sa.Connection, receivers: Collection[str], now: datetime) -> dict[str, int]:
    """Give up what waits for receivers that are not among these; how many, by receiver."""
    others = [one.receiver for one in backlogs(connection) if one.receiver not in receivers]
    found = {}
    for receiver in others:
        found[receiver] = connection.execute(
            sa.update(_OUTBOX)
            .where(_WAITING, _OUTBOX.c.receiver == receiver)
            .values(
                dead_at=now,
                error_reason=DeliveryReason.RECEIVER_REMOVED.value,
                error_detail=f"receiver {receiver} is no longer configured",
            )
        ).rowcount
    return found


class DatabaseOutbox:
    """The dispatcher's view of the outbox (`layerwatch.alerts.outbox.Outbox`).

    Claims are made by compare-and-set, so that two daemons on one database do not send the same event at the same time;
    where it happens all the same (one was cut off while it sent), both send it under the same id.

    Args:
        owner: names this process among those that may claim.
    """

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner

    def release_all(self) -> None:
        """End every claim: call when no other daemon can be sending."""
        with self._database.write() as connection:
            _free(connection, _OUTBOX.c.claimed_by.is_not(None))

    def claim(self, receiver: str, now: datetime, limit: int) -> list[OutboxEntry]:
        """See `Outbox.claim`."""
        # A time of the last attempt, or of the event, that lies ahead was set by a clock that has been set back.
        tried_at = sa.func.coalesce(_OUTBOX.c.failed_at, _OUTBOX.c.created_at)
        due = sa.or_(_OUTBOX.c.next_attempt_at <= now, tried_at > now)
        # One thread serves a receiver: what this process claimed and did not settle, it has lost.
        taken = sa.and_(
            _OUTBOX.c.claimed_by.is_not(None),
            _OUTBOX.c.claimed_by != self._owner,
            _OUTBOX.c.claimed_at > now - CLAIM,
            _OUTBOX.c.claimed_at <= now,
        )
        free = sa.or_(_OUTBOX.c.claimed_by.is_(None), ~taken)
        # Streams are looked up by what few of their entries are: never entry against entry.
        in_stream = (_WAITING, _OUTBOX.c.receiver == receiver, _OUTBOX.c.stream.is_not(None))
        held_up = sa.union_all(
            sa.select(_OUTBOX.c.stream).where(*in_stream, _OUTBOX.c.next_attempt_at > now, tried_at <= now),
            sa.select(_OUTBOX.c.stream).where(*in_stream, taken),
        )
        in_order = sa.or_(_OUTBOX.c.stream.is_(None), _OUTBOX.c.stream.not_in(held_up))
        query = (
            sa.select(_OUTBOX)
            .where(_WAITING, _OUTBOX.c.receiver == receiver, due, free, in_order)
            .order_by(_OUTBOX.c.id)
            .limit(limit)
        )
        with self._database.read() as connection:
            # Most looks find nothing, and need not wait for the one writer.
            if connection.execute(query.limit(1)).first() is None:
                return []
        with self._database.write() as connection:
            rows = connection.execute(query).all()
            for chunk in chunks([row.id for row in rows]):
                connection.execute(
                    sa.update(_OUTBOX)
                    .where(_OUTBOX.c.id.in_(chunk), free)
                    .values(claimed_by=self._owner, claimed_at=now)
                )
        return [_to_entry(row) for row in rows]

    def settle(self, results: Sequence[Result], now: datetime) -> None:
        """See `Outbox.settle`."""
        delivered = [one.entry_id for one in results if one.error is None]
        with self._database.write() as connection:
            for chunk in chunks(delivered):
                _update(connection, _OUTBOX.c.id.in_(chunk), delivered_at=now)
            for one in results:
                if one.error is None:
                    continue
                reason, detail = one.error
                values: dict[str, Any] = {"error_reason": reason.value, "error_detail": detail}
                if one.next_attempt_at is None:
                    values["dead_at"] = now
                else:
                    values |= {"attempts": _OUTBOX.c.attempts + 1, "failed_at": now}
                    values["next_attempt_at"] = one.next_attempt_at
                _update(connection, _OUTBOX.c.id == one.entry_id, **values)

    def release(self, entry_ids: Sequence[int]) -> None:
        """See `Outbox.release`."""
        with self._database.write() as connection:
            for chunk in chunks(entry_ids):
                _free(connection, _OUTBOX.c.id.in_(chunk))

    def hurry(self, receiver: str, now: datetime) -> None:
        """See `Outbox.hurry`."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(_OUTBOX)
                .where(_WAITING, _OUTBOX.c.receiver == receiver, _OUTBOX.c.next_attempt_at > now)
                .values(next_attempt_at=now)
            )

    def expire(self, receiver: str, created_before: datetime, now: datetime, detail: str) -> int:
        """See `Outbox.expire`."""
        old = sa.and_(_WAITING, _OUTBOX.c.receiver == receiver, _OUTBOX.c.created_at < created_before)
        with self._database.read() as connection:
            if connection.execute(sa.select(_OUTBOX.c.id).where(old).limit(1)).first() is None:
                return 0
        with self._database.write() as connection:
            return connection.execute(
                sa.update(_OUTBOX)
                .where(old)
                .values(dead_at=now, error_reason=DeliveryReason.EXPIRED.value, error_detail=detail)
            ).rowcount


def _update(connection: sa.Connection, which: sa.ColumnElement[bool], **values: Any) -> None:
    """What is delivered or dead stays as it is."""
    connection.execute(
        sa.update(_OUTBOX).where(which, _WAITING).values(claimed_by=None, claimed_at=None, **values)
    )


def _free(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    connection.execute(sa.update(_OUTBOX).where(which).values(claimed_by=None, claimed_at=None))


def _revive(connection: sa.Connection, which: sa.ColumnElement[bool], now: datetime) -> int:
    """Queue dead events again; behind those of a group that has had later ones also the last of these.

    A receiver that keeps no count of its own would otherwise be left with what was true long ago.
    """
    dead = connection.execute(
        sa.select(_OUTBOX.c.id, _OUTBOX.c.receiver, _OUTBOX.c.stream).where(
            which, _OUTBOX.c.dead_at.is_not(None)
        )
    ).all()
    again = {row.id for row in dead}
    for receiver, stream in {(row.receiver, row.stream) for row in dead if row.stream is not None}:
        last = connection.execute(
            sa.select(sa.func.max(_OUTBOX.c.id)).where(
                _OUTBOX.c.receiver == receiver,
                _OUTBOX.c.stream == stream,
                _OUTBOX.c.delivered_at.is_not(None),
            )
        ).scalar()
        if last is not None and last > min(row.id for row in dead if row.stream == stream):
            again.add(last)
    for chunk in chunks(sorted(again)):
        # The age limit of receivers counts from created_at; without a new one it would be given up at once.
        connection.execute(
            sa.update(_OUTBOX)
            .where(_OUTBOX.c.id.in_(chunk))
            .values(
                dead_at=None,
                delivered_at=None,
                attempts=0,
                next_attempt_at=now,
                created_at=now,
                failed_at=None,
                claimed_by=None,
                claimed_at=None,
            )
        )
    return len(dead)


def _to_entry(row: sa.Row[Any]) -> OutboxEntry:
    return OutboxEntry(
        id=row.id,
        event_id=row.event_id,
        receiver=row.receiver,
        payload=row.payload,
        created_at=row.created_at,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        stream=row.stream,
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

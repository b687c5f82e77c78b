"""Silences. One stays until `prune_silences`, so that people can see who held back what."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.alerts.people import checked_name
from layerwatch.alerts.silences import NewSilence, Silence, SilenceState
from layerwatch.config.matchers import MatcherError, parsed
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.errors import StoreError, StoreReason

_LOGGER = logging.getLogger(__name__)
_SILENCES = tables.silences


def add(connection: sa.Connection, new: NewSilence, now: datetime) -> Silence:
    """Keep a silence under a number of its own."""
    row_id = connection.execute(
        sa.insert(_SILENCES)
        .values(
            matchers=[str(matcher) for matcher in new.matchers],
            author=new.author,
            reason=new.reason,
            created_at=now,
            starts_at=new.starts_at,
            ends_at=new.ends_at,
        )
        .returning(_SILENCES.c.id)
    ).scalar_one()
    return get(connection, row_id)


def get(connection: sa.Connection, silence_id: int) -> Silence:
    """The silence with this number.

    Raises:
        StoreError: ``not_found``; ``damaged_record`` when its matchers cannot be read.
    """
    row = connection.execute(sa.select(_SILENCES).where(_SILENCES.c.id == silence_id)).first()
    if row is None:
        detail = f"there is no silence {silence_id}; layerwatch silence list --all shows those there are"
        raise StoreError(StoreReason.NOT_FOUND, detail)
    try:
        return _to_silence(row)
    except MatcherError as error:
        detail = f"the matchers of silence {silence_id} cannot be read: {error}"
        raise StoreError(StoreReason.DAMAGED_RECORD, detail) from None


def list_(
    connection: sa.Connection, now: datetime, states: Collection[SilenceState] = tuple(SilenceState)
) -> list[Silence]:
    """The silences that are in one of these states now, latest first.

    One whose matchers cannot be read is left out and logged: it holds back nothing, rather than that nobody is told of
    anything.
    """
    query = sa.select(_SILENCES).order_by(_SILENCES.c.id.desc())
    if SilenceState.EXPIRED not in states:
        query = query.where(_SILENCES.c.expired_at.is_(None), _SILENCES.c.ends_at > now)
    found = []
    for row in connection.execute(query):
        try:
            silence = _to_silence(row)
        except MatcherError as error:
            _LOGGER.warning("silence %d cannot be read and holds back nothing: %s", row.id, error)
            continue
        if silence.state(now) in states:
            found.append(silence)
    return found


def active(connection: sa.Connection, now: datetime) -> list[Silence]:
    """The silences that hold back alerts now, latest first."""
    return list_(connection, now, (SilenceState.ACTIVE,))


def expire(connection: sa.Connection, silence_id: int, by: str, now: datetime) -> Silence:
    """End a silence, or call off one that has not begun.

    Args:
        by: who does.

    Raises:
        EntryError: when ``by`` is blank or too long.
        StoreError: ``not_found``; ``wrong_state`` when it is over already.
    """
    by = checked_name(by, "by")
    silence = get(connection, silence_id)
    if silence.state(now) is SilenceState.EXPIRED:
        raise StoreError(StoreReason.WRONG_STATE, f"silence {silence_id} is over already")
    connection.execute(
        sa.update(_SILENCES).where(_SILENCES.c.id == silence_id).values(expired_at=now, expired_by=by)
    )
    return get(connection, silence_id)


def prune_silences(connection: sa.Connection, before: datetime) -> int:
    """Remove the silences that were over before this time.

    Returns:
        How many.
    """
    over = sa.func.coalesce(_SILENCES.c.expired_at, _SILENCES.c.ends_at, type_=_SILENCES.c.ends_at.type)
    return connection.execute(sa.delete(_SILENCES).where(over < before)).rowcount


def _to_silence(row: sa.Row[Any]) -> Silence:
    return Silence(
        id=row.id,
        matchers=parsed(row.matchers),
        author=row.author,
        reason=row.reason,
        created_at=row.created_at,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        expired_at=row.expired_at,
        expired_by=row.expired_by,
    )

"""Who changed what, when, in whose name and why. Entries are written with what they tell of, and only ever added."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import tables

_LOG = tables.audit_log


class Authentication(StrEnum):
    """How somebody was known: the server's token, a trusted proxy, or an account on the daemon's machine."""

    TOKEN = "token"
    PROXY = "proxy"
    COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something.

    Attributes:
        name: as the proxy or the system says; with a token, as they say themselves.
    """

    name: str
    authentication: Authentication


class Action(StrEnum):
    """What people can do."""

    SILENCE = "silence"
    EXPIRE = "expire"
    ACKNOWLEDGE = "acknowledge"
    UNACKNOWLEDGE = "unacknowledge"
    ACCEPT = "accept"
    PIN = "pin"
    UNPIN = "unpin"
    RESCAN = "rescan"
    REPLAY = "replay"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done.

    Attributes:
        outcome: what came of it, in words.
        registry, model, version: what it is about, as far as there is such.
        subject: what else: the number of a silence or an event, the id of an alert, a receiver.
        reason: in the words of whoever did it; None where none is asked for.
    """

    at: datetime
    actor: Actor
    action: Action
    outcome: str
    registry: str | None = None
    model: str | None = None
    version: str | None = None
    subject: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A kept entry and its number."""

    id: int
    entry: AuditEntry


def add(connection: sa.Connection, entry: AuditEntry) -> None:
    """Keep an entry, in the transaction that does what it tells of."""
    connection.execute(
        sa.insert(_LOG).values(
            at=entry.at,
            actor=entry.actor.name,
            authentication=entry.actor.authentication.value,
            action=entry.action.value,
            registry=entry.registry,
            model=entry.model,
            version=entry.version,
            subject=entry.subject,
            reason=entry.reason,
            outcome=entry.outcome,
        )
    )


def list_(connection: sa.Connection, limit: int, before: int | None = None) -> list[AuditRecord]:
    """The latest entries, latest first.

    Args:
        limit: at most this many.
        before: only entries with a smaller number, to go on after the last one of the list before.
    """
    query = sa.select(_LOG).order_by(_LOG.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(_LOG.c.id < before)
    return [_to_record(row) for row in connection.execute(query)]


def prune_audit_log(connection: sa.Connection, before: datetime) -> int:
    """Remove older entries; how many."""
    return connection.execute(sa.delete(_LOG).where(_LOG.c.at < before)).rowcount


def _to_record(row: sa.Row[Any]) -> AuditRecord:
    entry = AuditEntry(
        at=row.at,
        actor=Actor(row.actor, Authentication(row.authentication)),
        action=Action(row.action),
        outcome=row.outcome,
        registry=row.registry,
        model=row.model,
        version=row.version,
        subject=row.subject,
        reason=row.reason,
    )
    return AuditRecord(row.id, entry)

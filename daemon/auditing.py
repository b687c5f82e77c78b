"""What the audit log tells of each thing that people do, by whichever way they do it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertState
from layerwatch.alerts.silences import Silence, shown
from layerwatch.daemon.store import auditlog
from layerwatch.daemon.store.auditlog import Action, Actor, AuditEntry
from layerwatch.daemon.store.records import BaselineKind, BaselineRecord, VersionRecord

_BASELINES = {
    BaselineKind.ACCEPTED: (Action.ACCEPT, "it is the accepted baseline"),
    BaselineKind.PINNED: (Action.PIN, "it is pinned as the baseline"),
    BaselineKind.UNPINNED: (Action.UNPIN, "it is pinned no more"),
}


def note_silence(connection: Connection, actor: Actor, silence: Silence, now: datetime) -> None:
    """Somebody keeps alerts silent."""
    matchers = ", ".join(map(shown, silence.matchers))
    outcome = f"silent from {_minute(silence.starts_at)} until {_minute(silence.ends_at)}: {matchers}"
    subject = f"silence {silence.id}"
    auditlog.add(
        connection, AuditEntry(now, actor, Action.SILENCE, outcome, subject=subject, reason=silence.reason)
    )


def note_end_of_silence(connection: Connection, actor: Actor, silence: Silence, now: datetime) -> None:
    """Somebody ends a silence before its time."""
    outcome = f"over instead of at {_minute(silence.ends_at)}: {', '.join(map(shown, silence.matchers))}"
    subject = f"silence {silence.id}"
    auditlog.add(connection, AuditEntry(now, actor, Action.EXPIRE, outcome, subject=subject))


def note_acknowledgement(connection: Connection, actor: Actor, state: AlertState, now: datetime) -> None:
    """Somebody takes an alert, or gives it back."""
    identity, taken = state.identity, state.acknowledgement
    entry = AuditEntry(
        now,
        actor,
        Action.ACKNOWLEDGE if taken else Action.UNACKNOWLEDGE,
        f"{taken.by} is on it" if taken else "nobody is on it any more",
        registry=identity.registry,
        model=identity.model,
        version=state.version,
        subject=f"{alert_id(identity, state.episode)} ({identity.ref}, {identity.group})",
        reason=taken.reason if taken else None,
    )
    auditlog.add(connection, entry)


def note_baseline(
    connection: Connection,
    actor: Actor,
    record: BaselineRecord,
    now: datetime,
    ended: Sequence[AlertState] = (),
) -> None:
    """Somebody accepts, pins or unpins a version.

    Args:
        ended: alerts that ended with it.
    """
    action, outcome = _BASELINES[record.kind]
    if ended:
        outcome += f"; {'1 alert' if len(ended) == 1 else f'{len(ended)} alerts'} ended"
    entry = AuditEntry(
        now,
        actor,
        action,
        outcome,
        registry=record.registry,
        model=record.model,
        version=record.version,
        subject=f"fingerprint {record.fingerprint}",
        reason=record.reason,
    )
    auditlog.add(connection, entry)


def note_rescan(
    connection: Connection, actor: Actor, version: VersionRecord, reason: str, now: datetime
) -> None:
    """Somebody wants a version to be examined again."""
    key = version.key
    entry = AuditEntry(
        now,
        actor,
        Action.RESCAN,
        "it waits for its scan",
        registry=key.registry,
        model=key.model,
        version=key.version,
        subject=f"fingerprint {version.fingerprint}",
        reason=reason,
    )
    auditlog.add(connection, entry)


def note_replay(connection: Connection, actor: Actor, what: str, events: int, now: datetime) -> None:
    """Somebody sends events again that were given up.

    Args:
        what: ``event NUMBER`` or ``receiver NAME``.
    """
    outcome = f"{events} {'event' if events == 1 else 'events'} queued again"
    auditlog.add(connection, AuditEntry(now, actor, Action.REPLAY, outcome, subject=what))


def note_reload(connection: Connection, actor: Actor, outcome: str, now: datetime) -> None:
    """Somebody loads the configuration again."""
    auditlog.add(connection, AuditEntry(now, actor, Action.RELOAD, outcome))


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")

"""States of alerts, their transitions, and what each receiver was told of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.alerts.grouping import Told
from layerwatch.alerts.model import (
    Acknowledgement,
    AlertIdentity,
    AlertPhase,
    AlertState,
    Pending,
    Transition,
    TransitionReason,
)
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.upserts import upsert
from layerwatch.metrics.findings import RuleGroup, Severity

_STATES = tables.alert_states
_TRANSITIONS = tables.alert_transitions
_TOLD = tables.alert_told
_GROUPS = tables.alert_groups
GroupIds = Mapping[tuple[str, AlertIdentity], str]
_NO_GROUPS: GroupIds = {}
_KEY = ("registry", "model", "ref", "rule_group")
_WITHOUT_TEXT = tuple(column for column in _STATES.c if column.name != "told")


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """Alerts that are told together: to whom, what they have in common, when they last were, and how often."""

    receiver: str
    labels: Mapping[str, Sequence[str]]
    told_at: datetime
    sequence: int


def load_state(connection: sa.Connection, identity: AlertIdentity) -> AlertState | None:
    """The state of one alert, or None when it never fired and does not wait to."""
    row = connection.execute(sa.select(_STATES).where(*_is(_STATES, identity))).first()
    return None if row is None else _to_state(row)


def save_state(connection: sa.Connection, state: AlertState) -> None:
    """Keep the state of one alert in place of the earlier one; what is told of it stays."""
    acknowledgement = state.acknowledgement
    values = {
        "phase": state.phase.value,
        "episode": state.episode,
        "version": state.version,
        "fingerprint": state.fingerprint,
        "severity": state.severity.value,
        "layers": list(state.layers),
        "started_at": state.started_at,
        "changed_at": state.changed_at,
        "sequence": state.sequence,
        "reason": state.reason.value,
        "event_id": state.event_id,
        "rules": list(state.rules),
        "pending": {"scan": state.pending.scan, "counts": dict(state.pending.counts)},
        "acknowledged_by": acknowledgement.by if acknowledgement else None,
        "acknowledged_at": acknowledgement.at if acknowledgement else None,
        "acknowledged_reason": acknowledgement.reason if acknowledgement else None,
    }
    identity = state.identity
    updated = connection.execute(sa.update(_STATES).where(*_is(_STATES, identity)).values(**values))
    if updated.rowcount == 0:
        connection.execute(sa.insert(_STATES).values(**_columns(identity), **values))


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


def firing_of(connection: sa.Connection, models: Iterable[tuple[str, str]]) -> list[AlertState]:
    """The firing alerts of some models, given as (registry, model)."""
    found: list[AlertState] = []
    for chunk in chunks(models):
        # SQLite uses no index for pairs.
        near = (
            _STATES.c.registry.in_({registry for registry, _ in chunk}),
            _STATES.c.model.in_({model for _, model in chunk}),
        )
        query = sa.select(*_WITHOUT_TEXT).where(*near, _STATES.c.phase == AlertPhase.FIRING.value)
        rows = connection.execute(query).all()
        found.extend(_to_state(row) for row in rows if (row.registry, row.model) in chunk)
    return found


def signature(connection: sa.Connection) -> tuple[object, ...]:
    """Another one when any alert changed or was acknowledged, whoever did it; cheap."""
    columns = (
        sa.func.count(),
        sa.func.sum(_STATES.c.sequence),
        sa.func.count(_STATES.c.told),
        sa.func.count(_STATES.c.acknowledged_at),
        sa.func.max(_STATES.c.acknowledged_at),
    )
    return tuple(connection.execute(sa.select(*columns).select_from(_STATES)).one())


def save_told(connection: sa.Connection, identity: AlertIdentity, told: str) -> None:
    """Keep what messages tell about an alert: JSON text of `layerwatch.alerts.payload.describe`."""
    connection.execute(sa.update(_STATES).where(*_is(_STATES, identity)).values(told=told))


def told_of(connection: sa.Connection, identity: AlertIdentity) -> str | None:
    """What messages tell about an alert; None while it never fired."""
    told: str | None = connection.execute(
        sa.select(_STATES.c.told).where(*_is(_STATES, identity))
    ).scalar_one_or_none()
    return told


def record_transition(connection: sa.Connection, transition: Transition) -> None:
    """Keep a transition, in the transaction that keeps its state. One that is there already stays as it is."""
    known = sa.select(_TRANSITIONS.c.id).where(_TRANSITIONS.c.event_id == transition.event_id)
    if connection.execute(known).first() is not None:
        return
    state = transition.state
    connection.execute(
        sa.insert(_TRANSITIONS).values(
            event_id=transition.event_id,
            **_columns(state.identity),
            sequence=state.sequence,
            episode=state.episode,
            phase=state.phase.value,
            reason=transition.reason.value,
            severity=state.severity.value,
            version=state.version,
            at=state.changed_at,
        )
    )


def transitions_of(
    connection: sa.Connection, identities: Collection[AlertIdentity]
) -> dict[AlertIdentity, list[tuple[int, str]]]:
    """(sequence, event id) of the transitions of each of these alerts, oldest first."""
    found: dict[AlertIdentity, list[tuple[int, str]]] = {identity: [] for identity in identities}
    for chunk in chunks(identities):
        query = sa.select(_TRANSITIONS).where(_among(_TRANSITIONS, chunk)).order_by(_TRANSITIONS.c.sequence)
        for row in connection.execute(query):
            found[_to_identity(row)].append((row.sequence, row.event_id))
    return found


def told_texts(connection: sa.Connection, identities: Collection[AlertIdentity]) -> dict[AlertIdentity, str]:
    """What is told of each of these alerts; those of which nothing is are left out."""
    found: dict[AlertIdentity, str] = {}
    for chunk in chunks(identities):
        query = sa.select(_STATES).where(_among(_STATES, chunk), _STATES.c.told.is_not(None))
        found.update({_to_identity(row): row.told for row in connection.execute(query)})
    return found


def to_be_told(connection: sa.Connection) -> list[AlertState]:
    """Alerts that fire, and those that a receiver believes to. Sorted by identity."""
    believed = sa.exists().where(
        _TOLD.c.firing,
        *(_TOLD.c[name] == _STATES.c[name] for name in _KEY),
    )
    query = (
        sa.select(*_WITHOUT_TEXT)
        .where(sa.or_(_STATES.c.phase == AlertPhase.FIRING.value, believed), _STATES.c.told.is_not(None))
        .order_by(_STATES.c.registry, _STATES.c.model, _STATES.c.ref, _STATES.c.rule_group)
    )
    return [_to_state(row) for row in connection.execute(query)]


def ended_since(connection: sa.Connection, moment: datetime) -> list[AlertState]:
    """Alerts that ended after a moment and were told of before."""
    query = sa.select(*_WITHOUT_TEXT).where(
        _STATES.c.phase == AlertPhase.RESOLVED.value,
        _STATES.c.changed_at > moment,
        _STATES.c.told.is_not(None),
    )
    return [_to_state(row) for row in connection.execute(query)]


def load_told(
    connection: sa.Connection, receiver: str | None = None
) -> dict[tuple[str, AlertIdentity], Told]:
    """(receiver, alert) -> how far the receiver was told of it; of one receiver, or of all."""
    query = sa.select(_TOLD)
    if receiver is not None:
        query = query.where(_TOLD.c.receiver == receiver)
    return {
        (row.receiver, _to_identity(row)): Told(row.sequence, row.firing, row.group_key)
        for row in connection.execute(query)
    }


def save_told_to(
    connection: sa.Connection, told: Iterable[tuple[str, AlertState]], group_ids: GroupIds = _NO_GROUPS
) -> None:
    """Note that receivers are told how alerts stand in these states.

    Args:
        group_ids: (receiver, alert) -> the group in whose event.
    """
    rows = {
        (receiver, state.identity): {
            "receiver": receiver,
            **_columns(state.identity),
            "sequence": state.sequence,
            "firing": state.phase is AlertPhase.FIRING,
            "group_key": group_ids.get((receiver, state.identity), ""),
        }
        for receiver, state in told
    }
    upsert(connection, _TOLD, list(rows.values()), ("receiver", *_KEY))


def close_told(connection: sa.Connection, closed: Iterable[tuple[str, AlertIdentity]]) -> None:
    """Note that receivers believe these alerts to be over, although they are not."""
    for receiver, identity in closed:
        connection.execute(
            sa.update(_TOLD).where(_TOLD.c.receiver == receiver, *_is(_TOLD, identity)).values(firing=False)
        )


def forget_receivers_but(connection: sa.Connection, receivers: Iterable[str]) -> None:
    """Forget what receivers were told that are no longer there."""
    connection.execute(sa.delete(_TOLD).where(_TOLD.c.receiver.not_in(list(receivers))))


def load_groups(connection: sa.Connection) -> dict[str, GroupRecord]:
    """Group id -> the group."""
    return {
        row.key: GroupRecord(row.receiver, row.labels, row.told_at, row.sequence)
        for row in connection.execute(sa.select(_GROUPS))
    }


def save_groups(connection: sa.Connection, groups: Mapping[str, GroupRecord]) -> None:
    """Keep when groups were told, and how often."""
    rows = [
        {
            "key": group_id,
            "receiver": record.receiver,
            "labels": {label: list(values) for label, values in record.labels.items()},
            "told_at": record.told_at,
            "sequence": record.sequence,
        }
        for group_id, record in groups.items()
    ]
    upsert(connection, _GROUPS, rows, ("key",))


def told_later(connection: sa.Connection, now: datetime) -> bool:
    """Whether a group was told at a time that lies in the future."""
    return (
        connection.execute(sa.select(_GROUPS.c.key).where(_GROUPS.c.told_at > now).limit(1)).first()
        is not None
    )


def turn_back(connection: sa.Connection, now: datetime) -> int:
    """Bring times of groups that lie in the future, left by a clock that was set back since, to now; how many."""
    late = sa.update(_GROUPS).where(_GROUPS.c.told_at > now).values(told_at=now)
    return connection.execute(late).rowcount


def prune_alerts(connection: sa.Connection, before: datetime) -> int:
    """Remove older transitions; how many. Groups stay: the numbers of their events go on rising."""
    return connection.execute(sa.delete(_TRANSITIONS).where(_TRANSITIONS.c.at < before)).rowcount


def _columns(identity: AlertIdentity) -> dict[str, str]:
    return {
        "registry": identity.registry,
        "model": identity.model,
        "ref": identity.ref,
        "rule_group": identity.group.value,
    }


def _among(table: sa.Table, identities: Sequence[AlertIdentity]) -> sa.ColumnElement[bool]:
    wanted = [tuple(_columns(identity).values()) for identity in identities]
    return sa.tuple_(*(table.c[name] for name in _KEY)).in_(wanted)


def _is(table: sa.Table, identity: AlertIdentity) -> tuple[sa.ColumnElement[bool], ...]:
    return tuple(table.c[name] == value for name, value in _columns(identity).items())


def _to_identity(row: sa.Row[Any]) -> AlertIdentity:
    return AlertIdentity(row.registry, row.model, row.ref, RuleGroup(row.rule_group))


def _to_state(row: sa.Row[Any]) -> AlertState:
    acknowledgement = None
    if row.acknowledged_at is not None:
        acknowledgement = Acknowledgement(
            row.acknowledged_by, row.acknowledged_at, row.acknowledged_reason or ""
        )
    counts = row.pending.get("counts", {})
    return AlertState(
        identity=_to_identity(row),
        phase=AlertPhase(row.phase),
        episode=row.episode,
        version=row.version,
        fingerprint=row.fingerprint,
        severity=Severity(row.severity),
        layers=tuple(row.layers),
        started_at=row.started_at,
        changed_at=row.changed_at,
        sequence=row.sequence,
        reason=TransitionReason(row.reason),
        event_id=row.event_id,
        rules=tuple(row.rules),
        pending=Pending(row.pending.get("scan", ""), tuple(sorted(counts.items()))),
        acknowledgement=acknowledgement,
    )

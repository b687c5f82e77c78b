"""Alerts that ended not long ago."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.alerts.model import AlertIdentity, AlertPhase, TransitionReason
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.alerthistory import Episode
from layerwatch.daemon.store.chunks import chunks
from layerwatch.metrics.findings import RuleGroup, Severity

_TRANSITIONS = tables.alert_transitions
_Key = tuple[str, str, str, str, int]


@dataclass(frozen=True, slots=True)
class EndedAlert:
    """An episode that is over, and why; ``episode.versions`` is empty where its beginning is not kept any more."""

    episode: Episode
    ended_at: datetime
    reason: TransitionReason


def ended_alerts(connection: sa.Connection, since: datetime, limit: int) -> list[EndedAlert]:
    """The alerts that ended after a moment, the last one first, at most ``limit``."""
    query = (
        sa.select(_TRANSITIONS)
        .where(_TRANSITIONS.c.phase == AlertPhase.RESOLVED.value, _TRANSITIONS.c.at > since)
        .order_by(_TRANSITIONS.c.at.desc(), _TRANSITIONS.c.id.desc())
        .limit(limit)
    )
    ends = connection.execute(query).all()
    begun = _begun(connection, [_key(row) for row in ends])
    return [_ended(row, begun.get(_key(row))) for row in ends]


def _begun(connection: sa.Connection, keys: Collection[_Key]) -> dict[_Key, Episode]:
    found: dict[_Key, Episode] = {}
    wanted = set(keys)
    for chunk in chunks(sorted({(registry, model) for registry, model, *_ in keys})):
        # SQLite finds pairs by no index: their parts it does, and the few rows too many are passed over here.
        query = (
            sa.select(_TRANSITIONS)
            .where(
                _TRANSITIONS.c.registry.in_({registry for registry, _ in chunk}),
                _TRANSITIONS.c.model.in_({model for _, model in chunk}),
            )
            .order_by(_TRANSITIONS.c.sequence)
        )
        for row in connection.execute(query):
            if row.phase != AlertPhase.FIRING.value or _key(row) not in wanted:
                continue
            severity = Severity(row.severity)
            known = found.setdefault(
                _key(row), Episode(_identity(row), row.episode, severity, (), began_at=row.at)
            )
            worst = max(known.severity, severity, key=lambda one: one.rank)
            found[_key(row)] = replace(known, severity=worst, versions=(*known.versions, row.version))
    return found


def _ended(row: sa.Row[Any], begun: Episode | None) -> EndedAlert:
    known = begun or Episode(_identity(row), row.episode, Severity(row.severity), (), began_at=row.at)
    episode = replace(known, ended_at=row.at, ended_with=row.version)
    return EndedAlert(episode, row.at, TransitionReason(row.reason))


def _key(row: sa.Row[Any]) -> _Key:
    return row.registry, row.model, row.ref, row.rule_group, row.episode


def _identity(row: sa.Row[Any]) -> AlertIdentity:
    return AlertIdentity(row.registry, row.model, row.ref, RuleGroup(row.rule_group))

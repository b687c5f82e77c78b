"""Since when something is wrong with a version: its alerts, and the version with which it began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from layerwatch.alerts.model import AlertIdentity, AlertPhase, AlertState
from layerwatch.daemon.store import alerts
from layerwatch.daemon.store.alerthistory import Failing, episodes, failing_since
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.web.decisions import Decisions

_MOST = 10


@dataclass(frozen=True, slots=True)
class AlertLine:
    """An alert that is, or was, about a version. Names are foreign, as are ``muted_by`` and ``taken_by``.

    Attributes:
        began_with: the version that it began with; None where that is not kept any more.
        ended_at, ended_with: both None while it fires.
        muted_by: why nobody is told of it now, or None.
        taken_by: who looks after it, or None.
    """

    group: str
    ref: str
    severity: str
    began_at: datetime
    began_with: str | None
    ended_at: datetime | None = None
    ended_with: str | None = None
    muted_by: str | None = None
    taken_by: str | None = None


@dataclass(frozen=True, slots=True)
class Since:
    """Everything that is known about since when; ``alerts`` with those that fire first, at most ten."""

    alerts: tuple[AlertLine, ...]
    failing: Failing | None

    @property
    def firing(self) -> AlertLine | None:
        """The first alert about the version that fires now."""
        return next((one for one in self.alerts if one.ended_at is None), None)


def since_of(connection: Connection, version: VersionRecord, decisions: Decisions) -> Since:
    """The alerts that are or were about a version, and since which version its model fails."""
    key = version.key
    states = [
        one
        for one in alerts.list_states(connection, AlertPhase.FIRING, key.registry, key.model)
        if (one.version, one.fingerprint) == (key.version, version.fingerprint)
    ]
    muted = decisions.why_muted(connection, states)
    lines = []
    kept = {(one.identity, one.episode): one for one in episodes(connection, key.registry, key.model)}
    for state in states:
        known = kept.pop((state.identity, state.episode), None)
        is_whole = known is not None and known.began_at == state.started_at
        began_with = known.versions[0] if known is not None and is_whole else None
        lines.append(_firing(state, began_with, muted))
    for one in kept.values():
        if one.ended_at is not None and key.version in one.versions:
            identity = one.identity
            lines.append(
                AlertLine(
                    group=str(identity.group),
                    ref=identity.ref,
                    severity=str(one.severity),
                    began_at=one.began_at,
                    began_with=one.versions[0],
                    ended_at=one.ended_at,
                    ended_with=one.ended_with,
                )
            )
    return Since(tuple(lines[:_MOST]), failing_since(connection, key) if version.current else None)


def _firing(state: AlertState, began_with: str | None, muted: Mapping[AlertIdentity, str]) -> AlertLine:
    taken = state.acknowledgement
    return AlertLine(
        group=str(state.identity.group),
        ref=state.identity.ref,
        severity=str(state.severity),
        began_at=state.started_at,
        began_with=began_with,
        muted_by=muted.get(state.identity),
        taken_by=taken.by if taken is not None else None,
    )

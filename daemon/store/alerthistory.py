"""Episodes of alerts, put together of their transitions: since when something is wrong, and with which version it began."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from layerwatch.alerts.model import AlertIdentity, AlertPhase
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.records import VersionKey
from layerwatch.metrics.findings import RuleGroup, Severity, Verdict

_TRANSITIONS = tables.alert_transitions
_VERSIONS = tables.versions
_PASSING = (Verdict.PASS.value, Verdict.WARN.value)


@dataclass(frozen=True, slots=True)
class Episode:
    """One alert from its firing to its end.

    Attributes:
        severity: the worst that it had.
        versions: that its transitions were about, in their order; the first is the one that it began with.
        ended_at, ended_with: the version of the end; both None while it fires.
    """

    identity: AlertIdentity
    episode: int
    severity: Severity
    versions: tuple[str, ...]
    began_at: datetime
    ended_at: datetime | None = None
    ended_with: str | None = None


def episodes(connection: sa.Connection, registry: str, model: str) -> list[Episode]:
    """Every episode of the alerts of a model of which transitions are kept, the one that began last first."""
    found: dict[tuple[AlertIdentity, int], Episode] = {}
    rows = connection.execute(
        sa.select(_TRANSITIONS)
        .where(_TRANSITIONS.c.registry == registry, _TRANSITIONS.c.model == model)
        .order_by(_TRANSITIONS.c.at, _TRANSITIONS.c.sequence)
    )
    for row in rows:
        identity = AlertIdentity(row.registry, row.model, row.ref, RuleGroup(row.rule_group))
        key = identity, row.episode
        severity = Severity(row.severity)
        if row.phase != AlertPhase.FIRING.value:
            if key in found:
                found[key] = replace(found[key], ended_at=row.at, ended_with=row.version)
            continue
        known = found.setdefault(key, Episode(identity, row.episode, severity, (), row.at))
        worst = max(known.severity, severity, key=lambda one: one.rank)
        found[key] = replace(known, severity=worst, versions=(*known.versions, row.version))
    return sorted(found.values(), key=lambda one: one.began_at, reverse=True)


@dataclass(frozen=True, slots=True)
class Failing:
    """The failing versions that a version is one of, without a passing one between them.

    Attributes:
        first: name of the first of them in natural order.
        last_good: name of the nearest version before them that passed; None where none is known.
    """

    first: str
    last_good: str | None


def failing_since(connection: sa.Connection, key: VersionKey) -> Failing | None:
    """Since which version a failing one's model fails; None for a version that does not fail."""
    columns = (_VERSIONS.c.version, _VERSIONS.c.sort_key, _VERSIONS.c.verdict)
    of_model = sa.select(*columns).where(
        _VERSIONS.c.registry == key.registry, _VERSIONS.c.model == key.model, _VERSIONS.c.is_current
    )
    place = _VERSIONS.c.sort_key, _VERSIONS.c.id
    this = connection.execute(of_model.where(_VERSIONS.c.version == key.version)).first()
    if this is None or this.verdict != Verdict.FAIL.value:
        return None
    good = connection.execute(
        of_model.where(_VERSIONS.c.verdict.in_(_PASSING), _VERSIONS.c.sort_key < this.sort_key)
        .order_by(*(column.desc() for column in place))
        .limit(1)
    ).first()
    failing = of_model.where(_VERSIONS.c.verdict == Verdict.FAIL.value).order_by(*place).limit(1)
    if good is None:
        return Failing(connection.execute(failing).one().version, None)
    first = connection.execute(failing.where(_VERSIONS.c.sort_key > good.sort_key)).one()
    return Failing(first.version, good.version)

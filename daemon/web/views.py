"""The shapes of API answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertState
from layerwatch.alerts.silences import MOST_MATCHERS, Silence, SilenceState
from layerwatch.config.matchertext import MatcherText
from layerwatch.config.quantities import PositiveDuration
from layerwatch.daemon.store.auditlog import AuditRecord
from layerwatch.daemon.store.outbox import OutboxRecord
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.metrics.findings import Verdict


class RefView(BaseModel):
    """A ref and what it points at."""

    ref: str
    version: str
    verdict: Verdict | None


class ModelView(BaseModel):
    """A model and its watched refs."""

    registry: str
    model: str
    refs: list[RefView]


class VersionView(BaseModel):
    """One revision of a version."""

    id: int
    registry: str
    model: str
    version: str
    revision: int
    fingerprint: str
    state: str
    verdict: Verdict | None
    parent: str | None
    relation: str | None
    attempts: int
    discovered_at: datetime
    judged_at: datetime | None
    gone_at: datetime | None

    @classmethod
    def of(cls, record: VersionRecord) -> VersionView:
        """The answer for a stored version."""
        return cls(
            id=record.id,
            registry=record.key.registry,
            model=record.key.model,
            version=record.key.version,
            revision=record.revision,
            fingerprint=record.fingerprint,
            state=str(record.state),
            verdict=record.verdict,
            parent=record.lineage.parent,
            relation=record.lineage.relation,
            attempts=record.attempts,
            discovered_at=record.discovered_at,
            judged_at=record.judged_at,
            gone_at=record.gone_at,
        )


class DeliveryView(BaseModel):
    """One event for one receiver."""

    id: int
    event_id: str
    receiver: str
    status: str
    created_at: datetime
    attempts: int
    next_attempt_at: datetime
    delivered_at: datetime | None
    failed_at: datetime | None
    error_reason: str | None
    error_detail: str | None

    @classmethod
    def of(cls, record: OutboxRecord) -> DeliveryView:
        """The answer for a stored event."""
        entry = record.entry
        return cls(
            id=entry.id,
            event_id=entry.event_id,
            receiver=entry.receiver,
            status=str(record.status),
            created_at=entry.created_at,
            attempts=entry.attempts,
            next_attempt_at=entry.next_attempt_at,
            delivered_at=record.delivered_at,
            failed_at=record.failed_at,
            error_reason=str(record.error_reason) if record.error_reason else None,
            error_detail=record.error_detail,
        )


class AlertView(BaseModel):
    """One alert's state."""

    alert_id: str
    registry: str
    model: str
    ref: str
    group: str
    phase: str
    severity: str
    version: str
    fingerprint: str
    layers: tuple[str, ...]
    episode: int
    started_at: datetime
    changed_at: datetime
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    acknowledged_reason: str | None
    muted_by: str | None

    @classmethod
    def of(cls, state: AlertState, muted_by: str | None = None) -> AlertView:
        """The answer for a stored alert; ``muted_by`` says why nobody is told of it now, None where people are."""
        identity = state.identity
        taken = state.acknowledgement
        return cls(
            alert_id=alert_id(identity, state.episode),
            registry=identity.registry,
            model=identity.model,
            ref=identity.ref,
            group=str(identity.group),
            phase=str(state.phase),
            severity=str(state.severity),
            version=state.version,
            fingerprint=state.fingerprint,
            layers=state.layers,
            episode=state.episode,
            started_at=state.started_at,
            changed_at=state.changed_at,
            acknowledged_by=taken.by if taken else None,
            acknowledged_at=taken.at if taken else None,
            acknowledged_reason=taken.reason if taken else None,
            muted_by=muted_by,
        )


class DecisionRequest(BaseModel):
    """Who decides something about a version, and why."""

    model_config = ConfigDict(extra="forbid")

    by: str
    reason: str


class AcceptedView(BaseModel):
    """A version that was just accepted, and the alerts that ended with it as they were before."""

    version: VersionView
    accepted_by: str
    accepted_at: datetime
    reason: str
    ended: tuple[AlertView, ...]


class AuditView(BaseModel):
    """One thing that somebody did."""

    id: int
    at: datetime
    actor: str
    authentication: str
    action: str
    registry: str | None
    model: str | None
    version: str | None
    subject: str | None
    reason: str | None
    outcome: str

    @classmethod
    def of(cls, record: AuditRecord) -> AuditView:
        """The answer for a kept entry."""
        entry = record.entry
        return cls(
            id=record.id,
            at=entry.at,
            actor=entry.actor.name,
            authentication=str(entry.actor.authentication),
            action=str(entry.action),
            registry=entry.registry,
            model=entry.model,
            version=entry.version,
            subject=entry.subject,
            reason=entry.reason,
            outcome=entry.outcome,
        )


class AcknowledgementRequest(BaseModel):
    """Who looks after an alert, and what they do."""

    model_config = ConfigDict(extra="forbid")

    by: str
    reason: str


class SilenceRequest(BaseModel):
    """A silence that is wanted. It ends at ``ends_at``, or lasts for ``duration``."""

    model_config = ConfigDict(extra="forbid")

    matchers: Annotated[
        list[MatcherText],
        Field(
            min_length=1, max_length=MOST_MATCHERS, examples=[['model="fraud"', 'severity=~"warning|info"']]
        ),
    ]
    author: str
    reason: str
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    duration: PositiveDuration | None = None


class SilenceView(BaseModel):
    """One silence."""

    id: int
    state: SilenceState
    matchers: tuple[str, ...]
    author: str
    reason: str
    created_at: datetime
    starts_at: datetime
    ends_at: datetime
    expired_at: datetime | None
    expired_by: str | None

    @classmethod
    def of(cls, silence: Silence, now: datetime) -> SilenceView:
        """The answer for a kept silence."""
        return cls(**_silence_fields(silence, now))


class KeptSilenceView(SilenceView):
    """A silence that was just kept, and what it is about: the alerts that fire now and that it matches."""

    alerts: tuple[AlertView, ...]

    @classmethod
    def kept(cls, silence: Silence, alerts: tuple[AlertView, ...], now: datetime) -> KeptSilenceView:
        """The answer for it."""
        return cls(**_silence_fields(silence, now), alerts=alerts)


def _silence_fields(silence: Silence, now: datetime) -> dict[str, Any]:
    return {
        "id": silence.id,
        "state": silence.state(now),
        "matchers": tuple(map(str, silence.matchers)),
        "author": silence.author,
        "reason": silence.reason,
        "created_at": silence.created_at,
        "starts_at": silence.starts_at,
        "ends_at": silence.ends_at,
        "expired_at": silence.expired_at,
        "expired_by": silence.expired_by,
    }

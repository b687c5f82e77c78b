"""The shapes of API answers."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertState
from layerwatch.daemon.store.alerts import OutboxRecord
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
    notified_at: datetime

    @classmethod
    def of(cls, state: AlertState) -> AlertView:
        """The answer for a stored alert."""
        identity = state.identity
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
            notified_at=state.notified_at,
        )

"""Small builders of alert values for tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from layerwatch.alerts.event import Notification, build_event, encode_event
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, Observation, Transition, TransitionReason
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.payload import AlertContext, describe
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity, Verdict

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
IDENTITY = AlertIdentity("local", "digits-mlp", "latest", RuleGroup.WEIGHTS)


def finding(
    layer: str | None = "fc2",
    severity: Severity = Severity.CRITICAL,
    *,
    message: str = "relative change 0.92 (limit 0.35)",
    evidence: Mapping[str, EvidenceValue] | None = None,
) -> Finding:
    values = {"relative_change": 0.92, "limit": 0.35} if evidence is None else evidence
    return Finding("relative_change", RuleGroup.WEIGHTS, severity, layer, message, values)


def seen(
    *findings: Finding,
    version: str | None = "v5",
    identity: AlertIdentity = IDENTITY,
    undecided_layers: frozenset[str] = frozenset(),
) -> Observation:
    verdict = Verdict.FAIL if findings else Verdict.PASS
    return Observation(
        identity=identity,
        version=version,
        fingerprint=None if version is None else f"sha256:{version}",
        verdict=None if version is None else verdict,
        findings=findings,
        undecided_layers=undecided_layers,
    )


def firing(*findings: Finding, identity: AlertIdentity = IDENTITY, version: str = "v5") -> Transition:
    observation = seen(*(findings or (finding(),)), identity=identity, version=version)
    _, (transition,) = advance(None, observation, NOW)
    return transition


def resolved(version: str | None = "v6") -> Transition:
    state, _ = advance(None, seen(finding()), NOW)
    _, (transition,) = advance(state, seen(version=version), NOW + timedelta(hours=1))
    return transition


def event_of(
    *transitions: Transition,
    context: AlertContext | None = None,
    reason: TransitionReason | None = None,
    muted: int = 0,
) -> dict[str, Any]:
    """The event that tells these alerts in this order."""
    told = transitions or (firing(),)
    notification = Notification(
        event_id=f"evt_{told[0].event_id[4:]}",
        group_id="grp_0123456789abcdef0123456789abcdef",
        labels={"registry": ("local",), "model": ("digits-mlp",)},
        sequence=told[0].state.sequence,
        reason=reason or told[0].reason,
        at=max(one.state.changed_at for one in told),
        alerts=tuple({**describe(one, context or AlertContext()), "acknowledged_by": None} for one in told),
        muted=muted,
        transitions=tuple(one.event_id for one in told),
    )
    return build_event(notification)


def payload_of(*transitions: Transition, context: AlertContext | None = None) -> str:
    """The stored JSON of `event_of`."""
    return encode_event(event_of(*transitions, context=context))


def entry(
    number: int = 1,
    receiver: str = "oncall",
    *,
    transition: Transition | None = None,
    created_at: datetime = NOW,
    attempts: int = 0,
    stream: str | None = None,
) -> OutboxEntry:
    told = transition or firing()
    return OutboxEntry(
        id=number,
        event_id=told.event_id,
        receiver=receiver,
        payload=payload_of(told),
        created_at=created_at,
        attempts=attempts,
        next_attempt_at=created_at,
        stream=stream,
    )

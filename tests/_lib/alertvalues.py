"""Small builders of alert values for tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, Observation, Transition
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.payload import EventContext, build_event, encode_event
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity, Verdict

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TWELVE_HOURS = timedelta(hours=12)
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
    _, (transition,) = advance(None, observation, NOW, TWELVE_HOURS)
    return transition


def resolved(version: str | None = "v6") -> Transition:
    state, _ = advance(None, seen(finding()), NOW, TWELVE_HOURS)
    _, (transition,) = advance(state, seen(version=version), NOW + timedelta(hours=1), TWELVE_HOURS)
    return transition


def entry(
    number: int = 1,
    receiver: str = "oncall",
    *,
    transition: Transition | None = None,
    created_at: datetime = NOW,
    attempts: int = 0,
) -> OutboxEntry:
    told = transition or firing()
    return OutboxEntry(
        id=number,
        event_id=told.event_id,
        receiver=receiver,
        payload=encode_event(build_event(told, EventContext())),
        created_at=created_at,
        attempts=attempts,
        next_attempt_at=created_at,
    )

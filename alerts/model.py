"""Alert identity, state and transition: the values the life cycle works on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict


@dataclass(frozen=True, slots=True, order=True)
class AlertIdentity:
    """What an alert is about. Two events with one identity belong to one alert."""

    registry: str
    model: str
    ref: str
    group: RuleGroup


class AlertPhase(StrEnum):
    """Where an alert is in its life."""

    FIRING = "firing"
    RESOLVED = "resolved"


class TransitionReason(StrEnum):
    """Why an event is sent now. A closed list: it is a payload field and may be a metric label."""

    FIRST = "first"
    NEW_LAYERS = "new_layers"
    RAISED_SEVERITY = "raised_severity"
    REPEAT_INTERVAL = "repeat_interval"
    VERSION_PASSED = "version_passed"
    VERSION_ACCEPTED = "version_accepted"
    REF_GONE = "ref_gone"


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one identity now: the ref's current version and the findings that should fire.

    Attributes:
        identity: registry, model, ref, rule group.
        version: name of the version the ref points at; None when the ref or the model is gone.
        fingerprint: that version's fingerprint; None with ``version``.
        verdict: that version's verdict; None with ``version``.
        findings: findings of this rule group that are bad enough to fire, worst first; empty resolves.
        undecided_layers: layers of this version that had to be examined and could not be; the empty name stands
            for the version as a whole. A firing alert about one of them does not resolve.
        accepted: a person called this version normal; its findings about weights are left out of ``findings``.
    """

    identity: AlertIdentity
    version: str | None
    fingerprint: str | None
    verdict: Verdict | None
    findings: tuple[Finding, ...]
    undecided_layers: frozenset[str] = frozenset()
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class AlertState:
    """The stored state of one alert.

    Attributes:
        episode: 1 for the first firing of this identity, one more after each resolution. Part of event ids,
            so that a rollback to a version that fired before is news again.
        severity: worst severity notified in this episode.
        layers: layers notified in this episode, sorted; the empty name stands for the version as a whole.
        started_at: when this episode began to fire.
        notified_at: when the last event of this episode was queued.
        sequence: number of events queued so far for this identity; carried in payloads for ordering.
    """

    identity: AlertIdentity
    phase: AlertPhase
    episode: int
    version: str
    fingerprint: str
    severity: Severity
    layers: tuple[str, ...]
    started_at: datetime
    notified_at: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class Transition:
    """One event to tell: the alert began, changed, repeats, or ended.

    Attributes:
        event_id: hash of identity, fingerprint, transition and episode; equal for every delivery attempt and
            after a restart.
        state: the state after the event; its ``notified_at`` is the time of the event.
        findings: the findings to show, worst first; empty for a resolution, and for a repeat while a version
            could not be examined.
        verdict: verdict of the version that caused the event; None when the ref is gone.
    """

    event_id: str
    state: AlertState
    reason: TransitionReason
    findings: tuple[Finding, ...]
    verdict: Verdict | None

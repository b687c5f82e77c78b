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
    """Where an alert is in its life.

    Pending: something was found, but not in as many scans in a row as its rule wants (``for_scans``); nobody is told.
    """

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class TransitionReason(StrEnum):
    """Why an event is sent now. A closed list: it is a payload field and may be a metric label."""

    FIRST = "first"
    NEW_LAYERS = "new_layers"
    RAISED_SEVERITY = "raised_severity"
    REPEAT_INTERVAL = "repeat_interval"
    VERSION_PASSED = "version_passed"
    MOVED_BACK = "moved_back"
    VERSION_ACCEPTED = "version_accepted"
    REF_GONE = "ref_gone"
    DELIVERED = "delivered"


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
        scan: names the scan that found this, for counting scans in a row; the same for two looks at one scan.
        ends_as: why the alert ends if it does: the version passed, was accepted by a person, is an earlier one.
    """

    identity: AlertIdentity
    version: str | None
    fingerprint: str | None
    verdict: Verdict | None
    findings: tuple[Finding, ...]
    undecided_layers: frozenset[str] = frozenset()
    scan: str = ""
    ends_as: TransitionReason = TransitionReason.VERSION_PASSED


@dataclass(frozen=True, slots=True)
class Pending:
    """In how many scans in a row each rule found something.

    Attributes:
        scan: the last scan that was counted.
        counts: (rule, number of scans), sorted by rule; rules that found nothing in that scan are left out.
    """

    scan: str = ""
    counts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A person is on it: the alert is not repeated, but its news and its end are told."""

    by: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class AlertState:
    """The stored state of one alert.

    Attributes:
        episode: 1 for the first firing of this identity, one more after each resolution; 0 before the first. Part of
            event ids, so that a rollback to a version that fired before is news again.
        severity: worst severity of this episode.
        layers: layers of this episode, sorted; the empty name stands for the version as a whole.
        started_at: when this episode began to fire, or the wait for its confirmation.
        changed_at: time of the last transition.
        sequence: number of transitions so far of this identity; carried in payloads for ordering.
        reason: of the last transition.
        event_id: of the last transition; empty before the first.
        rules: rules that fire now, sorted; of an alert that ended, those that did last.
        pending: scans in a row, by rule.
        acknowledgement: until the alert ends or gets worse.
    """

    identity: AlertIdentity
    phase: AlertPhase
    episode: int
    version: str
    fingerprint: str
    severity: Severity
    layers: tuple[str, ...]
    started_at: datetime
    changed_at: datetime
    sequence: int
    reason: TransitionReason = TransitionReason.FIRST
    event_id: str = ""
    rules: tuple[str, ...] = ()
    pending: Pending = Pending()
    acknowledgement: Acknowledgement | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of an alert: it began, got worse, or ended.

    Attributes:
        event_id: hash of identity, fingerprint, transition and episode; equal after a restart.
        state: the state after the change; its ``changed_at`` is the time of the change.
        findings: the findings to show, worst first; empty for an end.
        verdict: verdict of the version that caused it; None when the ref is gone.
    """

    event_id: str
    state: AlertState
    reason: TransitionReason
    findings: tuple[Finding, ...]
    verdict: Verdict | None

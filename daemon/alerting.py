"""From what the refs point at to alert states and their transitions, inside one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from layerwatch.alerts.evidence import in_words
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import (
    AlertIdentity,
    AlertPhase,
    AlertState,
    Observation,
    Transition,
    TransitionReason,
)
from layerwatch.alerts.payload import AlertContext, Diagnosis, describe, undecided
from layerwatch.daemon.store import alerts, baselines, refs, versions
from layerwatch.daemon.store.records import VersionKey, VersionRecord, VersionState
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """What fires.

    Attributes:
        fire_on: severity from which on a finding fires. Findings of the examination group always fire, because
            silence about something that was not examined would look like health.
        external_url: base of links in events.
        for_scans: scans in a row in which a rule must find something, by rule; 1 for all others.
    """

    fire_on: Severity
    external_url: str | None
    for_scans: Mapping[str, int] = field(default_factory=dict)


def follow_refs(
    connection: Connection,
    registry: str,
    model: str,
    targets: Mapping[str, str],
    policy: AlertPolicy,
    now: datetime,
) -> bool:
    """Move the model's refs to their targets and bring its alerts up to date.

    A ref moves once its target is judged; until then gauges and alerts stay with the version before, so that a
    scan leaves no gap. A ref that is no longer listed is removed and its alerts resolve.

    Args:
        targets: ref -> version name, as the registry lists them now; empty when the model is gone.

    Returns:
        True when a ref moved or vanished, or an alert changed.
    """
    changed = False
    current: dict[str, VersionRecord] = {}
    for record in refs.list_refs(connection, registry, model):
        if record.ref not in targets:
            refs.remove(connection, registry, model, record.ref)
            for group in RuleGroup:
                gone = Observation(AlertIdentity(registry, model, record.ref, group), None, None, None, ())
                advance_alert(connection, gone, policy, now)
            changed = True
            continue
        pointed = versions.get(connection, record.version_id)
        if pointed is not None:
            current[record.ref] = pointed
    for ref, name in targets.items():
        target = versions.current(connection, VersionKey(registry, model, name))
        if target is not None and target.state is VersionState.JUDGED:
            changed |= refs.point(connection, registry, model, ref, target.id, now)
            current[ref] = target
    for ref, version in current.items():
        changed |= _observe(connection, ref, version, policy, now)
    return changed


def _observe(
    connection: Connection, ref: str, version: VersionRecord, policy: AlertPolicy, now: datetime
) -> bool:
    if version.verdict is None:
        return False
    key = version.key
    found = versions.findings(connection, version.id)
    accepted = baselines.was_accepted(connection, key, version.fingerprint)
    if accepted:
        # A person looked at this version and called it normal.
        found = [finding for finding in found if finding.group is not RuleGroup.WEIGHTS]
    changed = False
    for group in RuleGroup:
        identity = AlertIdentity(key.registry, key.model, ref, group)
        firing = tuple(
            finding for finding in found if finding.group is group and fires(finding, policy.fire_on)
        )
        before = alerts.load_state(connection, identity)
        if not firing and before is None:
            continue
        observation = Observation(
            identity,
            key.version,
            version.fingerprint,
            version.verdict,
            firing,
            _undecided(version, found, group),
            scan=f"{version.id} {version.judged_at.isoformat() if version.judged_at else ''}",
            ends_as=_ends_as(connection, version, before, accepted and group is RuleGroup.WEIGHTS),
        )
        changed |= advance_alert(
            connection, observation, policy, now, lambda: _context(connection, version, found, policy)
        )
    return changed


def ended_by_acceptance(connection: Connection, version: VersionRecord, now: datetime) -> list[AlertState]:
    """The firing alerts that would end if a person called this version normal."""
    key = version.key
    if version.verdict is None:
        return []
    found = versions.findings(connection, version.id)
    ended = []
    for ref in refs.list_refs(connection, key.registry, key.model):
        identity = AlertIdentity(key.registry, key.model, ref.ref, RuleGroup.WEIGHTS)
        before = alerts.load_state(connection, identity) if ref.version_id == version.id else None
        if before is None or before.phase is not AlertPhase.FIRING:
            continue
        undecided_layers = _undecided(version, found, RuleGroup.WEIGHTS)
        accepted = Observation(
            identity, key.version, version.fingerprint, version.verdict, (), undecided_layers
        )
        after, _ = advance(before, accepted, now)
        if after is not None and after.phase is AlertPhase.RESOLVED:
            ended.append(before)
    return ended


def _ends_as(
    connection: Connection, version: VersionRecord, before: AlertState | None, accepted: bool
) -> TransitionReason:
    if accepted:
        return TransitionReason.VERSION_ACCEPTED
    if before is not None and before.version != version.key.version:
        key = VersionKey(version.key.registry, version.key.model, before.version)
        broken = versions.current(connection, key)
        if broken is not None and version.id < broken.id:
            return TransitionReason.MOVED_BACK
    return TransitionReason.VERSION_PASSED


def fires(finding: Finding, fire_on: Severity) -> bool:
    """Whether somebody is told: see :class:`AlertPolicy`."""
    return finding.group is RuleGroup.EXAMINATION or finding.severity.at_least(fire_on)


def _undecided(version: VersionRecord, found: list[Finding], group: RuleGroup) -> frozenset[str]:
    """Layers that could not be examined, as far as they keep a weights alert from resolving."""
    if group is not RuleGroup.WEIGHTS:
        return frozenset()
    names = {finding.layer or "" for finding in found if finding.group is RuleGroup.EXAMINATION}
    if version.verdict is Verdict.UNDECIDED and not names:
        # The rule that would name them is switched off.
        names = {""}
    return frozenset(names)


def advance_alert(
    connection: Connection,
    observation: Observation,
    policy: AlertPolicy,
    now: datetime,
    context: Callable[[], AlertContext] | None = None,
) -> bool:
    """Bring one alert up to date; True when it changed.

    Args:
        context: what is told of it; reads a whole report, so that it is asked for only when something is told anew.
    """
    identity = observation.identity
    before = alerts.load_state(connection, identity)
    after, transitions = advance(before, observation, now, policy.for_scans)
    if after is None:
        return False
    if after != before:
        alerts.save_state(connection, after)
    for transition in transitions:
        alerts.record_transition(connection, transition)
        known = AlertContext(external_url=policy.external_url) if context is None else context()
        if before is not None and transition.reason is not TransitionReason.FIRST:
            known = replace(known, milder=_milder(connection, before, transition))
            if transition.state.phase is AlertPhase.RESOLVED:
                known = replace(known, broken_version=before.version)
        alerts.save_told(connection, identity, json.dumps(describe(transition, known)))
    told_anew = False
    if not transitions and after.phase is AlertPhase.FIRING:
        told_anew = _tell_of_another_version(connection, before, after, observation, context)
    return bool(transitions) or told_anew


def _milder(connection: Connection, before: AlertState, transition: Transition) -> tuple[Severity, ...]:
    """The severities that an alert had before in this episode."""
    told = json.loads(alerts.told_of(connection, before.identity) or "{}")
    had = {Severity(one) for one in told.get("milder", ())}
    if before.severity is not transition.state.severity:
        had.add(before.severity)
    return tuple(sorted(had, key=lambda severity: severity.rank))


def _tell_of_another_version(
    connection: Connection,
    before: AlertState | None,
    after: AlertState,
    observation: Observation,
    context: Callable[[], AlertContext] | None,
) -> bool:
    """The alert is as it was, but about another version now: repetitions are about that one.

    Returns:
        True when nothing was known to tell before, as of a store that an older layerwatch wrote.
    """
    told = alerts.told_of(connection, after.identity)
    if told is not None and before is not None and before.fingerprint == after.fingerprint:
        return False
    if observation.findings:
        known = AlertContext() if context is None else context()
        same = Transition(after.event_id, after, after.reason, observation.findings, observation.verdict)
        alerts.save_told(connection, after.identity, json.dumps(describe(same, known)))
    elif told is not None:
        held = undecided(json.loads(told), after, observation.undecided_layers)
        alerts.save_told(connection, after.identity, json.dumps(held))
    return told is None


def _context(
    connection: Connection, version: VersionRecord, found: list[Finding], policy: AlertPolicy
) -> AlertContext:
    record = version if version.report is not None else versions.get(connection, version.id)
    report = json.loads(record.report) if record is not None and record.report else {}
    baseline = report.get("baseline") or {}
    layers = report.get("layers", ())
    named = {finding.layer for finding in found}
    return AlertContext(
        baseline_version=baseline.get("version"),
        baseline_relation=baseline.get("relation"),
        baseline_chosen_by=baseline.get("chosen_by"),
        broken_parent=_broken_parent(connection, version, baseline.get("version")),
        diagnoses=tuple(
            Diagnosis(one["layer"], one["title"], one["likely_cause"], one["what_to_do"])
            for one in report.get("diagnoses", ())
        ),
        numbers={layer["name"]: in_words(layer) for layer in layers if layer["name"] in named},
        undecided_layers=sum(1 for layer in layers if layer.get("status") == "undecided"),
        external_url=policy.external_url,
        last_good=_last_good(connection, record),
    )


def _last_good(connection: Connection, record: VersionRecord | None) -> str | None:
    """What to roll back to."""
    if record is None:
        return None
    key = record.key
    found = versions.previous_passing(connection, key.registry, key.model, record.order_key)
    return None if found is None else found.key.version


def _broken_parent(
    connection: Connection, version: VersionRecord, baseline: str | None
) -> tuple[str, str | None] | None:
    """The declared parent, else the baseline, with its worst layer, when that version fails by itself."""
    for name in (version.lineage.parent, baseline):
        if name is None or name == version.key.version:
            continue
        key = VersionKey(version.key.registry, version.key.model, name)
        parent = versions.current(connection, key)
        if parent is None or parent.verdict is not Verdict.FAIL:
            continue
        if baselines.was_accepted(connection, key, parent.fingerprint):
            continue
        worst = max(versions.findings(connection, parent.id), key=lambda one: one.severity.rank, default=None)
        return name, worst.layer if worst is not None else None
    return None

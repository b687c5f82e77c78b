"""From what the refs point at to alert states and events, inside one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, AlertPhase, Observation
from layerwatch.alerts.payload import EventContext, build_event, encode_event
from layerwatch.alerts.queueing import entries_for
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.daemon.store import alerts, baselines, refs, versions
from layerwatch.daemon.store.records import VersionKey, VersionRecord, VersionState
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """What fires and who is told.

    Attributes:
        fire_on: severity from which on a finding fires. Findings of the examination group always fire, because
            silence about something that was not examined would look like health.
        receivers: receivers that the route leads to, by name.
        repeat_interval: how long a firing alert may stay silent.
        external_url: base of links in events.
    """

    fire_on: Severity
    receivers: Mapping[str, Receiver]
    repeat_interval: timedelta
    external_url: str | None


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
        True when a ref moved or vanished, or an event was queued.
    """
    changed = False
    current: dict[str, VersionRecord] = {}
    for record in refs.list_refs(connection, registry, model):
        if record.ref not in targets:
            refs.remove(connection, registry, model, record.ref)
            for group in RuleGroup:
                gone = Observation(AlertIdentity(registry, model, record.ref, group), None, None, None, ())
                _advance(
                    connection, gone, lambda: EventContext(external_url=policy.external_url), policy, now
                )
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


def tell_again(connection: Connection, policy: AlertPolicy, now: datetime) -> bool:
    """Queue every firing alert once more: the route leads to receivers that were not told.

    Returns:
        True when there was one.
    """
    at_once = replace(policy, repeat_interval=timedelta(microseconds=1))
    firing = {
        (state.identity.registry, state.identity.model, state.identity.ref)
        for state in alerts.list_states(connection, phase=AlertPhase.FIRING)
    }
    told = False
    for ref in refs.list_refs(connection):
        version = versions.get(connection, ref.version_id)
        if version is not None and (ref.registry, ref.model, ref.ref) in firing:
            told |= _observe(connection, ref.ref, version, at_once, now)
    return told


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
        if not firing and alerts.load_state(connection, identity) is None:
            continue
        observation = Observation(
            identity,
            key.version,
            version.fingerprint,
            version.verdict,
            firing,
            _undecided(version, found, group),
            accepted and group is RuleGroup.WEIGHTS,
        )
        changed |= _advance(
            connection, observation, lambda: _context(connection, version, policy), policy, now
        )
    return changed


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


def _advance(
    connection: Connection,
    observation: Observation,
    context: Callable[[], EventContext],
    policy: AlertPolicy,
    now: datetime,
) -> bool:
    """Bring one alert up to date; the context, which reads a whole report, is asked for only to tell an event."""
    before = alerts.load_state(connection, observation.identity)
    after, transitions = advance(before, observation, now, policy.repeat_interval)
    if after is not None and after != before:
        alerts.save_state(connection, after)
    for transition in transitions:
        payload = encode_event(build_event(transition, context()))
        for entry in entries_for(transition, payload, policy.receivers.values()):
            alerts.enqueue(connection, entry.event_id, entry.receiver, entry.payload, now)
    return bool(transitions)


def _context(connection: Connection, version: VersionRecord, policy: AlertPolicy) -> EventContext:
    record = version if version.report is not None else versions.get(connection, version.id)
    report = json.loads(record.report) if record is not None and record.report else {}
    baseline = report.get("baseline") or {}
    undecided = sum(1 for layer in report.get("layers", ()) if layer.get("status") == "undecided")
    return EventContext(
        baseline_version=baseline.get("version"),
        baseline_relation=baseline.get("relation"),
        baseline_chosen_by=baseline.get("chosen_by"),
        undecided_layers=undecided,
        external_url=policy.external_url,
    )

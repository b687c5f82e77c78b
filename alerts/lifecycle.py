"""The life of an alert as a pure function: stored state and what is seen now give the new state and the transitions.

No clock, no database, no random number: run it twice on the same input and the second run changes nothing more; run
it again after a crash that lost the result and it gives the same transitions under the same ids. Who is told of them,
when, together with what and how often, is not decided here but by `layerwatch.alerts.grouping`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from layerwatch.alerts.identity import event_id
from layerwatch.alerts.model import (
    AlertPhase,
    AlertState,
    Observation,
    Pending,
    Transition,
    TransitionReason,
)
from layerwatch.metrics.findings import Finding, Severity

Advanced = tuple[AlertState | None, tuple[Transition, ...]]

_AT_ONCE: Mapping[str, int] = {}


def advance(
    state: AlertState | None,
    observation: Observation,
    now: datetime,
    for_scans: Mapping[str, int] = _AT_ONCE,
) -> Advanced:
    """The next state of one alert and its transitions, at most one.

    A finding counts once its rule found something in ``for_scans`` scans in a row; until then the alert is pending. A
    rule that fires needs no confirmation to go on: a scan that could not look for it does not make it begin anew.

    ======================  ========================================  =====================================
    stored                  seen                                      transition (reason), first match
    ======================  ========================================  =====================================
    not firing              findings that count                       firing, new episode (first)
    not firing              findings, none of which counts            none; pending
    pending                 no findings                               none; as before
    firing                  ref or model gone                         resolved (ref_gone)
    firing                  nothing that counts, a layer of it is     none
                            undecided
    firing                  nothing that counts                       resolved (``observation.ends_as``)
    firing                  worse severity than before                firing (raised_severity)
    firing                  layers that are new in this episode       firing (new_layers)
    anything else                                                     none
    ======================  ========================================  =====================================

    A state that ended must be kept by the store: its episode and sequence go on at the next firing, and with them
    the uniqueness of event ids. Version, fingerprint and rules of the state follow the ref also when nothing changes.

    Args:
        state: the stored state, or None when this identity never fired.
        observation: what is known of the same identity now.
        now: tz-aware time of this look.
        for_scans: scans in a row that a rule wants, by rule; 1 for all others.

    Raises:
        ValueError: if the observation is about another identity, or has findings without a version.
    """
    if state is not None and state.identity != observation.identity:
        raise ValueError(f"state of {state.identity} cannot take an observation of {observation.identity}")
    if observation.findings and (observation.version is None or observation.fingerprint is None):
        raise ValueError(f"findings for {observation.identity} without a version they were found in")

    if observation.version is None or observation.fingerprint is None:
        return _gone(state, observation, now)
    pending = _counted(state.pending if state is not None else Pending(), observation)
    counts = dict(pending.counts)
    confirmed = state.rules if state is not None and state.phase is AlertPhase.FIRING else ()
    counting = tuple(
        one
        for one in observation.findings
        if one.rule in confirmed or counts[one.rule] >= for_scans.get(one.rule, 1)
    )
    if state is None or state.phase is not AlertPhase.FIRING:
        if counting:
            return _begin(state, observation, counting, pending, now)
        return _wait(state, observation, pending, now), ()
    current = replace(
        state, version=observation.version, fingerprint=observation.fingerprint, pending=pending
    )
    if counting:
        return _go_on(current, observation, counting, now)
    if _may_still_be_broken(current, observation):
        return current, ()
    ended, transitions = _end(current, observation, now, observation.ends_as)
    return _wait(ended, observation, pending, now), transitions


def _counted(pending: Pending, observation: Observation) -> Pending:
    """The counts with this scan; an earlier look at it counted it already."""
    before = dict(pending.counts)
    again = bool(observation.scan) and observation.scan == pending.scan
    # A version that could not be read at all says nothing about what was found in the one before.
    counts = dict(before) if "" in observation.undecided_layers else {}
    for rule in {finding.rule for finding in observation.findings}:
        counts[rule] = before.get(rule, 0) + (0 if again and rule in before else 1)
    return Pending(observation.scan, tuple(sorted(counts.items())))


def _wait(
    state: AlertState | None, observation: Observation, pending: Pending, now: datetime
) -> AlertState | None:
    """Not firing: pending, or nothing."""
    if not observation.findings and not pending.counts:
        if state is None:
            return None
        return replace(state, phase=AlertPhase.RESOLVED, pending=pending)
    if state is not None and state.phase is AlertPhase.PENDING and not observation.findings:
        # What was found could not be looked for in this scan.
        return replace(state, pending=pending)
    if not observation.findings:
        return None if state is None else replace(state, pending=pending)
    assert observation.version is not None and observation.fingerprint is not None  # checked by advance
    waiting = state is not None and state.phase is AlertPhase.PENDING
    return AlertState(
        identity=observation.identity,
        phase=AlertPhase.PENDING,
        episode=state.episode if state else 0,
        version=observation.version,
        fingerprint=observation.fingerprint,
        severity=_worst(observation.findings),
        layers=_layers(observation.findings),
        started_at=state.started_at if state is not None and waiting else now,
        changed_at=state.changed_at if state else now,
        sequence=state.sequence if state else 0,
        reason=state.reason if state else TransitionReason.FIRST,
        event_id=state.event_id if state else "",
        rules=_rules(observation.findings),
        pending=pending,
    )


def _gone(state: AlertState | None, observation: Observation, now: datetime) -> Advanced:
    if state is None:
        return None, ()
    if state.phase is AlertPhase.FIRING:
        return _end(replace(state, pending=Pending()), observation, now, TransitionReason.REF_GONE)
    return replace(state, phase=AlertPhase.RESOLVED, pending=Pending()), ()


def _begin(
    state: AlertState | None,
    observation: Observation,
    counting: tuple[Finding, ...],
    pending: Pending,
    now: datetime,
) -> Advanced:
    assert observation.version is not None and observation.fingerprint is not None  # checked by advance
    begun = AlertState(
        identity=observation.identity,
        phase=AlertPhase.FIRING,
        episode=state.episode + 1 if state else 1,
        version=observation.version,
        fingerprint=observation.fingerprint,
        severity=_worst(counting),
        layers=_layers(counting),
        started_at=now,
        changed_at=now,
        sequence=state.sequence + 1 if state else 1,
        rules=_rules(counting),
        pending=pending,
    )
    return _changed(begun, observation, counting, TransitionReason.FIRST, "firing")


def _go_on(
    state: AlertState, observation: Observation, counting: tuple[Finding, ...], now: datetime
) -> Advanced:
    state = replace(state, rules=_rules(counting))
    layers = tuple(sorted({*state.layers, *_layers(counting)}))
    worst = _worst(counting)
    worse = not state.severity.at_least(worst)
    if not worse and len(layers) == len(state.layers):
        return state, ()
    changed = replace(
        state,
        severity=worst if worse else state.severity,
        layers=layers,
        changed_at=now,
        sequence=state.sequence + 1,
        acknowledgement=None,
    )
    reason = TransitionReason.RAISED_SEVERITY if worse else TransitionReason.NEW_LAYERS
    # Both only grow within an episode, so the pair never comes back.
    name = f"changed:{changed.severity.value}:{len(layers)}"
    return _changed(changed, observation, counting, reason, name)


def _end(state: AlertState, observation: Observation, now: datetime, reason: TransitionReason) -> Advanced:
    ended = replace(
        state,
        phase=AlertPhase.RESOLVED,
        changed_at=now,
        sequence=state.sequence + 1,
        acknowledgement=None,
    )
    return _changed(ended, observation, (), reason, "resolved")


def _changed(
    state: AlertState,
    observation: Observation,
    findings: tuple[Finding, ...],
    reason: TransitionReason,
    name: str,
) -> Advanced:
    identifier = event_id(state.identity, state.fingerprint, name, state.episode)
    state = replace(state, reason=reason, event_id=identifier)
    return state, (Transition(identifier, state, reason, findings, observation.verdict),)


def _may_still_be_broken(state: AlertState, observation: Observation) -> bool:
    """True when a layer the alert is about could not be examined: undecided is never a pass."""
    return "" in observation.undecided_layers or not observation.undecided_layers.isdisjoint(state.layers)


def _worst(findings: tuple[Finding, ...]) -> Severity:
    return max((finding.severity for finding in findings), key=lambda severity: severity.rank)


def _layers(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """Layers with findings, sorted; the version as a whole is the empty name."""
    return tuple(sorted({finding.layer or "" for finding in findings}))


def _rules(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    return tuple(sorted({finding.rule for finding in findings}))

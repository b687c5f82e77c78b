"""The life of an alert as a pure function: stored state and what is seen now give the new state and the events.

No clock, no database, no random number: run it twice on the same input and the second run tells nothing new; run
it again after a crash that lost the result and it gives the same events under the same ids.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from layerwatch.alerts.identity import event_id
from layerwatch.alerts.model import AlertPhase, AlertState, Observation, Transition, TransitionReason
from layerwatch.metrics.findings import Severity

Advanced = tuple[AlertState | None, tuple[Transition, ...]]


def advance(
    state: AlertState | None, observation: Observation, now: datetime, repeat_interval: timedelta
) -> Advanced:
    """The next state of one alert and the events to tell, at most one.

    ======================  ========================================  =====================================
    stored                  seen                                      event (reason), first match
    ======================  ========================================  =====================================
    nothing or resolved     findings                                  firing, new episode (first)
    firing                  worse severity than told                  firing (raised_severity)
    firing                  layers not told in this episode           firing (new_layers)
    firing                  nothing new, repeat interval is over      firing (repeat_interval)
    firing                  no findings, a told layer is undecided    none, or firing (repeat_interval)
    firing                  no findings                               resolved (version_passed)
    firing                  no findings, a person accepted them       resolved (version_accepted)
    firing                  ref or model gone                         resolved (ref_gone)
    anything else                                                     none
    ======================  ========================================  =====================================

    A resolved state must be kept by the store: its episode and sequence go on at the next firing, and with them
    the uniqueness of event ids. Version and fingerprint of the state follow the ref also when nothing is told.

    Args:
        state: the stored state, or None when this identity never fired.
        observation: what is known of the same identity now.
        now: tz-aware time of this look.
        repeat_interval: how long a firing alert may stay silent; more than zero.

    Raises:
        ValueError: if the observation is about another identity, has findings without a version, or the repeat
            interval is not positive.
    """
    if repeat_interval <= timedelta(0):
        raise ValueError(f"repeat_interval must be more than zero, got {repeat_interval}")
    if state is not None and state.identity != observation.identity:
        raise ValueError(f"state of {state.identity} cannot take an observation of {observation.identity}")
    if observation.findings and (observation.version is None or observation.fingerprint is None):
        raise ValueError(f"findings for {observation.identity} without a version they were found in")

    firing = state is not None and state.phase is AlertPhase.FIRING
    if state is None or not firing:
        return _begin(state, observation, now) if observation.findings else (state, ())
    if observation.version is None or observation.fingerprint is None:
        return _end(state, observation, now, TransitionReason.REF_GONE)
    current = replace(state, version=observation.version, fingerprint=observation.fingerprint)
    if not observation.findings and not _may_still_be_broken(current, observation):
        accepted = observation.accepted
        reason = TransitionReason.VERSION_ACCEPTED if accepted else TransitionReason.VERSION_PASSED
        return _end(current, observation, now, reason)
    return _go_on(current, observation, now, repeat_interval)


def _begin(state: AlertState | None, observation: Observation, now: datetime) -> Advanced:
    assert observation.version is not None and observation.fingerprint is not None  # checked by advance
    begun = AlertState(
        identity=observation.identity,
        phase=AlertPhase.FIRING,
        episode=state.episode + 1 if state else 1,
        version=observation.version,
        fingerprint=observation.fingerprint,
        severity=_worst(observation),
        layers=_layers(observation),
        started_at=now,
        notified_at=now,
        sequence=state.sequence + 1 if state else 1,
    )
    return _told(begun, observation, TransitionReason.FIRST, "firing")


def _go_on(
    state: AlertState, observation: Observation, now: datetime, repeat_interval: timedelta
) -> Advanced:
    layers = tuple(sorted({*state.layers, *_layers(observation)}))
    worse = bool(observation.findings) and not state.severity.at_least(_worst(observation))
    if worse or len(layers) > len(state.layers):
        severity = _worst(observation) if worse else state.severity
        changed = replace(
            state, severity=severity, layers=layers, notified_at=now, sequence=state.sequence + 1
        )
        reason = TransitionReason.RAISED_SEVERITY if worse else TransitionReason.NEW_LAYERS
        # Both only grow within an episode, so the pair never comes back.
        return _told(changed, observation, reason, f"changed:{severity.value}:{len(layers)}")
    if now - state.notified_at >= repeat_interval:
        repeated = replace(state, notified_at=now, sequence=state.sequence + 1)
        return _told(repeated, observation, TransitionReason.REPEAT_INTERVAL, f"repeat:{repeated.sequence}")
    return state, ()


def _end(state: AlertState, observation: Observation, now: datetime, reason: TransitionReason) -> Advanced:
    ended = replace(state, phase=AlertPhase.RESOLVED, notified_at=now, sequence=state.sequence + 1)
    return _told(ended, observation, reason, "resolved")


def _told(state: AlertState, observation: Observation, reason: TransitionReason, name: str) -> Advanced:
    event = Transition(
        event_id=event_id(state.identity, state.fingerprint, name, state.episode),
        state=state,
        reason=reason,
        findings=observation.findings,
        verdict=observation.verdict,
    )
    return state, (event,)


def _may_still_be_broken(state: AlertState, observation: Observation) -> bool:
    """True when a layer the alert is about could not be examined: undecided is never a pass."""
    return "" in observation.undecided_layers or not observation.undecided_layers.isdisjoint(state.layers)


def _worst(observation: Observation) -> Severity:
    return max((finding.severity for finding in observation.findings), key=lambda severity: severity.rank)


def _layers(observation: Observation) -> tuple[str, ...]:
    """Layers with findings, sorted; the version as a whole is the empty name."""
    return tuple(sorted({finding.layer or "" for finding in observation.findings}))

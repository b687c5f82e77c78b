"""Which events are due now, for whom: routes, groups and what may not be told, over all alerts at once.

Pure: the same alerts, records and time give the same events under the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from layerwatch.alerts.grouping import Candidate, Decision, Timing, Told, decide, group_id, notification_id
from layerwatch.alerts.inhibition import Inhibition, Inhibitor
from layerwatch.alerts.model import AlertIdentity, AlertPhase, AlertState, TransitionReason
from layerwatch.alerts.mutetimes import muted_by
from layerwatch.alerts.routing import Route, group_labels, routes_for
from layerwatch.alerts.silences import Silence, silenced_by
from layerwatch.config.matchers import Labels
from layerwatch.metrics.findings import RuleGroup

_LOOK_AGAIN = timedelta(minutes=1)
"""Mute times begin and end at full minutes."""


@dataclass(frozen=True, slots=True)
class KnownAlert:
    """An alert that fires, or that a receiver believes to."""

    state: AlertState
    labels: Labels


@dataclass(frozen=True, slots=True)
class GroupTimes:
    """When a group was told last, and how often it was told."""

    told_at: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class Telling:
    """How alerts are told: the configuration of one moment.

    Attributes:
        root: the routing tree; None when nobody is told.
        wants_ends: receiver -> whether it is told of resolutions; the receivers there are.
        inhibitions: as configured.
        silences: all that are not over.
    """

    root: Route | None
    wants_ends: Mapping[str, bool]
    inhibitions: Sequence[Inhibition] = ()
    silences: Sequence[Silence] = ()


@dataclass(frozen=True, slots=True)
class GroupEvent:
    """One event to be queued.

    Attributes:
        receiver: for whom.
        event_id, group_id: see `layerwatch.alerts.grouping`.
        labels: what the alerts have in common.
        sequence: number of the event within its group.
        reason: why now.
        tell: its alerts, worst first.
        muted: alerts of the group that fire and are not told.
    """

    receiver: str
    event_id: str
    group_id: str
    labels: Mapping[str, tuple[str, ...]]
    sequence: int
    reason: TransitionReason
    tell: tuple[Candidate, ...]
    muted: int


@dataclass(slots=True)
class Plan:
    """What is due now.

    Attributes:
        events: to be queued.
        settled: (receiver, alert) whose end is not told because the receiver wants to hear of none.
        closed: (receiver, alert) that fires, is muted, and of which the receiver believes from now on that it is over.
        muted: why an alert that fires is not told now, for people; alerts that are told are left out.
        resting: why an alert that fires is not told to somebody now, because of a mute time, for people.
        look_again: when time alone may make something due; None when only news can.
    """

    events: list[GroupEvent] = field(default_factory=list)
    settled: list[tuple[str, AlertState]] = field(default_factory=list)
    closed: list[tuple[str, AlertIdentity]] = field(default_factory=list)
    muted: dict[AlertIdentity, str] = field(default_factory=dict)
    resting: dict[AlertIdentity, str] = field(default_factory=dict)
    look_again: datetime | None = None

    def look_again_at(self, moment: datetime | None) -> None:
        """Look again then, if not earlier."""
        if moment is not None and (self.look_again is None or moment < self.look_again):
            self.look_again = moment


def plan(
    alerts: Sequence[KnownAlert],
    told: Mapping[tuple[str, AlertIdentity], Told],
    groups: Mapping[str, GroupTimes],
    telling: Telling,
    now: datetime,
) -> Plan:
    """The events that are due.

    An alert that several routes lead to one receiver is told by the first of them. Ends are told also when the alert is
    silenced or inhibited, because a receiver that was told of its begin waits for it; mute times hold them back. A
    receiver that was told of an alert which no route leads to it any more is told of its end only.

    Args:
        alerts: each identity once.
        told: (receiver, alert) -> how far it was told.
        groups: group id -> its times.
        now: tz-aware.
    """
    found = Plan()
    root = telling.root
    if root is None:
        return found
    firing = [one for one in alerts if one.state.phase is AlertPhase.FIRING]
    unread = {
        one.state.identity
        for one in firing
        if one.state.identity.group is RuleGroup.EXAMINATION and "" in one.state.layers
    }
    inhibitor = Inhibitor([one.labels for one in firing], telling.inhibitions)
    for one in firing:
        why = _why_muted(one, unread, inhibitor, telling, now)
        if why is not None:
            found.muted[one.state.identity] = why
    members = _members(alerts, told, found, telling, now)
    for group in members.values():
        times = groups.get(group.id)
        decision = decide(
            group.candidates,
            times.told_at if times else None,
            group.timing,
            now,
            send_resolved=telling.wants_ends[group.receiver],
        )
        found.settled += [(group.receiver, one.state) for one in decision.settle]
        found.closed += [(group.receiver, one.state.identity) for one in decision.closed]
        found.look_again_at(decision.look_again)
        if any(one.muted for one in group.candidates):
            found.look_again_at(now + _LOOK_AGAIN)
        if decision.reason is not None:
            found.events.append(_event(group, decision, decision.reason, times))
    for silence in telling.silences:
        found.look_again_at(silence.ends_at if silence.ends_at > now else None)
        found.look_again_at(silence.starts_at if silence.starts_at > now else None)
    return found


@dataclass(slots=True)
class _Group:
    id: str
    receiver: str
    labels: Mapping[str, tuple[str, ...]]
    timing: Timing
    candidates: list[Candidate]


def _members(
    alerts: Sequence[KnownAlert],
    told: Mapping[tuple[str, AlertIdentity], Told],
    found: Plan,
    telling: Telling,
    now: datetime,
) -> dict[str, _Group]:
    """Group id -> group; notes in ``found`` what rests."""
    assert telling.root is not None  # checked by plan
    groups: dict[str, _Group] = {}
    believing: dict[AlertIdentity, list[str]] = {}
    for (receiver, identity), known in told.items():
        if known.firing:
            believing.setdefault(identity, []).append(receiver)
    for one in alerts:
        state = one.state
        routed: dict[str, Route] = {}
        for route in routes_for(telling.root, one.labels):
            if route.receiver in telling.wants_ends:
                routed.setdefault(route.receiver, route)
        fires = state.phase is AlertPhase.FIRING
        if not fires:
            for receiver in believing.get(state.identity, ()):
                if receiver in telling.wants_ends and receiver not in routed:
                    known_route = _route_to(telling.root, receiver)
                    routed[receiver] = known_route or replace(telling.root, receiver=receiver)
        if state.identity.group is RuleGroup.DELIVERY:
            # That a receiver does not take events is of no use to itself, and what is told of it would be refused, too.
            routed.pop(state.identity.model, None)
        for receiver, route in routed.items():
            rest = muted_by(route.mute_times, now)
            if rest is not None and fires:
                found.resting.setdefault(state.identity, f"mute time {rest} of {receiver}")
            heard = told.get((receiver, state.identity))
            candidate = Candidate(
                state,
                heard,
                muted=rest is not None or (fires and state.identity in found.muted),
            )
            if fires or candidate.is_news:
                # An incident that was opened under one name must not be left open by a group that has another now.
                begun = heard.group_id if heard is not None and heard.firing else ""
                _group(groups, route, one.labels, begun).candidates.append(candidate)
    return groups


def _route_to(route: Route, receiver: str) -> Route | None:
    """The first route to a receiver, by which it most likely was told: its groups are those of that route."""
    if route.receiver == receiver:
        return route
    return next((found for child in route.routes if (found := _route_to(child, receiver))), None)


def _group(groups: dict[str, _Group], route: Route, labels: Labels, begun: str) -> _Group:
    """The group that an alert belongs to by a route; of two routes that lead to one group, the shorter times count.

    Args:
        begun: group in which the receiver was told that it fires; empty where it was not.
    """
    common = group_labels(route, labels)
    identifier = begun or group_id(route.receiver, [[name, list(values)] for name, values in common])
    timing = Timing(route.group_wait, route.group_interval, route.repeat_interval)
    known = groups.get(identifier)
    if known is None:
        groups[identifier] = _Group(identifier, route.receiver, dict(common), timing, [])
    else:
        known.timing = known.timing.shorter(timing)
    return groups[identifier]


def _event(
    group: _Group, decision: Decision, reason: TransitionReason, times: GroupTimes | None
) -> GroupEvent:
    sequence = times.sequence + 1 if times else 1
    return GroupEvent(
        receiver=group.receiver,
        event_id=notification_id(group.id, sequence, decision.tell),
        group_id=group.id,
        labels=group.labels,
        sequence=sequence,
        reason=reason,
        tell=decision.tell,
        muted=sum(one.muted and one.fires for one in group.candidates),
    )


def _why_muted(
    alert: KnownAlert,
    unread: AbstractSet[AlertIdentity],
    inhibitor: Inhibitor,
    telling: Telling,
    now: datetime,
) -> str | None:
    silence = silenced_by(alert.labels, telling.silences, now)
    if silence is not None:
        return f"silence {silence.id} by {silence.author}: {silence.reason}"
    identity = alert.state.identity
    if identity.group is RuleGroup.WEIGHTS and replace(identity, group=RuleGroup.EXAMINATION) in unread:
        return "the version could not be read, which is told instead"
    source = inhibitor.source_of(alert.labels)
    if source is None:
        return None
    shown = (", ".join(source.get(label, ())) for label in ("registry", "model", "ref", "rule_group"))
    return "inhibited by {}/{} ({}, {})".format(*shown)

"""When a group of alerts is told, and what of it: a pure function of what is, what was told, and the time.

The same bookkeeping as Alertmanager's notification log, with two differences: what a receiver was told is kept for each
alert, not for each group, so that a changed route tells nothing twice; and a group that was quiet for long tells news
after ``group_wait``, not at the next multiple of ``group_interval``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from layerwatch.alerts.model import AlertPhase, AlertState, TransitionReason
from layerwatch.metrics.findings import Severity


@dataclass(frozen=True, slots=True)
class Told:
    """How far one receiver was told of one alert.

    Attributes:
        sequence: the alert's transition that it was told last.
        firing: whether it believes that the alert fires.
        group_id: group in whose events it was told.
    """

    sequence: int
    firing: bool
    group_id: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An alert of a group.

    Attributes:
        told: None when the receiver never heard of it.
        muted: whether it may not be told now.
    """

    state: AlertState
    told: Told | None
    muted: bool = False

    @property
    def fires(self) -> bool:
        """Whether it fires now."""
        return self.state.phase is AlertPhase.FIRING

    @property
    def is_news(self) -> bool:
        """Whether the receiver does not know how it stands."""
        if not self.fires:
            return self.told is not None and self.told.firing
        return self.told is None or not self.told.firing or self.told.sequence < self.state.sequence


@dataclass(frozen=True, slots=True)
class Timing:
    """A route's times: see `layerwatch.config.routes`."""

    group_wait: timedelta
    group_interval: timedelta
    repeat_interval: timedelta

    def shorter(self, other: Timing) -> Timing:
        """The shorter of each."""
        return Timing(
            min(self.group_wait, other.group_wait),
            min(self.group_interval, other.group_interval),
            min(self.repeat_interval, other.repeat_interval),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a group now.

    Attributes:
        tell: alerts of the event to be sent, worst first; empty when none is due.
        reason: why; None with nothing to tell.
        settle: alerts whose end need not be told, because the receiver wants to hear of none.
        closed: muted alerts that fire and that the event leaves out although it says that all is over; once they may be
            told again, they are news.
        look_again: when time alone may make an event due; None when only news can.
    """

    tell: tuple[Candidate, ...] = ()
    reason: TransitionReason | None = None
    settle: tuple[Candidate, ...] = ()
    closed: tuple[Candidate, ...] = ()
    look_again: datetime | None = None


_WEIGHT = (
    TransitionReason.FIRST,
    TransitionReason.RAISED_SEVERITY,
    TransitionReason.NEW_LAYERS,
    TransitionReason.REF_GONE,
    TransitionReason.MOVED_BACK,
    TransitionReason.VERSION_ACCEPTED,
    TransitionReason.VERSION_PASSED,
    TransitionReason.DELIVERED,
)


def decide(
    candidates: Sequence[Candidate],
    told_at: datetime | None,
    timing: Timing,
    now: datetime,
    *,
    send_resolved: bool,
) -> Decision:
    """Whether a group is told now.

    News (an alert that fires, got worse, or ended) is told ``group_wait`` after its first bit came up, and at least
    ``group_interval`` after the last event of the group. Without news, alerts that fire and that nobody acknowledged
    are told again ``repeat_interval`` after it. Muted alerts count as not being there; their news wait.

    An event tells every alert of the group that fires, not only the new ones.

    Args:
        candidates: alerts of the group, in any order, each identity once.
        told_at: when the group's last event was; None when there was none. A time in the future, left by a clock that
            was set back since, counts as long ago for news and as now for repetitions. So does that of a change.
        send_resolved: whether the receiver is told of ends.
    """
    open_ = [one for one in candidates if not one.muted]
    settle = () if send_resolved else tuple(one for one in open_ if one.is_news and not one.fires)
    news = [one for one in open_ if one.is_news and one not in settle]
    firing = [one for one in open_ if one.fires]
    if news:
        changes = [one.state.changed_at for one in news]
        due = min(now if changed_at > now else changed_at + timing.group_wait for changed_at in changes)
        if told_at is not None and told_at <= now:
            due = max(due, told_at + timing.group_interval)
        if due > now:
            return Decision(settle=settle, look_again=due)
        reason = min((one.state.reason for one in news), key=_WEIGHT.index)
        closed = () if firing else tuple(one for one in candidates if one.muted and one.fires and one.told)
        tell = _worst_first([*firing, *(one for one in news if not one.fires)])
        return Decision(tell, reason, settle, closed)
    unattended = [one for one in firing if one.state.acknowledgement is None]
    if not unattended:
        return Decision(settle=settle)
    last = told_at if told_at is not None else max(one.state.changed_at for one in firing)
    due = min(last, now) + timing.repeat_interval
    if due > now:
        return Decision(settle=settle, look_again=due)
    return Decision(_worst_first(firing), TransitionReason.REPEAT_INTERVAL, settle)


def group_id(receiver: str, labels: object) -> str:
    """Name of a group: of the receiver and what its alerts have in common.

    Not of the route: an alert that got worse, or a route that was edited, must not leave an incident open behind it.

    Returns:
        ``grp_`` and 32 hexadecimal digits. No time and no random number goes in.
    """
    return "grp_" + _digest([receiver, labels])


def notification_id(group: str, sequence: int, told: Sequence[Candidate]) -> str:
    """Id of one event, sent as ``webhook-id`` and used by receivers to drop duplicates.

    Args:
        sequence: number of the event within the group.
        told: its alerts.

    Returns:
        ``evt_`` and 32 hexadecimal digits, equal for every attempt and after a restart.
    """
    members = sorted(
        [
            *_parts(one.state),
            one.state.fingerprint,
            one.state.phase.value,
            one.state.sequence,
        ]
        for one in told
    )
    return "evt_" + _digest([group, sequence, members])


def _worst_first(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    def order(one: Candidate) -> tuple[object, ...]:
        severity: Severity = one.state.severity
        return (not one.fires, -severity.rank, one.state.started_at, one.state.identity)

    return tuple(sorted(candidates, key=order))


def _parts(state: AlertState) -> list[str]:
    identity = state.identity
    return [identity.registry, identity.model, identity.ref, identity.group.value]


def _digest(parts: object) -> str:
    canonical = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:32]

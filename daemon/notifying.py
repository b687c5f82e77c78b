"""Decides what is told now, and queues it: what its receivers are told is noted in the transaction that queues an event."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from layerwatch.alerts.event import MOST_ALERTS, Notification, build_event, encode_event
from layerwatch.alerts.grouping import Candidate, Told
from layerwatch.alerts.inhibition import Inhibition
from layerwatch.alerts.model import AlertIdentity, AlertPhase
from layerwatch.alerts.payload import name
from layerwatch.alerts.routing import Route
from layerwatch.alerts.telling import GroupEvent, GroupTimes, KnownAlert, Plan, Telling, plan
from layerwatch.config.owners import OwnerSettings
from layerwatch.daemon.alerting import AlertPolicy
from layerwatch.daemon.alertlabels import labels_of
from layerwatch.daemon.store import alerts, outbox, silences
from layerwatch.daemon.store.alerts import GroupRecord
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.outbox import GivenUp, NewEntry
from layerwatch.daemon.undelivered import follow_deliveries

_LOGGER = logging.getLogger(__name__)

_LOOK_ANYWAY = timedelta(seconds=15)
"""Commands of people, and receivers that left events behind, change what is due without a word to this process."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Who is told of what: the configuration of one moment.

    Attributes:
        root: the routing tree; None when nobody is told.
        wants_ends: receiver -> whether it is told of resolutions.
        inhibitions, owners: as configured.
    """

    root: Route | None
    wants_ends: Mapping[str, bool]
    inhibitions: tuple[Inhibition, ...]
    owners: tuple[OwnerSettings, ...]


_Seen = tuple[tuple[object, ...], list[int], list[GivenUp], list[str]]


@dataclass(frozen=True, slots=True)
class Due:
    """What is due, and how far receivers were told when that was found out."""

    plan: Plan
    told: Mapping[tuple[str, AlertIdentity], Told]


class Notifier:
    """Queues the events that are due.

    Args:
        database: the store.
        routing, policy: of the moment.
        clock: tz-aware time now.
        queued: called with the receivers for which events were queued, after they are in the store.
        gave_up: called with a receiver that is not configured any more, and how many of its events were given up.
    """

    def __init__(
        self,
        database: Database,
        routing: Callable[[], Routing],
        policy: Callable[[], AlertPolicy],
        clock: Callable[[], datetime],
        queued: Callable[[set[str]], None],
        gave_up: Callable[[str, int], None],
    ) -> None:
        self._database = database
        self._routing = routing
        self._policy = policy
        self._clock = clock
        self._queued = queued
        self._gave_up = gave_up
        self._news = threading.Event()
        self._news.set()
        self._look_at: datetime | None = None
        self._looked_at: datetime | None = None
        self._seen: _Seen | None = None
        self.muted: Mapping[AlertIdentity, str] = {}
        """Why alerts that fire are not told, by alert; as of the last turn."""

    def wake(self) -> None:
        """An alert changed: the next turn looks."""
        self._news.set()

    def turn(self) -> str:
        """Queue what is due; a sentence for the log. Cheap when nothing can be."""
        now = self._clock()
        since = None if self._looked_at is None else now - self._looked_at
        has_news = self._news.is_set() or since is None or since < timedelta()
        has_time = self._look_at is not None and now >= self._look_at
        if not (has_news or has_time) and since is not None and since < _LOOK_ANYWAY:
            return "notify: nothing is due"
        self._news.clear()
        try:
            has_news |= self._tidy(now)
            self._looked_at = now
            if not has_news and not has_time:
                return "notify: nothing is due"
            routing = self._routing()
            with self._database.read() as connection:
                due = due_now(connection, routing, now)
            queued = self._queue(due, now)
        except BaseException:
            self._news.set()
            raise
        self.muted = {**due.plan.resting, **due.plan.muted}
        self._look_at = due.plan.look_again
        if queued:
            # When the next is due depends on what was told just now.
            self._news.set()
        return f"notify: {queued} events queued"

    def _tidy(self, now: datetime) -> bool:
        """What else than an alert that changed may make something due; whether it does. Writes only where it must."""
        receivers = self._routing().wants_ends
        with self._database.read() as connection:
            left = [one for one in outbox.given_up(connection, now) if one.receiver in receivers]
            others = {one.receiver for one in outbox.backlogs(connection)} - receivers.keys()
            seen: _Seen = (
                alerts.signature(connection),
                [one.id for one in silences.active(connection, now)],
                left,
                sorted(receivers),
            )
        changed = seen != self._seen
        if changed or others:
            with self._database.write() as connection:
                removed = outbox.give_up_others(connection, receivers.keys(), now)
                alerts.forget_receivers_but(connection, receivers)
                follow_deliveries(connection, left, receivers.keys(), self._policy(), now)
            for receiver, events in removed.items():
                self._gave_up(receiver, events)
        with self._database.read() as connection:
            turned = alerts.told_later(connection, now)
        if turned:
            with self._database.write() as connection:
                alerts.turn_back(connection, now)
        self._seen = seen
        return changed or bool(others) or turned

    def _queue(self, due: Due, now: datetime) -> int:
        """A few at a time: nobody else can write meanwhile. What changes in between is told by the next turn.

        Returns:
            How many events.
        """
        total = 0
        for events in chunks(due.plan.events):
            with self._database.write() as connection:
                queued = queue(connection, events, due, now)
            total += len(queued)
            self._queued({event.receiver for event in queued})
        if due.plan.settled or due.plan.closed:
            with self._database.write() as connection:
                _note_silently(connection, due.plan)
        return total


def due_now(connection: Connection, routing: Routing, now: datetime) -> Due:
    """What is due, and what is known of its receivers. Reads only."""
    states = alerts.to_be_told(connection)
    told = alerts.load_told(connection)
    times = {
        group_id: GroupTimes(record.told_at, record.sequence)
        for group_id, record in alerts.load_groups(connection).items()
    }
    known = [KnownAlert(state, labels_of(state, routing.owners)) for state in states]
    telling = Telling(routing.root, routing.wants_ends, routing.inhibitions, silences.active(connection, now))
    return Due(plan(known, told, times, telling, now), told)


def queue(connection: Connection, events: Sequence[GroupEvent], due: Due, now: datetime) -> list[GroupEvent]:
    """Queue events, and note what their receivers are told with them. Needs a write transaction.

    Returns:
        Those that were. An alert that changed since it was planned is left to the next turn; so is one of which the store
        holds what cannot be told, which is logged and keeps no other from being told.
    """
    shown = {one.state.identity for event in events for one in event.tell[:MOST_ALERTS]}
    texts = alerts.told_texts(connection, shown)
    transitions = alerts.transitions_of(
        connection, {one.state.identity for event in events for one in event.tell}
    )
    entries: list[NewEntry] = []
    queued: list[GroupEvent] = []
    for event in events:
        try:
            payload = _payload(event, texts, transitions, due, now)
        except (KeyError, TypeError, ValueError):
            _LOGGER.exception(
                "an event for receiver %s cannot be made of what the store holds; please report it",
                event.receiver,
            )
            continue
        if payload is not None:
            entries.append(NewEntry(event.event_id, event.receiver, payload, event.group_id))
            queued.append(event)
    outbox.enqueue_all(connection, entries, now)
    groups = {one.group_id: GroupRecord(one.receiver, one.labels, now, one.sequence) for one in queued}
    alerts.save_groups(connection, groups)
    alerts.save_told_to(
        connection,
        [(event.receiver, one.state) for event in queued for one in event.tell],
        {(event.receiver, one.state.identity): event.group_id for event in queued for one in event.tell},
    )
    return queued


def _payload(
    event: GroupEvent,
    texts: Mapping[AlertIdentity, str],
    transitions: Mapping[AlertIdentity, Sequence[tuple[int, str]]],
    due: Due,
    now: datetime,
) -> str | None:
    """The stored JSON of an event; None when an alert of it is another one than when it was planned."""
    shown = event.tell[:MOST_ALERTS]
    described = [described_now(one, json.loads(texts[one.state.identity])) for one in shown]
    if any(told["sequence"] != one.state.sequence for told, one in zip(described, shown, strict=True)):
        return None
    covered = []
    for one in event.tell:
        heard = due.told.get((event.receiver, one.state.identity))
        after = heard.sequence if heard else 0
        covered += [
            event_id
            for sequence, event_id in transitions[one.state.identity]
            if after < sequence <= one.state.sequence
        ]
    notification = Notification(
        event_id=event.event_id,
        group_id=event.group_id,
        labels=event.labels,
        sequence=event.sequence,
        reason=event.reason,
        at=now,
        alerts=tuple(described),
        muted=event.muted,
        transitions=tuple(covered),
        omitted=len(event.tell) - len(shown),
    )
    return encode_event(build_event(notification))


def notify(connection: Connection, routing: Routing, now: datetime) -> Plan:
    """Queue all that is due, in the transaction of ``connection``."""
    due = due_now(connection, routing, now)
    queue(connection, due.plan.events, due, now)
    _note_silently(connection, due.plan)
    return due.plan


def _note_silently(connection: Connection, found: Plan) -> None:
    """What receivers are taken to believe from now on without an event."""
    alerts.save_told_to(connection, found.settled)
    alerts.close_told(connection, found.closed)


def described_now(candidate: Candidate, told: Mapping[str, object]) -> dict[str, object]:
    """An alert as it is told now: what was kept of it, and who is on it."""
    state = candidate.state
    acknowledgement = state.acknowledgement
    return {
        **told,
        "phase": (AlertPhase.FIRING if candidate.fires else AlertPhase.RESOLVED).value,
        "acknowledged_by": name(acknowledgement.by) if acknowledgement else None,
    }

"""Everything that runs between an alert that changed and the people who are told: built, started, reloaded, ended."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from layerwatch.alerts.dispatcher import Dispatcher
from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.heartbeat import HeartbeatTelemetry, Pulses
from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.telemetry import AlertTelemetry
from layerwatch.config.receivers import RemoteReceiverSettings
from layerwatch.config.settings import Settings
from layerwatch.daemon.delivering import DeliveryLoops
from layerwatch.daemon.health import Heartbeats
from layerwatch.daemon.live import Live
from layerwatch.daemon.notifying import Notifier
from layerwatch.daemon.resending import RESEND_EVERY, Resender
from layerwatch.daemon.schedule import Schedule
from layerwatch.daemon.store import alerts, outbox
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.telemetry import DaemonTelemetry

_NOTIFY_EVERY = timedelta(seconds=1)
_COUNT_EVERY = timedelta(seconds=5)
_LOOP_LIMIT = timedelta(minutes=5)


class AlertLoops:
    """Decides what is told (``notify``), delivers it (``dispatch:RECEIVER``), and tells Alertmanagers again (``resend``).

    Args:
        database: the store, which no other daemon writes.
        live: the configuration of the moment.
        telemetry, alert_telemetry, heartbeat_telemetry: counters.
        heartbeats: of the loops.
        clock: tz-aware time now.
    """

    def __init__(
        self,
        database: Database,
        live: Callable[[], Live],
        telemetry: DaemonTelemetry,
        alert_telemetry: AlertTelemetry,
        heartbeat_telemetry: HeartbeatTelemetry,
        heartbeats: Heartbeats,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._live = live
        self._telemetry = telemetry
        self._alert_telemetry = alert_telemetry
        self._clock = clock
        store = outbox.DatabaseOutbox(database, f"{socket.gethostname()}:{os.getpid()}")
        # Claims of the daemon before this one, which is gone.
        store.release_all()
        self._dispatcher = Dispatcher(
            store,
            lambda: live().receivers,
            alert_telemetry,
            clock,
            alive=lambda receiver: self.deliveries.alive(receiver),
        )
        self.deliveries = DeliveryLoops(self._dispatcher, heartbeats, telemetry, clock)
        self.notifier = Notifier(
            database,
            routing=lambda: live().routing,
            policy=lambda: live().policy,
            clock=clock,
            queued=self.deliveries.wake,
            gave_up=self._removed,
        )
        self._pulses = Pulses(lambda: not heartbeats.late(), heartbeat_telemetry, clock)
        self._resender = Resender(database, lambda: live().receivers, clock)

    def start(self, schedule: Schedule) -> None:
        """Begin; the schedule may not be running yet."""
        schedule.add("notify", self.notifier.turn, _NOTIFY_EVERY, _LOOP_LIMIT, urgent=True)
        schedule.add(
            "resend", self._resender.turn, RESEND_EVERY, _LOOP_LIMIT + _longest_timeout(self._live())
        )
        schedule.add("backlog", self._count, _COUNT_EVERY, _LOOP_LIMIT, urgent=True)
        self.follow()

    def follow(self) -> None:
        """Take over a configuration that was loaded."""
        live = self._live()
        self._alert_telemetry.init_for(live.receivers)
        self.deliveries.serve(live.receivers, _LOOP_LIMIT + _longest_timeout(live))
        self._pulses.follow(live.heartbeats)
        self.notifier.wake()

    def stop(self, patience: timedelta) -> None:
        """End the deliveries; the loops on the schedule end with it."""
        self._pulses.stop()
        self.deliveries.stop(patience)

    def disabled(self) -> set[str]:
        """Receivers that are asked no more until the configuration is loaded again."""
        return {name for name in self._live().receivers if self._dispatcher.is_disabled(name)}

    def heartbeat_troubles(self) -> dict[str, str]:
        """Heartbeat receivers that did not take the last sign of life, and why."""
        return self._pulses.troubles()

    def _removed(self, receiver: str, events: int) -> None:
        for _ in range(events):
            self._alert_telemetry.failed(receiver, DeliveryReason.RECEIVER_REMOVED)
            self._alert_telemetry.gave_up(receiver)

    def _count(self) -> str:
        """Show what waits, and what fires."""
        with self._database.read() as connection:
            backlogs = outbox.backlogs(connection)
            states = alerts.list_states(connection)
        now = self._clock()
        waiting = {one.receiver: one.waiting for one in backlogs}
        oldest = min((one.oldest for one in backlogs), default=now)
        self._telemetry.outbox_oldest_age.set(max(0.0, (now - oldest).total_seconds()))
        self._alert_telemetry.waits({name: waiting.get(name, 0) for name in self._live().receivers})
        muted = self.notifier.muted
        shown = Counter(
            "acknowledged" if one.acknowledgement else "muted" if one.identity in muted else str(one.phase)
            for one in states
            if one.phase is not AlertPhase.RESOLVED
        )
        self._alert_telemetry.shows(shown)
        return f"outbox: {sum(waiting.values())} events wait"


def _longest_timeout(live: Live) -> timedelta:
    settings: Settings = live.settings
    timeouts = [one.timeout for one in settings.alerts.receivers if isinstance(one, RemoteReceiverSettings)]
    return max(timeouts, default=timedelta())

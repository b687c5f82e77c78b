"""Counters of deliveries: the one place that holds their names and help texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from layerwatch.alerts.errors import DeliveryReason

ALERT_STATES = ("pending", "firing", "muted", "acknowledged")


class AlertTelemetry:
    """Counters of what the dispatcher does, registered on the registry given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "layerwatch_notifications_total",
            "Attempts to deliver an event, by receiver.",
            ["receiver"],
            registry=registry,
        )
        self._failures = Counter(
            "layerwatch_notification_failures_total",
            "Attempts that failed and events given up without one, by receiver and reason.",
            ["receiver", "reason"],
            registry=registry,
        )
        self._given_up = Counter(
            "layerwatch_notifications_given_up_total",
            "Events that will not be tried again although the receiver never took them, by receiver.",
            ["receiver"],
            registry=registry,
        )
        self._disabled = Gauge(
            "layerwatch_receiver_disabled",
            "1 when the receiver answered 410 and is told nothing until the configuration is loaded again.",
            ["receiver"],
            registry=registry,
        )
        self._waiting = Gauge(
            "layerwatch_outbox_waiting",
            "Events that are neither delivered nor given up, by receiver.",
            ["receiver"],
            registry=registry,
        )
        self._alerts = Gauge(
            "layerwatch_alerts",
            "Alerts by state: pending, firing, muted (silenced or inhibited), acknowledged.",
            ["state"],
            registry=registry,
        )
        for state in ALERT_STATES:
            self._alerts.labels(state)
        self._known: set[str] = set()

    def init_for(self, receivers: Iterable[str]) -> None:
        """Make every counter exist at zero, so that rates and alerts on them work before the first failure.

        Call at start and after every reload; counters that exist keep their value.
        """
        wanted = set(receivers)
        for receiver in self._known - wanted:
            # Gauges of receivers that are gone would raise alarms for ever.
            self._disabled.remove(receiver)
            self._waiting.remove(receiver)
        self._known = wanted
        for receiver in sorted(wanted):
            self._attempts.labels(receiver)
            self._given_up.labels(receiver)
            self._disabled.labels(receiver)
            self._waiting.labels(receiver)
            for reason in DeliveryReason:
                self._failures.labels(receiver, reason.value)

    def attempted(self, receiver: str) -> None:
        """An event was handed to the receiver, with whatever result."""
        self._attempts.labels(receiver).inc()

    def failed(self, receiver: str, reason: DeliveryReason) -> None:
        """An attempt failed, or an event was given up without one."""
        self._failures.labels(receiver, reason.value).inc()

    def gave_up(self, receiver: str) -> None:
        """An event will never reach the receiver."""
        self._given_up.labels(receiver).inc()

    def disabled(self, receiver: str, is_disabled: bool) -> None:
        """The receiver is told nothing any more, or again."""
        self._disabled.labels(receiver).set(is_disabled)

    def waits(self, waiting: Mapping[str, int]) -> None:
        """How many events wait, by receiver."""
        for receiver, events in waiting.items():
            self._waiting.labels(receiver).set(events)

    def shows(self, states: Mapping[str, int]) -> None:
        """How many alerts there are, by one of `ALERT_STATES`; those that are left out are none."""
        for state in ALERT_STATES:
            self._alerts.labels(state).set(states.get(state, 0))

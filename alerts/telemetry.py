"""Counters of deliveries: the one place that holds their names and help texts."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter

from layerwatch.alerts.errors import DeliveryReason


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

    def init_for(self, receivers: Iterable[str]) -> None:
        """Make every counter exist at zero, so that rates and alerts on them work before the first failure.

        Call at start and after every reload; counters that exist keep their value.
        """
        for receiver in receivers:
            self._attempts.labels(receiver)
            self._given_up.labels(receiver)
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

"""Who is told about a bad version, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, Self

from pydantic import model_validator

from layerwatch.config.base import SettingsModel
from layerwatch.config.crosschecks import Fault, alert_faults, raise_faults
from layerwatch.config.quantities import PositiveDuration
from layerwatch.config.receivers import (
    AlertmanagerReceiverSettings,
    LogReceiverSettings,
    ReceiverSettings,
    WebhookReceiverSettings,
)
from layerwatch.config.receivers.base import check_webhook_url

__all__ = [
    "AlertsSettings",
    "LogReceiverSettings",
    "ReceiverSettings",
    "RouteSettings",
    "WebhookReceiverSettings",
    "check_webhook_url",
]


class RouteSettings(SettingsModel):
    """Which receiver gets the alerts."""

    receiver: str
    """Name of one of the receivers."""

    repeat_interval: PositiveDuration = timedelta(hours=12)
    """How often an alert that goes on is told again."""


class AlertsSettings(SettingsModel):
    """Receivers, and the way to them."""

    fire_on: Literal["warning", "critical"] = "critical"
    """Severity from which on a finding fires an alert."""

    receivers: tuple[ReceiverSettings, ...] = ()
    """Who can be told."""

    route: RouteSettings | None = None
    """Who is told; required as soon as there is a receiver."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        raise_faults("AlertsSettings", [*alert_faults(self), *self._short_holds()])
        return self

    def _short_holds(self) -> Iterator[Fault]:
        """Alertmanagers that would end an alert before it is told again."""
        for position, receiver in enumerate(self.receivers):
            if (
                isinstance(receiver, AlertmanagerReceiverSettings)
                and self.route is not None
                and self.route.receiver == receiver.name
                and receiver.hold <= self.route.repeat_interval
            ):
                message = (
                    "must be longer than alerts.route.repeat_interval, or alerts end between two repetitions"
                )
                yield Fault(("receivers", position, "hold"), message)

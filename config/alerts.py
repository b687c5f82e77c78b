"""Who is told about a bad version, and how often."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from layerwatch.config.base import SettingsModel
from layerwatch.config.crosschecks import alert_faults, raise_faults
from layerwatch.config.inhibitions import InhibitionSettings
from layerwatch.config.mutetimes import MuteTimeSettings
from layerwatch.config.owners import OwnerSettings
from layerwatch.config.receivers import LogReceiverSettings, ReceiverSettings, WebhookReceiverSettings
from layerwatch.config.receivers.base import check_webhook_url
from layerwatch.config.routes import ChildRouteSettings, RouteSettings

__all__ = [
    "AlertsSettings",
    "ChildRouteSettings",
    "InhibitionSettings",
    "LogReceiverSettings",
    "MuteTimeSettings",
    "OwnerSettings",
    "ReceiverSettings",
    "RouteSettings",
    "WebhookReceiverSettings",
    "check_webhook_url",
]


class AlertsSettings(SettingsModel):
    """Receivers, and the way to them."""

    fire_on: Literal["warning", "critical"] = "critical"
    """Severity from which on a finding fires an alert."""

    owners: tuple[OwnerSettings, ...] = ()
    """Labels of models; later entries add to earlier ones, and win for the same label."""

    receivers: tuple[ReceiverSettings, ...] = ()
    """Who can be told; one that no route leads to is told nothing."""

    route: RouteSettings | None = None
    """Who is told; required as soon as there is a receiver of alerts."""

    mute_times: tuple[MuteTimeSettings, ...] = ()
    """Times at which nothing is told, for routes to refer to."""

    inhibitions: tuple[InhibitionSettings, ...] = ()
    """Alerts that are not told while another one fires."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        raise_faults("AlertsSettings", alert_faults(self))
        return self

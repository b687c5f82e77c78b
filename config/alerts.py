"""Who is told about a bad version, and how often."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from layerwatch.config.base import Name, SettingsModel
from layerwatch.config.crosschecks import alert_faults, raise_faults
from layerwatch.config.quantities import PositiveDuration
from layerwatch.config.secrets import Secret


def check_webhook_url(url: str) -> None:
    """Raise ValueError, without repeating ``url``, unless it is an http or https URL with a host."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an http:// or https:// URL with a host")


def _checked_when_plain(url: Secret) -> Secret:
    if url.is_plain:
        check_webhook_url(url.reveal())
    return url


def _checked_network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8 or fd00::/8") from None
    if ipaddress.ip_interface(text).ip != network.network_address:
        raise ValueError(f"has bits set beyond its prefix; write {network} for that network")
    return str(network)


class WebhookReceiverSettings(SettingsModel):
    """A receiver that gets each event as a signed HTTP POST."""

    name: Name
    """Name of the receiver: routes refer to it, and it is a metric label."""

    kind: Literal["webhook"]
    """What the receiver is."""

    url: Annotated[Secret, AfterValidator(_checked_when_plain)]
    """Where to post: an http or https URL."""

    secret: Secret | None = None
    """Key that every event is signed with; without one, events are not signed."""

    allow_private_cidrs: tuple[Annotated[str, AfterValidator(_checked_network)], ...] = ()
    """Private networks that `url` may lead to; none by default."""

    timeout: PositiveDuration = timedelta(seconds=15)
    """Time that one delivery may take."""

    max_age: PositiveDuration = timedelta(days=3)
    """After this time an event that could not be delivered is given up."""

    send_resolved: bool = True
    """Whether the end of an alert is told too."""


class LogReceiverSettings(SettingsModel):
    """A receiver that writes each event to the daemon's log."""

    name: Name
    """Name of the receiver: routes refer to it, and it is a metric label."""

    kind: Literal["log"]
    """What the receiver is."""

    send_resolved: bool = True
    """Whether the end of an alert is told too."""


ReceiverSettings = Annotated[WebhookReceiverSettings | LogReceiverSettings, Field(discriminator="kind")]
"""Settings of one receiver, told apart by ``kind``."""


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
        raise_faults("AlertsSettings", alert_faults(self))
        return self

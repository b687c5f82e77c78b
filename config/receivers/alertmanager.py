"""Settings of Alertmanager as a receiver."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from layerwatch.config.quantities import PositiveDuration
from layerwatch.config.receivers.base import HttpReceiverSettings, SecretUrl

_SHORTEST_HOLD = timedelta(minutes=3)


def _long_enough(hold: timedelta) -> timedelta:
    if hold < _SHORTEST_HOLD:
        raise ValueError("must be at least 3m: alerts that go on are posted again every minute")
    return hold


class AlertmanagerReceiverSettings(HttpReceiverSettings):
    """A receiver that posts alerts to Prometheus Alertmanager, API v2."""

    kind: Literal["alertmanager"]
    """What the receiver is."""

    urls: Annotated[tuple[SecretUrl, ...], Field(min_length=1)]
    """Addresses of all peers of the cluster, each without /api/v2/alerts; user and password may stand in them."""

    hold: Annotated[PositiveDuration, AfterValidator(_long_enough)] = timedelta(hours=4)
    """How long Alertmanager keeps an alert that is no longer posted, as when layerwatch is down."""

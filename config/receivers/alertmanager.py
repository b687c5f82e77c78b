"""Settings of Alertmanager as a receiver."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from layerwatch.config.quantities import PositiveDuration
from layerwatch.config.receivers.base import HttpReceiverSettings, SecretUrl


class AlertmanagerReceiverSettings(HttpReceiverSettings):
    """A receiver that posts alerts to Prometheus Alertmanager, API v2."""

    kind: Literal["alertmanager"]
    """What the receiver is."""

    urls: Annotated[tuple[SecretUrl, ...], Field(min_length=1)]
    """Addresses of all peers of the cluster, each without /api/v2/alerts; user and password may stand in them."""

    hold: PositiveDuration = timedelta(hours=24)
    """How long Alertmanager keeps a firing alert that is not told again; longer than the route's `repeat_interval`."""

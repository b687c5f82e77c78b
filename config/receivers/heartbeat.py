"""Settings of a heartbeat: a dead-man's switch that raises the alarm when the daemon falls silent."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from layerwatch.config.quantities import PositiveDuration
from layerwatch.config.receivers.base import BaseReceiverSettings, GuardedSettings, SecretUrl


class HeartbeatReceiverSettings(GuardedSettings, BaseReceiverSettings):
    """A service that expects a sign of life and alerts when none comes, such as healthchecks; is told of no alerts."""

    kind: Literal["heartbeat"]
    """What the receiver is."""

    url: SecretUrl
    """What to ask for (GET) as a sign of life: an http or https URL."""

    every: PositiveDuration = timedelta(minutes=1)
    """How often; the service must wait for longer before it raises the alarm."""

    report_failure: bool = False
    """Whether a daemon that is alive but late says so at once, at the URL with /fail behind its path."""

    timeout: PositiveDuration = timedelta(seconds=15)
    """Time that one sign of life may take."""

"""Settings of the log as a receiver."""

from __future__ import annotations

from typing import Literal

from layerwatch.config.receivers.base import AlertReceiverSettings


class LogReceiverSettings(AlertReceiverSettings):
    """A receiver that writes each event to the daemon's log."""

    kind: Literal["log"]
    """What the receiver is."""

"""Settings of Slack as a receiver."""

from __future__ import annotations

from typing import Literal

from layerwatch.config.receivers.base import HttpReceiverSettings, SecretUrl


class SlackReceiverSettings(HttpReceiverSettings):
    """A receiver that writes messages into a Slack channel."""

    kind: Literal["slack"]
    """What the receiver is."""

    url: SecretUrl
    """Incoming webhook of the channel, or the trigger of a workflow that takes the variable `text`."""

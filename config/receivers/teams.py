"""Settings of Microsoft Teams as a receiver."""

from __future__ import annotations

from typing import Literal

from layerwatch.config.receivers.base import HttpReceiverSettings, SecretUrl


class TeamsReceiverSettings(HttpReceiverSettings):
    """A receiver that posts cards to a Teams channel or chat through a workflow."""

    kind: Literal["teams"]
    """What the receiver is."""

    url: SecretUrl
    """Address of a workflow made from the template "Send webhook alerts to a channel" (or to a chat)."""

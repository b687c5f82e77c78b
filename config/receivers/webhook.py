"""Settings of a webhook."""

from __future__ import annotations

from typing import Literal

from layerwatch.config.receivers.base import HttpReceiverSettings, SecretUrl
from layerwatch.config.secrets import Secret


class WebhookReceiverSettings(HttpReceiverSettings):
    """A receiver that gets each event as a signed HTTP POST."""

    kind: Literal["webhook"]
    """What the receiver is."""

    url: SecretUrl
    """Where to post: an http or https URL."""

    secret: Secret | None = None
    """Key that every event is signed with; without one, events are not signed."""

    format: Literal["standard", "cloudevents"] = "standard"
    """What is posted: the event as Standard Webhooks has it, or the same as a CloudEvent (structured JSON)."""

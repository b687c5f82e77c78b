"""Settings of PagerDuty as a receiver."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from layerwatch.config.receivers.base import HttpReceiverSettings, check_webhook_url
from layerwatch.config.secrets import Secret


def _checked(url: str) -> str:
    check_webhook_url(url)
    return url


class PagerDutyReceiverSettings(HttpReceiverSettings):
    """A receiver that opens and resolves alerts in PagerDuty, Events API v2."""

    kind: Literal["pagerduty"]
    """What the receiver is."""

    routing_key: Secret
    """Integration key of the service, 32 characters."""

    url: Annotated[str, AfterValidator(_checked)] = "https://events.pagerduty.com/v2/enqueue"
    """Where events go; https://events.eu.pagerduty.com/v2/enqueue for accounts in the EU."""

"""Who can be told: one file of settings per kind of receiver."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from layerwatch.config.receivers.alertmanager import AlertmanagerReceiverSettings
from layerwatch.config.receivers.apprise import AppriseReceiverSettings
from layerwatch.config.receivers.base import HttpReceiverSettings, RemoteReceiverSettings
from layerwatch.config.receivers.heartbeat import HeartbeatReceiverSettings
from layerwatch.config.receivers.log import LogReceiverSettings
from layerwatch.config.receivers.pagerduty import PagerDutyReceiverSettings
from layerwatch.config.receivers.slack import SlackReceiverSettings
from layerwatch.config.receivers.teams import TeamsReceiverSettings
from layerwatch.config.receivers.webhook import WebhookReceiverSettings

__all__ = [
    "AlertmanagerReceiverSettings",
    "AppriseReceiverSettings",
    "HeartbeatReceiverSettings",
    "HttpReceiverSettings",
    "LogReceiverSettings",
    "PagerDutyReceiverSettings",
    "ReceiverSettings",
    "RemoteReceiverSettings",
    "SlackReceiverSettings",
    "TeamsReceiverSettings",
    "WebhookReceiverSettings",
]

ReceiverSettings = Annotated[
    WebhookReceiverSettings
    | LogReceiverSettings
    | AlertmanagerReceiverSettings
    | PagerDutyReceiverSettings
    | SlackReceiverSettings
    | TeamsReceiverSettings
    | AppriseReceiverSettings
    | HeartbeatReceiverSettings,
    Field(discriminator="kind"),
]
"""Settings of one receiver, told apart by ``kind``."""

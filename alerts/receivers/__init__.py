"""Receivers: one file per kind, and the table that leads from settings to them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.errors import DeliveryError, ReceiversError
from layerwatch.alerts.receivers.alertmanager import AlertmanagerReceiver
from layerwatch.alerts.receivers.apprise import AppriseReceiver
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.alerts.receivers.heartbeat import HeartbeatReceiver
from layerwatch.alerts.receivers.log import LogReceiver
from layerwatch.alerts.receivers.pagerduty import PagerDutyReceiver
from layerwatch.alerts.receivers.posting import Posting
from layerwatch.alerts.receivers.slack import SlackReceiver
from layerwatch.alerts.receivers.teams import TeamsReceiver
from layerwatch.alerts.receivers.webhook import WebhookReceiver
from layerwatch.config.receivers import (
    AlertmanagerReceiverSettings,
    AppriseReceiverSettings,
    HeartbeatReceiverSettings,
    HttpReceiverSettings,
    LogReceiverSettings,
    PagerDutyReceiverSettings,
    ReceiverSettings,
    SlackReceiverSettings,
    TeamsReceiverSettings,
    WebhookReceiverSettings,
)

LOG_NAME = "layerwatch.alerts.events"
"""Logger that log receivers write to."""


class _Checked(Receiver, Protocol):
    def check(self) -> None:
        """Find what is wrong with the settings without asking the network; raises DeliveryError."""


def _webhook(settings: WebhookReceiverSettings) -> Receiver:
    return _posting(
        WebhookReceiver,
        settings,
        url=settings.url,
        secret=settings.secret,
        cloudevents=settings.format == "cloudevents",
    )


def _log(settings: LogReceiverSettings) -> Receiver:
    return LogReceiver(
        name=settings.name, logger=logging.getLogger(LOG_NAME), send_resolved=settings.send_resolved
    )


def _alertmanager(settings: AlertmanagerReceiverSettings) -> Receiver:
    return _posting(AlertmanagerReceiver, settings, urls=settings.urls, hold=settings.hold)


def _pagerduty(settings: PagerDutyReceiverSettings) -> Receiver:
    return _posting(PagerDutyReceiver, settings, url=settings.url, routing_key=settings.routing_key)


def _slack(settings: SlackReceiverSettings) -> Receiver:
    return _posting(SlackReceiver, settings, url=settings.url)


def _teams(settings: TeamsReceiverSettings) -> Receiver:
    return _posting(TeamsReceiver, settings, url=settings.url)


def _apprise(settings: AppriseReceiverSettings) -> Receiver:
    return _posting(AppriseReceiver, settings, url=settings.url)


def _posting(kind: Callable[..., _Checked], settings: HttpReceiverSettings, **own: object) -> Receiver:
    receiver = kind(
        name=settings.name,
        posting=_how_to_post(settings),
        max_age=settings.max_age,
        send_resolved=settings.send_resolved,
        **own,
    )
    receiver.check()
    return receiver


def _how_to_post(settings: HttpReceiverSettings | HeartbeatReceiverSettings) -> Posting:
    policy = AddressPolicy.from_cidrs(settings.allow_private_cidrs)
    if settings.ca_file is not None:
        return Posting(policy, settings.timeout, str(settings.ca_file), "ca_file")
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or None
    return Posting(policy, settings.timeout, bundle, "REQUESTS_CA_BUNDLE")


# Settings know their kind; the value type is wide because each builder takes its own settings class.
BUILDERS: Mapping[str, Callable[[Any], Receiver]] = {
    "webhook": _webhook,
    "log": _log,
    "alertmanager": _alertmanager,
    "pagerduty": _pagerduty,
    "slack": _slack,
    "teams": _teams,
    "apprise": _apprise,
}
"""Kind in the configuration -> how to build it. A new kind is one file, one settings class and one line here.

Heartbeats are no receivers of alerts: `build_heartbeats`.
"""


def build_receivers(settings: Sequence[ReceiverSettings]) -> dict[str, Receiver]:
    """All receivers of alerts by name, in the order of the settings; heartbeats are left out.

    Raises:
        ReceiversError: with every problem of every receiver, so that one reload shows them all.
    """
    receivers: dict[str, Receiver] = {}
    problems: list[str] = []
    for each in settings:
        if isinstance(each, HeartbeatReceiverSettings):
            continue
        if each.name in receivers:
            problems.append(f"{each.name}: the name is used by two receivers; rename one")
            continue
        try:
            receivers[each.name] = BUILDERS[each.kind](each)
        except DeliveryError as error:
            problems.append(f"{each.name}: {error.detail}")
        except ValueError as error:
            problems.append(f"{each.name}: allow_private_cidrs: {error}")
    if problems:
        raise ReceiversError(tuple(problems))
    return receivers


def build_heartbeats(settings: Sequence[ReceiverSettings]) -> tuple[HeartbeatReceiver, ...]:
    """The heartbeats among the receivers, in the order of the settings.

    Raises:
        ReceiversError: with every problem of every heartbeat.
    """
    heartbeats: list[HeartbeatReceiver] = []
    problems: list[str] = []
    for each in settings:
        if not isinstance(each, HeartbeatReceiverSettings):
            continue
        heartbeat = HeartbeatReceiver(
            name=each.name,
            url=each.url,
            every=each.every,
            posting=_how_to_post(each),
            report_failure=each.report_failure,
        )
        try:
            heartbeat.check()
        except DeliveryError as error:
            problems.append(f"{each.name}: {error.detail}")
        heartbeats.append(heartbeat)
    if problems:
        raise ReceiversError(tuple(problems))
    return tuple(heartbeats)

"""Receivers: one file per kind, and the table that leads from settings to them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.errors import DeliveryError, ReceiversError
from layerwatch.alerts.receivers.alertmanager import AlertmanagerReceiver
from layerwatch.alerts.receivers.apprise import AppriseReceiver
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.alerts.receivers.log import LogReceiver
from layerwatch.alerts.receivers.pagerduty import PagerDutyReceiver
from layerwatch.alerts.receivers.posting import Posting
from layerwatch.alerts.receivers.slack import SlackReceiver
from layerwatch.alerts.receivers.teams import TeamsReceiver
from layerwatch.alerts.receivers.webhook import WebhookReceiver
from layerwatch.config.receivers import (
    AlertmanagerReceiverSettings,
    AppriseReceiverSettings,
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


def _webhook(settings: WebhookReceiverSettings) -> Receiver:
    receiver = WebhookReceiver(
        name=settings.name,
        url=settings.url,
        secret=settings.secret,
        posting=_posting(settings),
        max_age=settings.max_age,
        send_resolved=settings.send_resolved,
    )
    receiver.check()
    return receiver


def _log(settings: LogReceiverSettings) -> Receiver:
    return LogReceiver(
        name=settings.name, logger=logging.getLogger(LOG_NAME), send_resolved=settings.send_resolved
    )


def _alertmanager(settings: AlertmanagerReceiverSettings) -> Receiver:
    receiver = AlertmanagerReceiver(
        name=settings.name,
        urls=settings.urls,
        hold=settings.hold,
        posting=_posting(settings),
        max_age=settings.max_age,
        send_resolved=settings.send_resolved,
    )
    receiver.check()
    return receiver


def _pagerduty(settings: PagerDutyReceiverSettings) -> Receiver:
    receiver = PagerDutyReceiver(
        name=settings.name,
        url=settings.url,
        routing_key=settings.routing_key,
        posting=_posting(settings),
        max_age=settings.max_age,
        send_resolved=settings.send_resolved,
    )
    receiver.check()
    return receiver


def _slack(settings: SlackReceiverSettings) -> Receiver:
    receiver = SlackReceiver(
        name=settings.name,
        url=settings.url,
        posting=_posting(settings),
        max_age=settings.max_age,
        send_resolved=settings.send_resolved,
    )
    receiver.check()
    return receiver


def _teams(settings: TeamsReceiverSettings) -> Receiver:
    receiver = TeamsReceiver(
        name=settings.name,
        url=settings.url,
        posting=_posting(settings),
        max_age=settings.max_age,
        send_resolved=settings.send_resolved,
    )
    receiver.check()
    return receiver


def _apprise(settings: AppriseReceiverSettings) -> Receiver:
    receiver = AppriseReceiver(
        name=settings.name,
        url=settings.url,
        timeout=settings.timeout,
        max_age=settings.max_age,
        send_resolved=settings.send_resolved,
    )
    receiver.check()
    return receiver


def _posting(settings: HttpReceiverSettings) -> Posting:
    return Posting(
        policy=AddressPolicy.from_cidrs(settings.allow_private_cidrs),
        timeout=settings.timeout,
        ca_bundle=os.environ.get("REQUESTS_CA_BUNDLE") or None,
    )


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
"""Kind in the configuration -> how to build it. A new kind is one file, one settings class and one line here."""


def build_receivers(settings: Sequence[ReceiverSettings]) -> dict[str, Receiver]:
    """All receivers by name, in the order of the settings.

    Raises:
        ReceiversError: with every problem of every receiver, so that one reload shows them all.
    """
    receivers: dict[str, Receiver] = {}
    problems: list[str] = []
    for each in settings:
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

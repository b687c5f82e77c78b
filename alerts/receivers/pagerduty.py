"""PagerDuty, Events API v2: one alert per group, opened and resolved under one ``dedup_key``.

https://developer.pagerduty.com/docs/events-api-v2/trigger-events/. An event told twice, a repetition, and a change of
severity all land on the alert that is already open. An event is at most 512 KB there; ours stay far below, because the
stored event that they are made from is below 20,000 bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.event import encode_event
from layerwatch.alerts.message import Message, message_of
from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers.posting import Posting, revealed
from layerwatch.alerts.text import plain
from layerwatch.config.secrets import Secret

_ROUTING_KEY_LENGTH = 32
_SUMMARY_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class PagerDutyReceiver:
    """Sends ``trigger`` and ``resolve``.

    Attributes:
        name: name in the configuration.
        url: where events go.
        routing_key: integration key; read at each attempt.
        posting: how to post.
        max_age: events older than this are given up.
        send_resolved: whether it is told of resolutions; without them an alert stays open until a person closes it.
    """

    name: str
    url: str
    routing_key: Secret
    posting: Posting
    max_age: timedelta
    send_resolved: bool = True

    def check(self) -> None:
        """Find what is wrong with the settings without asking the network.

        Raises:
            DeliveryError: ``bad_secret``, or as `Posting.check`.
        """
        self.posting.check(self.url)
        self._key()

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """One POST. See `Receiver.send`."""
        self.posting.send(self.url, encode_for_pagerduty(entry.payload, self._key()), now)

    def _key(self) -> str:
        key = revealed(self.routing_key, "routing_key")
        if len(key) != _ROUTING_KEY_LENGTH:
            detail = f"routing_key must have {_ROUTING_KEY_LENGTH} characters, this one has {len(key)}"
            raise DeliveryError(DeliveryReason.BAD_SECRET, detail, retryable=False)
        return key


def encode_for_pagerduty(payload: str, routing_key: str) -> str:
    """The body of the request for the event ``payload`` (its stored JSON)."""
    event = json.loads(payload)
    data = event["data"]
    message = message_of(payload)
    identification = {"routing_key": routing_key, "dedup_key": data["group_id"]}
    if message.phase is AlertPhase.RESOLVED:
        return encode_event({**identification, "event_action": "resolve"})
    worst = data["alerts"][0]
    report = (worst["links"] or {}).get("report")
    picture = (worst["links"] or {}).get("picture")
    return encode_event(
        {
            **identification,
            "event_action": "trigger",
            "client": "layerwatch",
            **({"client_url": report} if report else {}),
            "payload": {
                "summary": plain(message.summary, _SUMMARY_LIMIT),
                "source": f"{worst['registry']}/{worst['model']}",
                "severity": message.severity.value,  # PagerDuty's words, beside "error", are the same
                "timestamp": event["timestamp"],
                "component": worst["ref"],
                "group": worst["model"],
                "class": worst["group"],
                "custom_details": _details(message, data),
            },
            "links": [{"href": link.url, "text": link.title} for link in message.links],
            **({"images": [{"src": picture, "alt": "Spectrum"}]} if _is_https(picture) else {}),
        }
    )


def _details(message: Message, data: dict[str, Any]) -> dict[str, Any]:
    return {
        **{fact.name: fact.text for fact in message.sections[0].facts},
        "Findings": [finding for alert in data["alerts"] for finding in alert["findings"]],
        "Findings not shown": sum(section.omitted for section in message.sections),
        "Also": [section.title for section in message.sections[1:]] + list(message.omitted),
        "Event": data["event_id"],
    }


def _is_https(url: str | None) -> bool:
    """PagerDuty shows pictures from https addresses only."""
    return url is not None and url.startswith("https://")

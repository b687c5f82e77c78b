"""Every kind of receiver that sends something over the network, made to lead to a server of the tests."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Protocol

import pytest

from alertvalues import NOW, entry
from hookserver import Received
from layerwatch.alerts.errors import DeliveryError
from layerwatch.alerts.receivers import BUILDERS, build_heartbeats, build_receivers
from layerwatch.config.base import SettingsModel
from layerwatch.config.receivers import ReceiverSettings

TOKEN = "T0KEN0123456789abcdefghijklmnopq"
"""Secret of every receiver; as long as a routing key of PagerDuty."""

SIGNING_KEY = "whsec_" + base64.b64encode(b"0123456789abcdefSIGNINGK").decode()

SECRETS = ("T0KEN", SIGNING_KEY, SIGNING_KEY.removeprefix("whsec_"), "SIGNINGK")
"""What must never be seen."""

KINDS = tuple(sorted({*BUILDERS, "heartbeat"} - {"log"}))
GUARDED = tuple(kind for kind in KINDS if kind != "apprise")
"""Kinds that send through layerwatch.alerts.http; Apprise has a process of its own."""

LOOPBACK = ("127.0.0.0/8",)


class _OneReceiver(SettingsModel):
    receiver: ReceiverSettings


class Sender(Protocol):
    """One attempt of a receiver that was built."""

    def __call__(self) -> None:
        """Send; raises DeliveryError."""


def values_of(kind: str, url: str, /, **more: object) -> dict[str, object]:
    """Settings of a receiver of a kind that leads to the server at ``url``, with a secret in them.

    Args:
        url: ``http://HOST:PORT`` or ``https://HOST:PORT``.
    """
    particular: Mapping[str, Mapping[str, object]] = {
        "webhook": {"url": f"{url}/{TOKEN}", "secret": SIGNING_KEY},
        "alertmanager": {"urls": [f"{url}/{TOKEN}"]},
        "pagerduty": {"url": f"{url}/v2/enqueue", "routing_key": TOKEN},
        "slack": {"url": f"{url}/services/{TOKEN}"},
        "teams": {"url": f"{url}/workflows/w/triggers/manual/paths/invoke?sig={TOKEN}"},
        "heartbeat": {"url": f"{url}/ping/{TOKEN}"},
        "apprise": {"url": f"{url.replace('https', 'jsons', 1).replace('http', 'json', 1)}/{TOKEN}"},
    }
    return {"name": "oncall", "kind": kind, **particular[kind], **more}


def settings_of(kind: str, url: str, /, **more: object) -> ReceiverSettings:
    """The same, validated."""
    return _OneReceiver.model_validate({"receiver": values_of(kind, url, **more)}).receiver


def built(settings: ReceiverSettings) -> object:
    """The receiver of these settings; raises ReceiversError."""
    if settings.kind == "heartbeat":
        return build_heartbeats([settings])[0]
    return build_receivers([settings])[settings.name]


def sender(kind: str, url: str, /, **more: object) -> Sender:
    """Build a receiver; raises ReceiversError, or pydantic's ValidationError."""
    settings = settings_of(kind, url, **more)
    if settings.kind == "heartbeat":
        (heartbeat,) = build_heartbeats([settings])
        return lambda: heartbeat.beat(True, NOW)
    receiver = build_receivers([settings])["oncall"]
    return lambda: receiver.send(entry(), NOW)


def failure(kind: str, url: str, /, **more: object) -> DeliveryError:
    """Build a receiver, and let one attempt fail."""
    send = sender(kind, url, **more)
    with pytest.raises(DeliveryError) as caught:
        send()
    return caught.value


def needs(kind: str) -> None:
    """Skip where the library of a kind is not installed."""
    if kind == "apprise":
        pytest.importorskip("apprise", reason="the extra apprise is not installed")


def has_secret(received: Received) -> bool:
    """Whether the secret of the receiver reached the other side, so that a test of its absence elsewhere can fail."""
    text = f"{received.path} {dict(received.headers)} {received.body.decode()}"
    return "T0KEN" in text

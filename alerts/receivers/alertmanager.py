"""Prometheus Alertmanager, API v2: ``POST /api/v2/alerts`` at every peer.

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml. An Alertmanager knows an alert by its labels
and holds it until its ``endsAt``; a Prometheus sends each alert again every minute, this daemon only at
the route's ``repeat_interval``. Hence:

* a firing alert carries an ``endsAt`` of ``hold`` after the attempt. An alert that is not told again within that time,
  because the daemon is gone, ends in Alertmanager although nobody mended the model. ``hold`` must be longer than
  ``repeat_interval``.
* an Alertmanager keeps no alerts over a restart: one that restarts shows the alert again at the next repetition.
* the severity is a label, so that routes can match it. An alert that became worse is another alert for Alertmanager;
  the event that says so therefore also ends the alert's milder forms.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from layerwatch.alerts.errors import DeliveryError
from layerwatch.alerts.message import Message, as_text, message_of
from layerwatch.alerts.model import AlertPhase, TransitionReason
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers.posting import Posting, revealed
from layerwatch.config.secrets import Secret
from layerwatch.metrics.findings import Severity

ALERT_NAME = "LayerwatchAlert"
_PATH = "/api/v2/alerts"
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AlertmanagerReceiver:
    """Posts to all peers of a cluster, which tell each other of notifications but not of alerts.

    Attributes:
        name: name in the configuration.
        urls: one address for each peer; read at each attempt.
        hold: how long an alert stays that is not told again.
        posting: how to post.
        max_age: events older than this are given up.
        send_resolved: whether it is told of resolutions; without them an alert ends with its ``hold``.
    """

    name: str
    urls: tuple[Secret, ...]
    hold: timedelta
    posting: Posting
    max_age: timedelta
    send_resolved: bool = True

    def check(self) -> None:
        """Find what is wrong with the settings without asking the network. Raises as `Posting.check`."""
        for url in self.urls:
            self.posting.check(_endpoint(revealed(url, "urls")))

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """One POST to each peer, all at the same time. See `Receiver.send`.

        The event is delivered when one peer took it; that the others did not is logged. When none did, the error
        is that of a peer that may take it later, if there is one, and its detail names them all.
        """
        body = encode_alerts(entry.payload, now + self.hold)

        def told(url: Secret) -> DeliveryError | None:
            try:
                self.posting.send(_endpoint(revealed(url, "urls")), body, now)
            except DeliveryError as error:
                return error
            return None

        with ThreadPoolExecutor(len(self.urls), thread_name_prefix="layerwatch-alertmanager") as pool:
            errors = [error for error in pool.map(told, self.urls) if error is not None]
        if len(errors) == len(self.urls):
            raise _combined(errors)
        for error in errors:
            _LOGGER.warning(
                "a peer of receiver %s did not take event %s: %s", self.name, entry.event_id, error
            )


def encode_alerts(payload: str, holds_until: datetime) -> str:
    """The body of the request: the alert of the event ``payload``; where it became worse, its milder forms as ended.

    Args:
        payload: the stored JSON of an event.
        holds_until: tz-aware end of the alert if it fires and is not told again.
    """
    event = json.loads(payload)
    data = event["data"]
    message = message_of(payload)
    firing = message.phase is AlertPhase.FIRING
    worse = data["reason"] == TransitionReason.RAISED_SEVERITY.value
    milder = [each for each in Severity if worse and each.rank < message.severity.rank]
    links = data["links"] or {}
    alerts = [
        {
            "labels": _labels(data, severity),
            "annotations": _annotations(data, message, severity),
            "startsAt": data["started_at"],
            "endsAt": _iso(holds_until) if firing and severity is message.severity else event["timestamp"],
            **({"generatorURL": links["report"]} if links.get("report") else {}),
        }
        for severity in [message.severity, *milder]
    ]
    return json.dumps(alerts, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _labels(data: Mapping[str, Any], severity: Severity) -> dict[str, str]:
    """What an alert is known by: nothing in it may change between its first event and its last."""
    return {
        "alertname": ALERT_NAME,
        "registry": data["registry"],
        "model": data["model"],
        "ref": data["ref"],
        "rule_group": data["group"],
        "severity": severity.value,
    }


def _annotations(data: Mapping[str, Any], message: Message, severity: Severity) -> dict[str, str]:
    if severity is not message.severity:
        return {"summary": f"{severity.value} no longer: {message.summary}"}
    links = data["links"] or {}
    annotations = {
        "summary": message.summary,
        "description": as_text(message),
        "version": data["version"],
        "event_id": data["event_id"],
        "report_url": links.get("report"),
        "runbook_url": links.get("runbook"),
    }
    return {name: text for name, text in annotations.items() if text}


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + _PATH))


def _combined(errors: list[DeliveryError]) -> DeliveryError:
    worth_waiting = [error for error in errors if error.retryable]
    told = (worth_waiting or errors)[0]
    waits = [error.retry_after for error in worth_waiting if error.retry_after is not None]
    return DeliveryError(
        told.reason,
        "; ".join(error.detail for error in errors),
        retryable=told.retryable,
        retry_after=min(waits) if len(waits) == len(worth_waiting) and waits else None,
    )


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")

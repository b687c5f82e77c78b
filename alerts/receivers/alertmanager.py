"""Prometheus Alertmanager, API v2: ``POST /api/v2/alerts`` at every peer.

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml. An Alertmanager knows an alert by its labels
and holds it until its ``endsAt``. Like a Prometheus, the daemon sends every alert that fires again each minute, and one
that ended for a quarter of an hour, whatever the route's ``repeat_interval`` (`layerwatch.daemon.resending`). Hence:

* an Alertmanager that restarts, and keeps no alerts over that, has them again within a minute.
* a firing alert carries an ``endsAt`` of ``hold`` after the attempt: so long it outlives a daemon that is gone.
* the severity is a label, so that routes can match it. An alert that became worse is another alert for Alertmanager;
  the event that says so therefore also ends the alert's milder forms.
* Alertmanager groups and waits by itself: let ``group_wait`` and ``group_interval`` be 0s on a route that leads here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from layerwatch.alerts.errors import DeliveryError
from layerwatch.alerts.event import encode_event, summary_of, where_of
from layerwatch.alerts.http import extended
from layerwatch.alerts.message import as_text, message_of
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
    """The body of the request: the alerts of the event ``payload``; of one that became worse also its milder forms, ended.

    Args:
        payload: the stored JSON of an event.
        holds_until: tz-aware end of alerts that fire and are not told again.
    """
    data = json.loads(payload)["data"]
    alerts = [one for alert in data["alerts"] for one in _forms(alert, _iso(holds_until))]
    return json.dumps(alerts, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _forms(alert: Mapping[str, Any], holds_until: str) -> Iterator[dict[str, Any]]:
    firing = alert["phase"] == AlertPhase.FIRING.value
    reason = TransitionReason(alert["reason"])
    severity = Severity(alert["severity"])
    message = message_of(encode_event({"data": _alone(alert, reason)}))
    links = alert["links"] or {}
    page = {"generatorURL": links["report"]} if links.get("report") else {}
    annotations = {
        "summary": message.summary,
        "description": as_text(message),
        "version": alert["version"],
        "event_id": alert["transition"],
        "report_url": links.get("report"),
        "runbook_url": links.get("runbook"),
        "picture_url": links.get("picture"),
    }
    yield {
        "labels": _labels(alert, severity),
        "annotations": {name: text for name, text in annotations.items() if text},
        **_span(alert, holds_until if firing else alert["changed_at"]),
        **page,
    }
    for milder in map(Severity, alert.get("milder", ())):
        if milder is not severity:
            yield {
                "labels": _labels(alert, milder),
                "annotations": {"summary": f"{milder.value} no longer: {message.summary}"},
                **_span(alert, alert["changed_at"]),
                **page,
            }


def _alone(alert: Mapping[str, Any], reason: TransitionReason) -> dict[str, Any]:
    """The event of this alert alone, told for the alert's own reason: the same whenever it is sent again."""
    return {
        "phase": alert["phase"],
        "severity": alert["severity"],
        "subject": where_of([alert]),
        "summary": summary_of([alert], reason),
        "alerts": [alert],
        "alerts_omitted": 0,
        "muted": 0,
    }


def _span(alert: Mapping[str, Any], ends_at: str) -> dict[str, str]:
    """From when to when. Alertmanager refuses an end before the start, as a clock that was set back leaves behind."""
    return {"startsAt": min(alert["started_at"], ends_at, key=datetime.fromisoformat), "endsAt": ends_at}


def _labels(alert: Mapping[str, Any], severity: Severity) -> dict[str, str]:
    """What an alert is known by: nothing in it may change between its first event and its last."""
    return {
        "alertname": ALERT_NAME,
        "registry": alert["registry"],
        "model": alert["model"],
        "ref": alert["ref"],
        "rule_group": alert["group"],
        "severity": severity.value,
    }


def _endpoint(url: str) -> str:
    return extended(url, _PATH)


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

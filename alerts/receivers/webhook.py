"""Webhooks after Standard Webhooks 1.0.0: signed JSON by POST, to one URL; the body may be a CloudEvent.

The headers of Standard Webhooks are sent in both formats; the signature is over the bytes that are sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from layerwatch.alerts.cloudevents import CONTENT_TYPE, encode_cloudevent
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers.posting import Posting, revealed
from layerwatch.alerts.signing import KeyTextError, Signer, unsigned_headers
from layerwatch.config.secrets import Secret


@dataclass(frozen=True, slots=True)
class WebhookReceiver:
    """Posts events to a URL.

    Attributes:
        name: name in the configuration.
        url: http or https; read at each attempt, so that a rotated file takes effect without a reload.
        secret: one or more signing keys (`layerwatch.alerts.signing`), read at each attempt; None sends unsigned.
        posting: how to post.
        max_age: events older than this are given up.
        send_resolved: whether it is told of resolutions.
        cloudevents: whether a CloudEvent is sent in place of the stored payload as it is.
    """

    name: str
    url: Secret
    secret: Secret | None
    posting: Posting
    max_age: timedelta
    send_resolved: bool = True
    cloudevents: bool = False

    def check(self) -> None:
        """Find what is wrong with the settings without asking the network.

        Raises:
            DeliveryError: ``bad_secret``, or as `Posting.check`.
        """
        self.posting.check(revealed(self.url, "url"))
        self._signer()

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """One POST of ``entry.payload``, or of the CloudEvent made of it. See `Receiver.send`."""
        body, headers = entry.payload, {}
        if self.cloudevents:
            body, headers = encode_cloudevent(entry.payload), {"Content-Type": CONTENT_TYPE}
        signer = self._signer()
        if signer is None:
            headers.update(unsigned_headers(entry.event_id, now))
        else:
            headers.update(signer.headers(entry.event_id, now, body))
        self.posting.send(revealed(self.url, "url"), body, now, headers)

    def _signer(self) -> Signer | None:
        if self.secret is None:
            return None
        text = revealed(self.secret, "secret")
        try:
            return Signer(text)
        except KeyTextError as error:
            problem = str(error)
        raise DeliveryError(DeliveryReason.BAD_SECRET, problem, retryable=False)

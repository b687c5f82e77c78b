"""Webhooks after Standard Webhooks 1.0.0: signed JSON by POST, to one URL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

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
    """

    name: str
    url: Secret
    secret: Secret | None
    posting: Posting
    max_age: timedelta
    send_resolved: bool = True

    def check(self) -> None:
        """Find what is wrong with the settings without asking the network.

        Raises:
            DeliveryError: ``bad_secret``, or as `Posting.check`.
        """
        self.posting.check(revealed(self.url, "url"))
        self._signer()

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """One POST of ``entry.payload``. See `Receiver.send`."""
        signer = self._signer()
        if signer is None:
            identification = unsigned_headers(entry.event_id, now)
        else:
            identification = signer.headers(entry.event_id, now, entry.payload)
        self.posting.send(revealed(self.url, "url"), entry.payload, now, identification)

    def _signer(self) -> Signer | None:
        if self.secret is None:
            return None
        text = revealed(self.secret, "secret")
        try:
            return Signer(text)
        except KeyTextError as error:
            problem = str(error)
        raise DeliveryError(DeliveryReason.BAD_SECRET, problem, retryable=False)

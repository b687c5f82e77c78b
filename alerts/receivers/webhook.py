"""Webhooks after Standard Webhooks 1.0.0: signed JSON by POST, to one URL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from layerwatch import __version__
from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.http import check_url, post
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.signing import KeyTextError, Signer, unsigned_headers
from layerwatch.config.secrets import Secret, SecretError


@dataclass(frozen=True, slots=True)
class WebhookReceiver:
    """Posts events to a URL.

    Attributes:
        name: name in the configuration.
        url: http or https; read at each attempt, so that a rotated file takes effect without a reload.
        secret: one or more signing keys (`layerwatch.alerts.signing`), read at each attempt; None sends unsigned.
        policy: addresses that may be connected to.
        timeout: limit of one attempt.
        max_age: events older than this are given up.
        send_resolved: whether it is told of resolutions.
        ca_bundle: PEM file or folder of certificate authorities to trust in place of the built-in list.
    """

    name: str
    url: Secret
    secret: Secret | None
    policy: AddressPolicy
    timeout: timedelta
    max_age: timedelta
    send_resolved: bool = True
    ca_bundle: str | None = None

    def check(self) -> None:
        """Find what is wrong with the settings without asking the network.

        Raises:
            DeliveryError: ``bad_url``, ``bad_secret``, ``forbidden_address``, or ``tls`` without its authorities.
        """
        check_url(_revealed(self.url, "url"), self.policy)
        self._signer()
        if self.ca_bundle is not None and not Path(self.ca_bundle).exists():
            detail = f"certificate authorities {self.ca_bundle} (REQUESTS_CA_BUNDLE) do not exist"
            raise DeliveryError(DeliveryReason.TLS, detail, retryable=False)

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """One POST of ``entry.payload``. See `Receiver.send`."""
        signer = self._signer()
        if signer is None:
            identification = unsigned_headers(entry.event_id, now)
        else:
            identification = signer.headers(entry.event_id, now, entry.payload)
        post(
            _revealed(self.url, "url"),
            entry.payload.encode("utf-8"),
            {
                "Content-Type": "application/json",
                "User-Agent": f"layerwatch/{__version__}",
                **identification,
            },
            policy=self.policy,
            timeout=self.timeout,
            now=now,
            ca_bundle=self.ca_bundle,
        )

    def _signer(self) -> Signer | None:
        if self.secret is None:
            return None
        text = _revealed(self.secret, "secret")
        try:
            return Signer(text)
        except KeyTextError as error:
            problem = str(error)
        raise DeliveryError(DeliveryReason.BAD_SECRET, problem, retryable=False)


def _revealed(secret: Secret, what: str) -> str:
    try:
        # A secret file written with an editor or by a template often carries white space at its ends.
        return secret.reveal().strip()
    except SecretError as error:
        # The file or variable may come back while the event is still news.
        raise DeliveryError(
            DeliveryReason.BAD_SECRET, f"{what} cannot be read: {error}", retryable=True
        ) from None

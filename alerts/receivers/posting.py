"""What receivers that post over HTTP share: how they post, and how they read their secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from layerwatch import __version__
from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.http import check_url, post
from layerwatch.config.secrets import Secret, SecretError


@dataclass(frozen=True, slots=True)
class Posting:
    """How to post.

    Attributes:
        policy: addresses that may be connected to.
        timeout: limit of one attempt.
        ca_bundle: PEM file or folder of certificate authorities to trust in place of the built-in list.
    """

    policy: AddressPolicy
    timeout: timedelta
    ca_bundle: str | None = None

    def check(self, url: str) -> None:
        """Find what is wrong with ``url`` and these settings without asking the network.

        Raises:
            DeliveryError: ``bad_url``, ``forbidden_address``, or ``tls`` without its authorities.
        """
        check_url(url, self.policy)
        if self.ca_bundle is not None and not Path(self.ca_bundle).exists():
            detail = f"certificate authorities {self.ca_bundle} (REQUESTS_CA_BUNDLE) do not exist"
            raise DeliveryError(DeliveryReason.TLS, detail, retryable=False)

    def send(self, url: str, body: str, now: datetime, headers: Mapping[str, str] | None = None) -> None:
        """One POST of the JSON text ``body``, with ``headers`` beside its own. Raises as `post` does."""
        post(
            url,
            body.encode("utf-8"),
            {
                "Content-Type": "application/json",
                "User-Agent": f"layerwatch/{__version__}",
                **(headers or {}),
            },
            policy=self.policy,
            timeout=self.timeout,
            now=now,
            ca_bundle=self.ca_bundle,
        )


def revealed(secret: Secret, what: str) -> str:
    """The text of ``secret``, which the configuration calls ``what``.

    Raises:
        DeliveryError: ``bad_secret``; to be tried again, as its file or variable may come back.
    """
    try:
        # A secret file written with an editor or by a template often carries white space at its ends.
        return secret.reveal().strip()
    except SecretError as error:
        raise DeliveryError(
            DeliveryReason.BAD_SECRET, f"{what} cannot be read: {error}", retryable=True
        ) from None

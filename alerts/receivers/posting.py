"""What receivers that speak HTTP share: how they send, and how they read their secrets."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from layerwatch import __version__
from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.http import check_url, get, post
from layerwatch.config.secrets import Secret, SecretError

_USER_AGENT = f"layerwatch/{__version__}"


@dataclass(frozen=True, slots=True)
class Posting:
    """How to send.

    Attributes:
        policy: addresses that may be connected to.
        timeout: limit of one attempt.
        ca_bundle: PEM file or folder of certificate authorities to trust in place of the built-in list.
        ca_key: what ``ca_bundle`` is called where it was set.
    """

    policy: AddressPolicy
    timeout: timedelta
    ca_bundle: str | None = None
    ca_key: str = "ca_file"

    def check(self, url: str) -> None:
        """Find what is wrong with ``url`` and these settings without asking the network.

        Raises:
            DeliveryError: ``bad_url``, ``forbidden_address``, or ``tls`` without usable authorities.
        """
        check_url(url, self.policy)
        self.check_authorities()

    def check_authorities(self) -> None:
        """Find what is wrong with ``ca_bundle``.

        Raises:
            DeliveryError: ``tls``.
        """
        self._require_authorities()
        if self.ca_bundle is None or Path(self.ca_bundle).is_dir():
            return
        try:
            ssl.create_default_context(cafile=self.ca_bundle)
        except ssl.SSLError:
            problem = "are no certificates in PEM form"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        else:
            return
        raise self._without_authorities(problem)

    def _require_authorities(self) -> None:
        if self.ca_bundle is not None and not Path(self.ca_bundle).exists():
            raise self._without_authorities("do not exist")

    def _without_authorities(self, problem: str) -> DeliveryError:
        detail = f"certificate authorities {self.ca_bundle} ({self.ca_key}) {problem}"
        # To be tried again: the file may be mended or come back.
        return DeliveryError(DeliveryReason.TLS, detail, retryable=True)

    def send(self, url: str, body: str, now: datetime, headers: Mapping[str, str] | None = None) -> None:
        """One POST of the JSON text ``body``, with ``headers`` beside or in place of its own. Raises as `post` does."""
        self._require_authorities()
        post(
            url,
            body.encode("utf-8"),
            {"Content-Type": "application/json", "User-Agent": _USER_AGENT, **(headers or {})},
            policy=self.policy,
            timeout=self.timeout,
            now=now,
            ca_bundle=self.ca_bundle,
        )

    def ask(self, url: str, now: datetime) -> None:
        """One GET whose answer is looked at for its status only. Raises as `get` does."""
        self._require_authorities()
        get(
            url,
            {"User-Agent": _USER_AGENT},
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

"""Signatures of outgoing webhooks: Standard Webhooks 1.0.0, symmetric (HMAC-SHA256, ``v1``).

How a configured secret becomes a key:

* ``whsec_`` followed by base64: the decoded bytes. This is the form receivers' libraries take; 24 to 64 bytes
  are recommended. Make one with ``echo whsec_$(openssl rand -base64 32)``.
* any other text: its UTF-8 bytes as they are. A receiver that uses a Standard Webhooks library is then given
  ``whsec_`` followed by the base64 of that text.
* several of either kind, separated by white space: each makes a signature, and a receiver that knows any of the
  keys accepts. To rotate a key, put the new one before the old, change the receivers, then take the old one away.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from standardwebhooks import Webhook

_PREFIX = "whsec_"


class KeyTextError(Exception):
    """A configured signing secret cannot be made into a key. The message never holds any part of it."""


class Signer:
    """Signs bodies with one or more keys."""

    __slots__ = ("_webhooks",)

    def __init__(self, secret: str) -> None:
        """Keys from ``secret`` as the module describes.

        Raises:
            KeyTextError: if there is no key in it, or a ``whsec_`` key is not base64.
        """
        texts = secret.split()
        if not texts:
            raise KeyTextError("the signing secret is empty")
        self._webhooks = tuple(
            Webhook(_key(text, number, len(texts))) for number, text in enumerate(texts, start=1)
        )

    def __repr__(self) -> str:
        return f"<Signer with {len(self._webhooks)} key(s)>"

    def headers(self, event_id: str, now: datetime, body: str) -> dict[str, str]:
        """The three headers of one attempt.

        Args:
            event_id: becomes ``webhook-id``; equal for all attempts.
            now: tz-aware time of this attempt, sent in whole seconds.
            body: exactly the text that is sent, as UTF-8.
        """
        # The library takes the clock reading for UTC whatever zone it carries.
        moment = now.astimezone(UTC)
        signatures = (webhook.sign(event_id, moment, body) for webhook in self._webhooks)
        return {**unsigned_headers(event_id, now), "webhook-signature": " ".join(signatures)}


def unsigned_headers(event_id: str, now: datetime) -> dict[str, str]:
    """The headers of an attempt without a signature, for receivers without a secret."""
    return {"webhook-id": event_id, "webhook-timestamp": str(int(now.timestamp()))}


def _key(text: str, number: int, count: int) -> bytes:
    if not text.startswith(_PREFIX):
        return text.encode("utf-8")
    which = "the signing secret" if count == 1 else f"signing secret {number} of {count}"
    encoded = text.removeprefix(_PREFIX).rstrip("=")
    failed = False
    key = b""
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        failed = True
    # Raised out here, so that no traceback carries the text as context.
    if failed or not key:
        raise KeyTextError(f"{which} begins with {_PREFIX} but is not base64 after it")
    return key

"""What can go wrong on the way to a receiver: one error class, one closed list of reasons.

``DeliveryError`` comes from receivers and says whether trying again can help. ``ReceiversError`` comes from
building receivers and carries every problem of the configuration at once.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from layerwatch.alerts.text import plain

_DETAIL_LIMIT = 300


class DeliveryReason(StrEnum):
    """Why an event was not delivered, by what an operator would do about it. A metric label: a closed list."""

    BAD_SECRET = "bad_secret"
    BAD_URL = "bad_url"
    CLIENT_ERROR = "client_error"
    CONNECTION = "connection"
    EXPIRED = "expired"
    FORBIDDEN_ADDRESS = "forbidden_address"
    GONE = "gone"
    INVALID_RESPONSE = "invalid_response"
    NAME_RESOLUTION = "name_resolution"
    RATE_LIMITED = "rate_limited"
    RECEIVER_REMOVED = "receiver_removed"
    REDIRECTED = "redirected"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    TLS = "tls"
    UNEXPECTED = "unexpected"


class DeliveryError(Exception):
    """One attempt to deliver one event failed.

    Attributes:
        reason: from the closed list.
        detail: a sentence for the operator. Never holds a secret, the path or query of a URL, or anything of
            the answer's body.
        retryable: True when a later attempt with the same configuration and the same event can succeed.
        retry_after: how long the receiver asked to be left alone; None when it did not.
    """

    def __init__(
        self,
        reason: DeliveryReason,
        detail: str,
        *,
        retryable: bool,
        retry_after: timedelta | None = None,
    ) -> None:
        self.reason = reason
        self.detail = plain(detail, _DETAIL_LIMIT)
        self.retryable = retryable
        self.retry_after = retry_after
        super().__init__(f"{reason.value}: {self.detail}")


class ReceiversError(Exception):
    """One or more receivers cannot be built from their settings.

    Attributes:
        problems: one sentence each, beginning with the receiver's name, in the order of the settings.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))

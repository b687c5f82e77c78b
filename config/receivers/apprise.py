"""Settings of Apprise as a receiver."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from layerwatch.config.receivers.base import RemoteReceiverSettings
from layerwatch.config.secrets import Secret


def _accepted(allowed: bool) -> bool:
    if not allowed:
        raise ValueError(
            "must be true: Apprise connects by itself, to any address, private ones included; "
            "allow_private_cidrs cannot hold it back"
        )
    return allowed


class AppriseReceiverSettings(RemoteReceiverSettings):
    """A receiver for the services that only Apprise speaks (extra `apprise`); sends text."""

    kind: Literal["apprise"]
    """What the receiver is."""

    url: Secret
    """One Apprise URL, such as ntfy://topic or mailto://user:password@host."""

    allow_unchecked_addresses: Annotated[bool, AfterValidator(_accepted)]
    """Must be true: addresses that Apprise connects to are not checked, private ones included."""

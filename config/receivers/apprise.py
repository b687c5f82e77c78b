"""Settings of Apprise as a receiver."""

from __future__ import annotations

from typing import Literal

from layerwatch.config.receivers.base import HttpReceiverSettings
from layerwatch.config.secrets import Secret


class AppriseReceiverSettings(HttpReceiverSettings):
    """A receiver for the services that only Apprise speaks (extra `apprise`); sends text."""

    kind: Literal["apprise"]
    """What the receiver is."""

    url: Secret
    """One Apprise URL, such as ntfy://topic or mailto://user:password@host."""

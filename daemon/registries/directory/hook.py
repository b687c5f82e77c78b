"""Events about a directory: whoever publishes into it may say so, with the secret as a bearer token."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from layerwatch.daemon.registries.hooks import HookEvent, require_bearer


def verify_hook(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> HookEvent:
    """The event "look now"; what is in the body does not matter. Raises HookRefused."""
    require_bearer(secret, headers)
    return HookEvent()

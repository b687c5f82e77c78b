"""Names of alerts and events that are the same on every attempt, after a restart and in every replica."""

from __future__ import annotations

import hashlib
import json

from layerwatch.alerts.model import AlertIdentity


def event_id(identity: AlertIdentity, fingerprint: str, transition: str, episode: int) -> str:
    """Id of one transition.

    Args:
        identity: registry, model, ref and rule group.
        fingerprint: fingerprint of the version it is about.
        transition: what happened, unique within the episode: ``firing``, ``changed:<severity>:<layers>``,
            ``resolved``.
        episode: which firing of this identity, from 1.

    Returns:
        ``evt_`` and 32 hexadecimal digits. No time and no random number goes in.
    """
    return "evt_" + _digest([*_parts(identity), fingerprint, transition, episode])


def alert_id(identity: AlertIdentity, episode: int) -> str:
    """Id shared by all events of one episode, so that a receiver can pair a resolution with its firing.

    Returns:
        ``alert_`` and 32 hexadecimal digits.
    """
    return "alert_" + _digest([*_parts(identity), episode])


def _parts(identity: AlertIdentity) -> list[str]:
    return [identity.registry, identity.model, identity.ref, identity.group.value]


def _digest(parts: list[str | int]) -> str:
    # A JSON list keeps the borders between the parts: ("a", "b/c") and ("a/b", "c") differ.
    canonical = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:32]

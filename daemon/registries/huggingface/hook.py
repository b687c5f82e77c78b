"""Events of the Hugging Face Hub: the secret comes as it is in ``X-Webhook-Secret``, and nothing is signed.

The Hub sends no delivery id and no time. What happened to which refs stands for the former, so that an event that is
sent again within the memory of deliveries is told from a new one.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from layerwatch.daemon.registries.hooks import HookEvent, HookReason, HookRefused

_HEADER = "x-webhook-secret"
_ABOUT_FILES = "repo"
"""Broadest scope of events about a repository; others are about discussions."""


def verify_hook(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> HookEvent:
    """Check an event and read what it is about; raises HookRefused.

    A scope counts as its broadest part (``repo.content`` as ``repo``), so that narrower ones may be added.
    """
    if not hmac.compare_digest(headers.get(_HEADER, "").encode(), secret.encode()):
        raise HookRefused(
            HookReason.FORGED, "the header X-Webhook-Secret does not carry the registry's hook_secret"
        )
    try:
        event = json.loads(body)
        scope, action = event["event"]["scope"], event["event"]["action"]
        kind, name = event["repo"]["type"], event["repo"]["name"]
        updates = [_update(one) for one in event.get("updatedRefs") or ()]
        if not all(isinstance(text, str) for text in (scope, action, kind, name)):
            raise TypeError("scope, action, type and name must be text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HookRefused(
            HookReason.MALFORMED,
            "the body is not an event of the Hub: event.scope, event.action, repo.type and repo.name are needed",
        ) from error
    if kind != "model":
        return HookEvent(relevant=False)
    relevant = bool(updates) or scope.split(".")[0] == _ABOUT_FILES
    return HookEvent(" ".join([name, *sorted(updates)]) if updates else None, name, relevant)


def _update(updated: Mapping[str, Any]) -> str:
    """One moved ref as text; a ref that is made has no old commit, one that is deleted no new one."""
    ref, old, new = updated["ref"], updated.get("oldSha"), updated.get("newSha")
    if not isinstance(ref, str) or not all(sha is None or isinstance(sha, str) for sha in (old, new)):
        raise TypeError("ref, oldSha and newSha must be text")
    return f"{ref}:{old or ''}:{new or ''}"

"""Events of OCI registries: distribution's notifications and Harbor's webhooks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from layerwatch.daemon.registries.hooks import HookEvent, HookReason, HookRefused, require_bearer

_MOST_EVENTS = 1000
_BLOB = "application/octet-stream"
_CHANGES = frozenset({"push", "delete"})
_HARBOR_CHANGES = frozenset(
    {"PUSH_ARTIFACT", "DELETE_ARTIFACT", "harbor.artifact.pushed", "harbor.artifact.deleted"}
)


def verify_hook(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> HookEvent:
    """An envelope of distribution, or an event of Harbor in its default or the CloudEvents form.

    Neither is signed or dated in a way that could be trusted: the sender shows the secret in ``Authorization``, as a
    bearer token, or in Harbor's case also bare. What was delivered before is known by the events' own ids, or by the
    whole body where there are none.

    Raises:
        HookRefused: FORGED without the secret, MALFORMED when it is neither of the two.
    """
    require_bearer(secret, headers, bare=True)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HookRefused(HookReason.MALFORMED, "the body is no JSON") from error
    if not isinstance(document, dict):
        raise HookRefused(HookReason.MALFORMED, "the body is no JSON object")
    if "events" in document:
        return _distribution(document["events"], body)
    return _harbor(document, body)


def _distribution(events: Any, body: bytes) -> HookEvent:
    if not isinstance(events, list) or not 0 < len(events) <= _MOST_EVENTS:
        raise HookRefused(HookReason.MALFORMED, "the envelope holds no list of events")
    ids: list[str] = []
    repositories = set()
    relevant = False
    for event in events:
        if not isinstance(event, dict) or not isinstance(event.get("action"), str):
            raise HookRefused(HookReason.MALFORMED, "an event of the envelope has no action")
        target = event.get("target")
        target = target if isinstance(target, dict) else {}
        ids.append(str(event.get("id") or ""))
        # Each layer of a push is told as well, before its manifest.
        if event["action"] in _CHANGES and target.get("mediaType") != _BLOB:
            relevant = True
            repositories.add(target.get("repository"))
    delivery = _short("\n".join(ids).encode(errors="replace") if all(ids) else body)
    model = repositories.pop() if len(repositories) == 1 else None
    return HookEvent(delivery, model if isinstance(model, str) else None, relevant, insistent=True)


def _harbor(document: dict[str, Any], body: bytes) -> HookEvent:
    kind = document.get("type")
    data = document.get("data" if "specversion" in document else "event_data")
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise HookRefused(
            HookReason.MALFORMED, "the body is neither an envelope of distribution nor an event of Harbor"
        )
    repository = data.get("repository")
    model = repository.get("repo_full_name") if isinstance(repository, dict) else None
    named = model if isinstance(model, str) else None
    return HookEvent(_short(body), named, kind in _HARBOR_CHANGES, insistent=True)


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""Events about objects, as the stores send them; none is signed, so the secret comes as a bearer token.

Understood are the events of S3 (also from servers that speak its protocol), of EventBridge, of Pub/Sub for Google Cloud
Storage, and of Azure's Event Grid. Any other JSON is taken for a hint that something was published. None tells the
model: its place in the key depends on the prefix that the registry watches. None has a delivery id: the stores deliver
at least once, and one of them repeats what is refused for days.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from layerwatch.daemon.registries.hooks import HookEvent, HookReason, HookRefused, require_bearer

_CHANGES = (
    "ObjectCreated",
    "ObjectRemoved",
    "ObjectRestore:Completed",
    "LifecycleExpiration",
    "Object Created",
    "Object Deleted",
    "Object Restore Completed",
    "OBJECT_FINALIZE",
    "OBJECT_DELETE",
    "OBJECT_ARCHIVE",
    "Microsoft.Storage.BlobCreated",
    "Microsoft.Storage.BlobDeleted",
    "Microsoft.Storage.BlobRenamed",
    "Microsoft.Storage.DirectoryRenamed",
    "Microsoft.Storage.DirectoryDeleted",
)
"""What names of events begin with, after which a listing is another one."""

_MOST_EVENTS = 1000


def verify_hook(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> HookEvent:
    """The event, relevant unless it names only things that change no listing (a download, a tag, a test).

    Raises:
        HookRefused: FORGED without the bearer token; MALFORMED when the body is not JSON.
    """
    require_bearer(secret, headers)
    try:
        told = json.loads(body)
        names = [name for event in _events(told) if (name := _name(event)) is not None]
    except (ValueError, RecursionError) as error:
        raise HookRefused(HookReason.MALFORMED, "the body is not the JSON of an event") from error
    if not isinstance(told, dict | list):
        raise HookRefused(HookReason.MALFORMED, "the body is not the JSON of an event")
    relevant = not names or any(name.removeprefix("s3:").startswith(_CHANGES) for name in names)
    return HookEvent(relevant=relevant)


def _events(told: object) -> Iterator[Mapping[str, Any]]:
    """The single events: a list, the ``Records`` of S3, or one alone."""
    if isinstance(told, dict) and isinstance(told.get("Records"), list):
        told = told["Records"]
    for event in told[:_MOST_EVENTS] if isinstance(told, list) else [told]:
        if isinstance(event, dict):
            yield event


def _name(event: Mapping[str, Any]) -> str | None:
    """What happened, wherever the sender writes it."""
    message = event.get("message")
    attributes = message.get("attributes") if isinstance(message, dict) else None
    candidates = [
        event.get("eventName"),
        event.get("detail-type"),
        event.get("eventType"),
        event.get("type"),
        event.get("Event"),
        attributes.get("eventType") if isinstance(attributes, dict) else None,
    ]
    return next((name for name in candidates if isinstance(name, str)), None)

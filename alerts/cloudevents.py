"""An event as a CloudEvent 1.0: structured mode, JSON (https://github.com/cloudevents/spec, v1.0.2).

Source and id together name the event: the id is the event's own, the source is ``/layerwatch/REGISTRY/MODEL``, or less of
it where the event is about several models or registries. The body is made of the stored payload alone, so that every
attempt sends the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from layerwatch.alerts.event import encode_event
from layerwatch.alerts.text import plain

CONTENT_TYPE = "application/cloudevents+json"
_SOURCE = "/layerwatch"
_SUBJECT_LIMIT = 400


def encode_cloudevent(payload: str) -> str:
    """The body of the request for the event ``payload`` (its stored JSON): compact JSON."""
    event = json.loads(payload)
    data = event["data"]
    # Attributes must not hold control characters, and an empty subject is none.
    subject = plain(data.get("subject") or "", _SUBJECT_LIMIT)
    return encode_event(
        {
            "specversion": "1.0",
            "id": data["event_id"],
            "source": _source(data.get("labels") or {}),
            "type": event["type"],
            "time": event["timestamp"],
            **({"subject": subject} if subject else {}),
            "datacontenttype": "application/json",
            "data": data,
        }
    )


def _source(labels: Mapping[str, Sequence[str]]) -> str:
    source = _SOURCE
    for label in ("registry", "model"):
        values = labels.get(label, ())
        if len(values) != 1:
            break
        source += f"/{quote(values[0], safe='')}"
    return source

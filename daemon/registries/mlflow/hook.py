"""Events of MLflow's own webhooks.

Signed is ``DELIVERY_ID.TIMESTAMP.BODY`` with HMAC-SHA256; the key is the secret's text as it is, and the signature is
``v1,`` and base64. The headers are ``X-MLflow-Signature``, ``X-MLflow-Timestamp`` (seconds since 1970) and
``X-MLflow-Delivery-Id`` (mlflow/webhooks/delivery.py). Retries carry the same three, so that the window must be longer
than those take.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from layerwatch.daemon.registries.hooks import HookEvent, HookReason, HookRefused

WINDOW = timedelta(minutes=5)
"""So far the time of an event may be from now."""

_ENTITIES = frozenset({"registered_model", "model_version", "model_version_tag", "model_version_alias"})
_OWN_TAGS = frozenset({"layerwatch.verdict", "layerwatch.report", "layerwatch.fingerprint"})
_LONGEST_ID = 200


def verify_hook(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> HookEvent:
    """The event, when it is signed with the secret.

    Args:
        headers: with lower-case names.
        body: as it came.

    Raises:
        HookRefused: FORGED, STALE or MALFORMED.
    """
    signature = headers.get("x-mlflow-signature", "")
    delivery_id = headers.get("x-mlflow-delivery-id", "")
    timestamp = headers.get("x-mlflow-timestamp", "")
    if not signature or not delivery_id or not timestamp:
        raise HookRefused(
            HookReason.FORGED,
            "the headers X-MLflow-Signature, -Delivery-Id and -Timestamp must be there: give the webhook a secret, the "
            "registry's hook_secret",
        )
    signed = f"{delivery_id}.{timestamp}.".encode(errors="surrogateescape") + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    right = b"v1," + base64.b64encode(digest)
    # Several signatures may stand in one header while a secret is changed.
    given = [one.encode(errors="surrogateescape") for one in signature.split(" ")[:10]]
    if not any(hmac.compare_digest(one, right) for one in given):
        raise HookRefused(HookReason.FORGED, "the signature is not made with the registry's hook_secret")
    _require_recent(timestamp, now)
    if len(delivery_id) > _LONGEST_ID:
        raise HookRefused(HookReason.MALFORMED, f"the delivery id has more than {_LONGEST_ID} characters")
    return _event(delivery_id, body)


def _require_recent(timestamp: str, now: datetime) -> None:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise HookRefused(HookReason.MALFORMED, "X-MLflow-Timestamp is no number of seconds")
    age = now - datetime.fromtimestamp(0, UTC) - timedelta(seconds=int(timestamp))
    if abs(age) > WINDOW:
        raise HookRefused(
            HookReason.STALE,
            f"the event is more than {WINDOW.total_seconds() / 60:.0f} minutes from now: do both clocks run right?",
        )


def _event(delivery_id: str, body: bytes) -> HookEvent:
    try:
        event = json.loads(body)
        entity, data = event["entity"], event["data"]
        name = data.get("name")
        key = data.get("key")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HookRefused(HookReason.MALFORMED, "the body is no event of MLflow") from None
    if not isinstance(entity, str) or not (name is None or isinstance(name, str)):
        raise HookRefused(HookReason.MALFORMED, "the body is no event of MLflow")
    # Tags that this program writes itself would make it look again after every verdict.
    own = entity == "model_version_tag" and isinstance(key, str) and key in _OWN_TAGS
    return HookEvent(delivery_id, name, relevant=entity in _ENTITIES and not own)

"""Events of MLflow: what is believed and what is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.daemon.registries.hooks import HookEvent, HookReason, HookRefused, verifier_of
from layerwatch.daemon.registries.mlflow.hook import WINDOW, verify_hook

SECRET = "an MLflow secret, used as it is"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DELIVERY = "5f0c1c0e-6a3e-4df4-8e15-0b27d1f3c9a1"


def body_of(entity: str = "model_version", action: str = "created", **data: object) -> bytes:
    """As mlflow/webhooks/delivery.py builds it."""
    event = {
        "entity": entity,
        "action": action,
        "timestamp": NOW.isoformat(),
        "data": data or {"name": "resnet"},
    }
    return json.dumps(event).encode()


def headers_of(
    body: bytes, secret: str = SECRET, at: datetime = NOW, delivery: str = DELIVERY
) -> dict[str, str]:
    """As mlflow/webhooks/delivery.py signs it."""
    timestamp = str(int(at.timestamp()))
    text = f"{delivery}.{timestamp}.".encode() + body
    digest = hmac.new(secret.encode("utf-8"), text, hashlib.sha256).digest()
    return {
        "x-mlflow-signature": f"v1,{base64.b64encode(digest).decode()}",
        "x-mlflow-timestamp": timestamp,
        "x-mlflow-delivery-id": delivery,
        "content-type": "application/json",
    }


def refusal(headers: dict[str, str], body: bytes, now: datetime = NOW) -> HookRefused:
    with pytest.raises(HookRefused) as refused:
        verify_hook(SECRET, headers, body, now)
    assert SECRET not in str(refused.value)
    return refused.value


def test_a_signed_event_says_which_model_it_is_about() -> None:
    body = body_of(name="resnet", version="3", source="models:/m-1", run_id=None)
    assert verify_hook(SECRET, headers_of(body), body, NOW) == HookEvent(DELIVERY, "resnet")


def test_it_is_found_under_the_kind_of_the_registry() -> None:
    assert verifier_of("mlflow") is verify_hook


def test_a_known_signature_is_accepted() -> None:
    # printf 'id-1.1795262400.{"entity":"model_version","data":{"name":"a"}}' | openssl dgst -sha256 -hmac key -binary | base64
    body = b'{"entity":"model_version","data":{"name":"a"}}'
    headers = {
        "x-mlflow-signature": "v1,flxLdzPo5PBkdU4SqYc8ebBa9IVi5AsFP2S8yuuBIKw=",
        "x-mlflow-timestamp": "1795262400",
        "x-mlflow-delivery-id": "id-1",
    }
    assert verify_hook("key", headers, body, datetime.fromtimestamp(1795262400, UTC)).model == "a"


def test_another_secret_a_changed_body_and_changed_headers_are_forgeries() -> None:
    body = body_of()
    other = headers_of(body, secret="another")
    assert refusal(other, body).reason is HookReason.FORGED
    assert refusal(headers_of(body), body + b" ").reason is HookReason.FORGED
    for name, value in {
        "x-mlflow-delivery-id": "another",
        "x-mlflow-timestamp": str(int(NOW.timestamp()) + 1),
        "x-mlflow-signature": "v1,",
    }.items():
        assert refusal(headers_of(body) | {name: value}, body).reason is HookReason.FORGED


@pytest.mark.parametrize("missing", ["x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"])
def test_an_event_without_a_signature_says_to_give_the_webhook_a_secret(missing: str) -> None:
    body = body_of()
    headers = headers_of(body)
    del headers[missing]
    error = refusal(headers, body)
    assert error.reason is HookReason.FORGED
    assert "hook_secret" in error.detail


@pytest.mark.parametrize("drift", [WINDOW, -WINDOW])
def test_an_event_from_the_edge_of_the_window_is_believed_and_one_from_beyond_is_stale(
    drift: timedelta,
) -> None:
    body = body_of()
    assert verify_hook(SECRET, headers_of(body, at=NOW + drift), body, NOW).model == "resnet"
    beyond = NOW + drift * (1 + 1 / 300)
    assert refusal(headers_of(body, at=beyond), body).reason is HookReason.STALE


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{}", b'{"entity": 3, "data": {}}', b"[" * 100_000, b"\xff"]
)
def test_a_signed_body_that_is_no_event_is_malformed(body: bytes) -> None:
    assert refusal(headers_of(body), body).reason is HookReason.MALFORMED


def test_a_signed_time_that_is_no_number_is_malformed() -> None:
    body = body_of()
    digest = hmac.new(SECRET.encode(), f"{DELIVERY}.soon.".encode() + body, hashlib.sha256).digest()
    headers = headers_of(body) | {
        "x-mlflow-timestamp": "soon",
        "x-mlflow-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    assert refusal(headers, body).reason is HookReason.MALFORMED


@pytest.mark.parametrize(
    ("entity", "data", "relevant"),
    [
        ("registered_model", {"name": "a"}, True),
        ("model_version", {"name": "a", "version": "1"}, True),
        ("model_version_alias", {"name": "a", "alias": "champion"}, True),
        ("model_version_tag", {"name": "a", "key": "layerwatch.parent", "value": "x"}, True),
        ("model_version_tag", {"name": "a", "key": "owner", "value": "x"}, True),
        ("model_version_tag", {"name": "a", "key": "layerwatch.verdict", "value": "pass"}, False),
        ("prompt", {"name": "a"}, False),
        ("budget_policy", {}, False),
    ],
)
def test_events_after_which_there_is_nothing_to_find_are_not_relevant(
    entity: str, data: dict[str, object], relevant: bool
) -> None:
    body = json.dumps({"entity": entity, "action": "set", "data": data}).encode()
    assert verify_hook(SECRET, headers_of(body), body, NOW).relevant is relevant


@given(st.text(), st.binary(max_size=200), st.text(max_size=40), st.text(max_size=40))
def test_whatever_comes_is_refused_in_words(signature: str, body: bytes, stamp: str, delivery: str) -> None:
    headers = {
        "x-mlflow-signature": signature,
        "x-mlflow-timestamp": stamp,
        "x-mlflow-delivery-id": delivery,
    }
    assert refusal(headers, body).detail

"""Events as CloudEvents, held against the specification, version 1.0.2."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from standardwebhooks import Webhook

from alertvalues import NOW, entry, resolved
from hookserver import HookServer
from layerwatch.alerts.cloudevents import encode_cloudevent
from layerwatch.alerts.receivers import build_receivers
from layerwatch_testing.sending import LOOPBACK, SIGNING_KEY, sender, settings_of

# https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md: attributes and their types;
# formats/json-format.md: data as a member of its own. Names of extensions: lower-case letters and digits.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string", "minLength": 1},
        "datacontenttype": {"const": "application/json"},
        "subject": {"type": "string", "minLength": 1},
        "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"},
        "data": {"type": "object"},
    },
    "additionalProperties": False,
}
# RFC 3986, appendix A: what a reference may be made of.
URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")


def parsed(payload: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(encode_cloudevent(payload))
    Draft202012Validator(SCHEMA).validate(event)
    assert URI_REFERENCE.fullmatch(event["source"])
    datetime.fromisoformat(event["time"])
    return event


def payload(**data: object) -> str:
    event = {"type": "layerwatch.alert.firing", "timestamp": "2026-03-01T12:00:00Z"}
    return json.dumps({**event, "data": {"event_id": "e1", **data}})


@pytest.mark.parametrize("told", [entry(), entry(transition=resolved())])
def test_the_attributes_are_those_of_the_event_and_the_data_are_the_same(told: Any) -> None:
    stored, event = json.loads(told.payload), parsed(told.payload)

    assert event["id"] == told.event_id
    assert (event["type"], event["time"]) == (stored["type"], stored["timestamp"])
    assert event["subject"] == stored["data"]["subject"]
    assert event["source"] == "/layerwatch/local/digits-mlp"
    assert event["data"] == stored["data"]


@pytest.mark.parametrize(
    ("labels", "source"),
    [
        ({}, "/layerwatch"),
        ({"model": ["m"]}, "/layerwatch"),
        ({"registry": ["prod"]}, "/layerwatch/prod"),
        ({"registry": ["prod"], "model": ["a", "b"]}, "/layerwatch/prod"),
        ({"registry": ["a", "b"], "model": ["m"]}, "/layerwatch"),
        ({"registry": ["prod"], "model": ["org/größe?#"]}, "/layerwatch/prod/org%2Fgr%C3%B6%C3%9Fe%3F%23"),
    ],
)
def test_the_source_is_as_narrow_as_the_event(labels: dict[str, list[str]], source: str) -> None:
    assert parsed(payload(labels=labels))["source"] == source


@pytest.mark.parametrize("subject", [None, "", " \n"])
def test_an_empty_subject_is_left_out(subject: str | None) -> None:
    assert "subject" not in parsed(payload(subject=subject))


@given(st.text(), st.text(min_size=1))
def test_any_name_makes_a_valid_event(subject: str, model: str) -> None:
    model = model.encode("utf-8", "replace").decode()
    event = parsed(payload(subject=subject, labels={"registry": ["r"], "model": [model]}))

    # 3.1: strings hold no control characters.
    assert event.get("subject", "x").isprintable()
    assert unquote(event["source"].removeprefix("/layerwatch/r/")) == model
    assert urlsplit(event["source"]).path == event["source"]


class TestWebhook:
    @pytest.fixture
    def server(self) -> Iterator[HookServer]:
        with HookServer() as running:
            yield running

    def test_what_is_signed_is_what_is_sent(self, server: HookServer) -> None:
        settings = settings_of("webhook", server.url, allow_private_cidrs=LOOPBACK, format="cloudevents")
        build_receivers([settings])["oncall"].send(entry(), datetime.now(UTC))

        (received,) = server.received
        assert received.headers["content-type"] == "application/cloudevents+json"
        assert received.headers["webhook-id"] == entry().event_id
        assert received.body.decode() == encode_cloudevent(entry().payload)
        assert Webhook(SIGNING_KEY).verify(received.body, dict(received.headers))["specversion"] == "1.0"

    def test_attempts_send_the_same_bytes(self, server: HookServer) -> None:
        send = sender("webhook", server.url, allow_private_cidrs=LOOPBACK, format="cloudevents")
        send()
        send()

        first, second = server.received
        assert first.body == second.body
        assert parsed(entry().payload)["time"] == NOW.isoformat().replace("+00:00", "Z")

    def test_without_being_asked_for_it_is_the_event_as_it_is(self, server: HookServer) -> None:
        sender("webhook", server.url, allow_private_cidrs=LOOPBACK)()

        assert server.received[0].body.decode() == entry().payload
        assert server.received[0].headers["content-type"] == "application/json"

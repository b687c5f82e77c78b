"""Events of distribution and Harbor: who may send them, and what they are about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from layerwatch.daemon.registries.hooks import HookEvent, HookReason, HookRefused, verifier_of
from layerwatch.daemon.registries.oci.hook import verify_hook

SECRET = "s3cret"
BEARER = {"authorization": f"Bearer {SECRET}"}
NOW = datetime(2026, 11, 21, tzinfo=UTC)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def event(
    action: str = "push", repository: str = "team/a", media: str = MANIFEST, id: str = "e1"
) -> dict[str, Any]:
    """As docker-registry 2.8 sends it."""
    target = {"mediaType": media, "digest": f"sha256:{'a' * 64}", "repository": repository, "tag": "v1"}
    return {"id": id, "timestamp": "2026-11-21T08:00:00Z", "action": action, "target": target}


def harbor(kind: str = "PUSH_ARTIFACT") -> dict[str, Any]:
    """The default body of Harbor's webhooks, from its documentation."""
    repository = {"name": "a", "namespace": "team", "repo_full_name": "team/a", "repo_type": "private"}
    resources = [
        {"digest": f"sha256:{'a' * 64}", "tag": "v1", "resource_url": "harbor.example.org/team/a:v1"}
    ]
    data = {"resources": resources, "repository": repository}
    return {"type": kind, "occur_at": 1680501893, "operator": "admin", "event_data": data}


def cloud_event(kind: str = "harbor.artifact.pushed") -> dict[str, Any]:
    """The same in Harbor's CloudEvents form."""
    return {
        "specversion": "1.0",
        "id": "66e18103-09c1-41f6-982f-37df223f3eeb",
        "source": "/projects/2/webhook/policies/15",
        "type": kind,
        "datacontenttype": "application/json",
        "time": "2023-04-03T06:04:46Z",
        "data": harbor()["event_data"],
        "operator": "admin",
    }


def verified(body: object, headers: Mapping[str, str] = BEARER) -> HookEvent:
    return verify_hook(SECRET, headers, json.dumps(body).encode(), NOW)


def refusal(body: bytes, headers: Mapping[str, str] = BEARER) -> HookReason:
    with pytest.raises(HookRefused) as refused:
        verify_hook(SECRET, headers, body, NOW)
    assert SECRET not in str(refused.value)
    return refused.value.reason


def test_it_is_the_verifier_of_this_kind() -> None:
    assert verifier_of("oci") is verify_hook


def test_a_pushed_manifest_names_its_repository() -> None:
    found = verified({"events": [event()]})
    assert (found.model, found.relevant) == ("team/a", True)


@pytest.mark.parametrize("action", ["pull", "mount"])
def test_what_changes_nothing_is_not_relevant(action: str) -> None:
    assert not verified({"events": [event(action)]}).relevant


def test_a_pushed_layer_is_not_relevant_and_a_deletion_is() -> None:
    assert not verified({"events": [event(media="application/octet-stream")]}).relevant
    assert verified({"events": [event("delete", media="")]}).relevant


def test_an_envelope_about_several_repositories_names_none() -> None:
    found = verified({"events": [event(), event("pull", "team/c"), event(repository="team/b")]})
    assert (found.model, found.relevant) == (None, True)


def test_a_delivery_is_known_again_by_the_ids_of_its_events() -> None:
    first, again = verified({"events": [event()]}), verified({"events": [event()], "more": 1})
    other = verified({"events": [event(id="e2")]})
    assert first.delivery_id == again.delivery_id != other.delivery_id


@pytest.mark.parametrize("body", [harbor(), cloud_event()])
@pytest.mark.parametrize("given", [f"Bearer {SECRET}", SECRET])
def test_a_push_to_harbor_names_its_repository(body: dict[str, Any], given: str) -> None:
    found = verified(body, {"authorization": given})
    assert (found.model, found.relevant) == ("team/a", True)
    assert found.delivery_id == verified(body).delivery_id


@pytest.mark.parametrize(
    "body", [harbor("PULL_ARTIFACT"), harbor("SCANNING_COMPLETED"), cloud_event("harbor.artifact.pulled")]
)
def test_other_events_of_harbor_are_not_relevant(body: dict[str, Any]) -> None:
    assert not verified(body).relevant


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {SECRET} "},
        {"authorization": "Bearer \udcff"},
        {"x-secret": SECRET},
    ],
)
def test_without_the_secret_it_is_forged_whatever_the_body_says(headers: dict[str, str]) -> None:
    assert refusal(json.dumps({"events": [event()]}).encode(), headers) is HookReason.FORGED
    assert refusal(b"no json", headers) is HookReason.FORGED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"events": 1}',
        b'{"events": []}',
        b'{"events": [1]}',
        b'{"events": [{"action": 1}]}',
        b'{"type": 1, "event_data": {}}',
        b'{"type": "PUSH_ARTIFACT", "event_data": []}',
        b"[" * 100_000,
        json.dumps({"events": [event()] * 1001}).encode(),
    ],
)
def test_what_is_neither_is_malformed(body: bytes) -> None:
    assert refusal(body) is HookReason.MALFORMED


@pytest.mark.parametrize("repository", [None, 1, {"repo_full_name": 2}, {}])
def test_an_event_that_names_no_repository_still_asks_for_a_look(repository: object) -> None:
    body = harbor()
    body["event_data"]["repository"] = repository
    found = verified(body)
    assert (found.model, found.relevant) == (None, True)

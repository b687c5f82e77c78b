"""Events of the Hub: who may send them, and which of them are worth a look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookserver import HookServer
from layerwatch.daemon.registries.hooks import HookEvent, HookReason, HookRefused, verifier_of
from layerwatch.daemon.registries.huggingface.hook import verify_hook
from layerwatch_testing.servers.huggingface import HubServer

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SECRET = "s3cret"
OLD, NEW = "a" * 40, "b" * 40


def body(
    scope: str = "repo.content",
    kind: str = "model",
    updates: object = ({"ref": "refs/heads/main", "oldSha": OLD, "newSha": NEW},),
) -> bytes:
    event: dict[str, object] = {
        "event": {"action": "update", "scope": scope},
        "repo": {"type": kind, "name": "owner/name", "id": "1", "private": False},
        "webhook": {"id": "2", "version": 3},
    }
    if updates is not None:
        event["updatedRefs"] = updates
    return json.dumps(event).encode()


def verified(text: bytes, headers: Mapping[str, str] | None = None) -> HookEvent:
    return verify_hook(SECRET, {"x-webhook-secret": SECRET} if headers is None else headers, text, NOW)


def refused(text: bytes, headers: Mapping[str, str] | None = None) -> HookRefused:
    with pytest.raises(HookRefused) as caught:
        verified(text, headers)
    return caught.value


def test_the_table_of_hooks_finds_it() -> None:
    assert verifier_of("huggingface") is verify_hook


def test_a_push_names_its_repository() -> None:
    event = verified(body())
    assert (event.model, event.relevant) == ("owner/name", True)


def test_the_same_push_has_the_same_delivery_id_and_another_one_another() -> None:
    again = {"ref": "refs/heads/main", "oldSha": NEW, "newSha": OLD}
    assert verified(body()).delivery_id == verified(body()).delivery_id
    assert verified(body()).delivery_id != verified(body(updates=[again])).delivery_id


def test_a_push_of_several_refs_has_one_delivery_id_in_whatever_order_they_come() -> None:
    first = {"ref": "refs/heads/main", "oldSha": OLD, "newSha": NEW}
    second = {"ref": "refs/tags/v1", "oldSha": None, "newSha": NEW}
    assert verified(body(updates=[first, second])) == verified(body(updates=[second, first]))


def test_refs_that_are_made_or_deleted_have_no_old_or_no_new_commit() -> None:
    made = verified(body(updates=[{"ref": "refs/pr/1", "oldSha": None, "newSha": NEW}]))
    deleted = verified(body(updates=[{"ref": "refs/pr/1", "oldSha": NEW, "newSha": None}]))
    assert made.relevant and deleted.relevant
    assert made.delivery_id != deleted.delivery_id


@pytest.mark.parametrize("scope", ["repo", "repo.content", "repo.config", "repo.whatever.comes.next"])
def test_narrower_scopes_count_as_the_broader_one(scope: str) -> None:
    assert verified(body(scope, updates=None)) == HookEvent(None, "owner/name", True)


@pytest.mark.parametrize("scope", ["discussion", "discussion.comment", "discussion.reaction", "repository"])
def test_talk_about_a_repository_is_nothing_to_look_at(scope: str) -> None:
    assert not verified(body(scope, updates=None)).relevant


def test_an_unknown_scope_that_moves_refs_is_looked_at() -> None:
    assert verified(body("merge.queue")).relevant


@pytest.mark.parametrize("kind", ["dataset", "space", "kernel"])
def test_other_repositories_than_models_are_nothing_to_look_at(kind: str) -> None:
    assert verified(body(kind=kind)) == HookEvent(None, None, False)


@pytest.mark.parametrize(
    "headers", [{}, {"x-webhook-secret": ""}, {"x-webhook-secret": "s3cret "}, {"x-webhook-secret": "größe"}]
)
def test_without_the_secret_nothing_of_the_body_is_looked_at(headers: dict[str, str]) -> None:
    for text in (body(), b"\xff not json"):
        error = refused(text, headers)
        assert error.reason is HookReason.FORGED
        assert SECRET not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        json.dumps({"event": {}}).encode(),
        body(scope=None),  # type: ignore[arg-type]
        body(kind=7),  # type: ignore[arg-type]
        body(updates={"ref": 1}),
        body(updates=[{"ref": 1, "newSha": NEW}]),
        body(updates=[{"newSha": NEW}]),
        body(updates=[{"ref": "refs/heads/main", "newSha": 5}]),
    ],
)
def test_what_is_no_event_of_the_hub_is_malformed(text: bytes) -> None:
    assert refused(text).reason is HookReason.MALFORMED


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["event", "repo", "scope", "action", "type", "name", "updatedRefs", "ref"]),
                inner,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_end_as_an_event_or_as_refused(text: bytes) -> None:
    try:
        verified(text)
    except HookRefused as error:
        assert error.reason is HookReason.MALFORMED


def test_what_a_push_to_the_hub_delivers_passes_the_check() -> None:
    hub = HubServer()
    try:
        with HookServer() as receiver:
            hub.webhook(f"{receiver.url}/hooks/hub", SECRET, owner="owner")
            hub.webhook(f"{receiver.url}/hooks/hub", "another", owner="owner")
            sha = hub.commit("owner/name", {"model.safetensors": b""})
            hub.tag("owner/name", "v1", sha)
            hub.commit("somebody/else", {"model.safetensors": b""})
            received = list(receiver.received)
    finally:
        hub.stop()
    assert hub.delivered == [204] * 4
    events = [verify_hook(SECRET, one.headers, one.body, NOW) for one in received[::2]]
    assert [(event.model, event.relevant) for event in events] == [("owner/name", True)] * 2
    assert len({event.delivery_id for event in events}) == 2
    for one in received[1::2]:
        assert refused(one.body, one.headers).reason is HookReason.FORGED

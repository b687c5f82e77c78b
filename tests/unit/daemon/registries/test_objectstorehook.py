"""Events that object stores, and those who write into directories, send."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from layerwatch.daemon.registries.directory.hook import verify_hook as verify_directory
from layerwatch.daemon.registries.hooks import HookEvent, HookReason, HookRefused
from layerwatch.daemon.registries.objectstore.hook import verify_hook

NOW = datetime(2026, 11, 21, tzinfo=UTC)
RIGHT = {"authorization": "Bearer hush"}

S3 = {
    "Records": [
        {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"object": {"key": "a/v1/x"}}}
    ]
}
"""docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html, shortened."""

S3_TEST = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2014-10-13T15:57:02.089Z",
    "Bucket": "bucket",
}
"""From the same page: what S3 sends when notifications are set up."""

EVENTBRIDGE = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "detail": {"bucket": {"name": "b"}, "object": {"key": "a/v1/model.safetensors"}},
}
"""docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html, shortened."""

PUBSUB = {
    "message": {
        "attributes": {"eventType": "OBJECT_FINALIZE", "objectId": "a/v1/x"},
        "messageId": "2070443601311540",
    },
    "subscription": "projects/p/subscriptions/s",
}
"""cloud.google.com/pubsub/docs/push and cloud.google.com/storage/docs/pubsub-notifications, shortened."""

EVENT_GRID = [{"id": "8", "eventType": "Microsoft.Storage.BlobCreated", "subject": "/blobServices/default"}]
"""learn.microsoft.com/azure/event-grid/event-schema-blob-storage, shortened."""


def verified(body: object, headers: dict[str, str] | None = None) -> HookEvent:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return verify_hook("hush", RIGHT if headers is None else headers, data, NOW)


@pytest.mark.parametrize("body", [S3, EVENTBRIDGE, PUBSUB, EVENT_GRID, {"published": "v7"}, {}])
def test_events_after_which_a_listing_may_differ_are_relevant(body: object) -> None:
    assert verified(body) == HookEvent(None, None, relevant=True)


def test_the_events_of_a_server_that_speaks_s3_count_under_their_own_names() -> None:
    event = {"EventName": "s3:ObjectCreated:Put", "Records": [{"eventName": "s3:ObjectRemoved:Delete"}]}
    assert verified(event).relevant


@pytest.mark.parametrize(
    "body",
    [
        S3_TEST,
        {"Records": [{"eventName": "ObjectTagging:Put"}, {"eventName": "ObjectAcl:Put"}]},
        {"Records": [{"eventName": "s3:ObjectAccessed:Get"}]},
        EVENTBRIDGE | {"detail-type": "Object Tags Added"},
        {"message": {"attributes": {"eventType": "OBJECT_METADATA_UPDATE"}}},
    ],
)
def test_events_that_change_no_listing_are_not_relevant(body: object) -> None:
    assert not verified(body).relevant


def test_one_change_among_other_events_is_enough() -> None:
    assert verified(
        {"Records": [{"eventName": "ObjectTagging:Put"}, {"eventName": "ObjectCreated:Copy"}]}
    ).relevant


@pytest.mark.parametrize("header", [None, "Bearer hus", "Bearer hushh", "hush", "Basic hush", "bearer ", ""])
@pytest.mark.parametrize("verify", [verify_hook, verify_directory])
def test_without_the_right_token_an_event_is_forged(verify: object, header: str | None) -> None:
    assert callable(verify)
    with pytest.raises(HookRefused) as refused:
        verify("hush", {} if header is None else {"authorization": header}, json.dumps(S3).encode(), NOW)
    assert refused.value.reason is HookReason.FORGED
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"{", b'"text"', b"7", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_event_is_malformed(body: bytes) -> None:
    with pytest.raises(HookRefused) as refused:
        verified(body)
    assert refused.value.reason is HookReason.MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        {"Records": "many"},
        {"Records": [None, 3, "x", {"eventName": 7}]},
        {"message": "text"},
        {"message": {"attributes": []}},
        [[], [{}]],
    ],
)
def test_an_event_of_an_unexpected_shape_is_only_a_hint(body: object) -> None:
    assert verified(body).relevant


@pytest.mark.parametrize("body", [b"", b"not json", b"{}"])
def test_the_body_of_an_event_about_a_directory_does_not_matter(body: bytes) -> None:
    assert verify_directory("hush", RIGHT, body, NOW) == HookEvent()

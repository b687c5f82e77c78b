"""Hooks over HTTP: what is forged, replayed or malformed is refused and counted, and never starts a look."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from layerwatch_testing.daemons import TOKEN, RunningApp, directory, write_config
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

SECRET = "hook-s3cret"


@pytest.fixture
def world(tmp_path: Path) -> DirectoryWorld:
    return DirectoryWorld(tmp_path, marker=None)


@pytest.fixture
def daemon(tmp_path: Path, world: DirectoryWorld) -> Iterator[RunningApp]:
    registries = [
        {**directory("local", world.root, poll="1h"), "hook_secret": SECRET},
        {"name": "ml", "kind": "mlflow", "url": "http://127.0.0.1:9", "hook_secret": SECRET, "poll": "1h"},
        {
            "name": "hub",
            "kind": "huggingface",
            "url": "http://127.0.0.1:9",
            "repositories": ["a/b"],
            "hook_secret": SECRET,
            "poll": "1h",
        },
    ]
    registries.append(
        {"name": "images", "kind": "oci", "url": "http://127.0.0.1:9", "hook_secret": SECRET, "poll": "1h"}
    )
    with RunningApp(write_config(tmp_path / "layerwatch.yaml", *registries)) as running:
        until(lambda: running.app.watchers["local"].listed_once, "the first look")
        yield running


def counted(daemon: RunningApp, registry: str) -> dict[str, float]:
    samples = {}
    for line in daemon.get("/metrics").text.splitlines():
        if line.startswith(f'layerwatch_hook_events_total{{registry="{registry}"'):
            labels, _, value = line.rpartition(" ")
            samples[labels.split('result="')[1].split('"')[0]] = float(value)
    return {result: value for result, value in samples.items() if value}


def signed(body: bytes, secret: str = SECRET, delivery: str = "d1", at: int | None = None) -> dict[str, str]:
    """Headers as MLflow makes them (mlflow/webhooks/delivery.py): HMAC over id, time and body."""
    stamp = str(int(time.time()) if at is None else at)
    text = f"{delivery}.{stamp}.".encode() + body
    digest = base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode()
    return {
        "X-MLflow-Signature": f"v1,{digest}",
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Delivery-Id": delivery,
        "Content-Type": "application/json",
    }


MLFLOW = json.dumps(
    {
        "entity": "model_version",
        "action": "created",
        "timestamp": "2026-11-21T00:00:00Z",
        "data": {"name": "m", "version": "1", "source": "runs:/x/y", "run_id": None, "tags": {}},
    }
).encode()


def post(daemon: RunningApp, registry: str, body: bytes, headers: dict[str, str]) -> int:
    answer = requests.post(f"{daemon.address}/hooks/{registry}", data=body, headers=headers, timeout=10)
    assert SECRET not in answer.text
    return answer.status_code


def test_an_event_with_the_secret_starts_a_look(daemon: RunningApp, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    looks = daemon.sample("layerwatch_last_success_timestamp_seconds", registry="local")
    assert post(daemon, "local", b"{}", {"Authorization": f"Bearer {SECRET}"}) == 200
    until(
        lambda: daemon.sample("layerwatch_last_success_timestamp_seconds", registry="local") != looks,
        "a look",
    )
    assert counted(daemon, "local") == {"accepted": 1}


def test_the_servers_token_is_no_substitute_for_a_hooks_own_secret(daemon: RunningApp) -> None:
    assert daemon.post("/hooks/local").status_code == 401
    assert counted(daemon, "local") == {"forged": 1}


def test_a_signed_event_is_taken_once_and_its_replay_refused(daemon: RunningApp) -> None:
    headers = signed(MLFLOW)
    assert post(daemon, "ml", MLFLOW, headers) == 200
    assert post(daemon, "ml", MLFLOW, headers) == 401
    assert counted(daemon, "ml") == {"accepted": 1, "replayed": 1}


def test_a_signed_event_of_yesterday_is_refused(daemon: RunningApp) -> None:
    assert post(daemon, "ml", MLFLOW, signed(MLFLOW, at=int(time.time()) - 86_400)) == 401
    assert counted(daemon, "ml") == {"stale": 1}


@pytest.mark.parametrize(
    "tampered",
    [
        {"X-MLflow-Signature": "v1,AAAA"},
        {"X-MLflow-Signature": ""},
        {"X-MLflow-Delivery-Id": "d2"},
        {"X-MLflow-Timestamp": "1"},
    ],
)
def test_an_event_whose_headers_were_tampered_with_is_refused(
    daemon: RunningApp, tampered: dict[str, str]
) -> None:
    assert post(daemon, "ml", MLFLOW, {**signed(MLFLOW), **tampered}) == 401
    assert "accepted" not in counted(daemon, "ml")


def test_an_event_signed_with_another_secret_is_forged(daemon: RunningApp) -> None:
    assert post(daemon, "ml", MLFLOW, signed(MLFLOW, secret="other")) == 401
    assert counted(daemon, "ml") == {"forged": 1}


def test_a_signed_body_that_is_no_event_is_malformed(daemon: RunningApp) -> None:
    for number, body in enumerate([b"", b"nonsense", b"[]", b"[" * 50_000]):
        assert post(daemon, "ml", body, signed(body, delivery=f"m{number}")) == 400
    assert counted(daemon, "ml") == {"malformed": 4}


def test_a_hub_event_needs_its_secret(daemon: RunningApp) -> None:
    body = json.dumps(
        {
            "event": {"action": "update", "scope": "repo.content"},
            "repo": {"type": "model", "name": "a/b", "headSha": "0" * 40},
            "updatedRefs": [{"ref": "refs/heads/main", "oldSha": "1" * 40, "newSha": "0" * 40}],
            "webhook": {"id": "w", "version": 3},
        }
    ).encode()
    assert post(daemon, "hub", body, {"X-Webhook-Secret": "wrong"}) == 401
    assert post(daemon, "hub", body, {"X-Webhook-Secret": SECRET}) == 200
    assert post(daemon, "hub", body, {"X-Webhook-Secret": SECRET}) == 401
    assert counted(daemon, "hub") == {"forged": 1, "accepted": 1, "replayed": 1}


def test_an_event_about_reading_starts_no_look_also_where_the_servers_token_opens_the_hook(
    tmp_path: Path,
) -> None:
    registry = {"name": "images", "kind": "oci", "url": "http://127.0.0.1:9", "poll": "1h"}
    with RunningApp(write_config(tmp_path / "layerwatch.yaml", registry)) as running:
        event = {"id": "e1", "action": "pull", "target": {"repository": "m", "mediaType": "x", "tag": "v1"}}
        body = json.dumps({"events": [event]}).encode()
        answer = requests.post(
            f"{running.address}/hooks/images",
            data=body,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=10,
        )
        assert (answer.status_code, answer.json()) == (200, {"looking": False})
        assert counted(running, "images") == {"ignored": 1}


def test_a_sender_that_insists_is_answered_kindly_and_its_repetition_counted(daemon: RunningApp) -> None:
    event = {"id": "e1", "action": "push", "target": {"repository": "m", "mediaType": "x", "tag": "v1"}}
    body = json.dumps({"events": [event]}).encode()
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "Content-Type": "application/vnd.docker.distribution.events.v1+json",
    }
    assert [post(daemon, "images", body, headers) for _ in range(3)] == [200, 200, 200]
    assert counted(daemon, "images") == {"accepted": 1, "replayed": 2}


def test_an_event_of_more_than_a_megabyte_is_not_read_to_its_end(daemon: RunningApp) -> None:
    headers = {"Authorization": f"Bearer {SECRET}"}
    assert post(daemon, "local", b" " * (2**20 + 1), headers) == 413


def test_a_stranger_is_not_told_which_registries_there_are(daemon: RunningApp) -> None:
    assert post(daemon, "nowhere", b"{}", {}) == post(daemon, "local", b"{}", {}) == 401

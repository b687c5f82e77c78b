"""Real servers send their own events to a running daemon: a push is judged long before the next poll."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from layerwatch_testing.daemons import RunningApp, write_config
from layerwatch_testing.models import State, write_safetensors
from layerwatch_testing.networks import finetuned, network
from layerwatch_testing.servers import ServerMissing, free_port
from layerwatch_testing.servers.huggingface import HubServer
from layerwatch_testing.servers.mlflow import MlflowServerProcess
from layerwatch_testing.servers.oci import CREATED, Blob, OciServer
from layerwatch_testing.waiting import until

pytestmark = pytest.mark.server

SECRET = "the-secret-of-the-hook"
OCI_TITLE = "model.safetensors"


def weights(folder: Path, state: State) -> bytes:
    file = folder / "weights.safetensors"
    write_safetensors(file, state)
    return file.read_bytes()


@pytest.fixture
def port() -> int:
    """Of the daemon: servers are told where it is before it runs."""
    return free_port()


@pytest.fixture
def mlflow(tmp_path: Path, port: int) -> Iterator[MlflowServerProcess]:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    try:
        server = MlflowServerProcess(folder)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    events = [{"entity": "MODEL_VERSION", "action": "CREATED"}]
    hook = f"http://127.0.0.1:{port}/hooks/reg"
    server.call("POST", "webhooks", name="lw", url=hook, events=events, secret=SECRET, status="ACTIVE")
    yield server
    server.stop()


@pytest.fixture
def oci(tmp_path: Path, port: int) -> Iterator[OciServer]:
    folder = tmp_path / "oci"
    folder.mkdir()
    try:
        server = OciServer(folder, notify=f"http://127.0.0.1:{port}/hooks/reg", bearer=SECRET)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield server
    server.stop()


@pytest.fixture
def hub(port: int) -> Iterator[HubServer]:
    server = HubServer()
    server.webhook(f"http://127.0.0.1:{port}/hooks/reg", SECRET, "acme")
    yield server
    server.stop()


def daemon(tmp_path: Path, port: int, **registry: object) -> RunningApp:
    """A daemon that polls once a day."""
    settings = {"name": "reg", "poll": "1d", "hook_secret": SECRET, **registry}
    return RunningApp(write_config(tmp_path / "layerwatch.yaml", settings, port=port))


def watching(running: RunningApp) -> None:
    until(lambda: running.get("/-/ready").status_code == 200, "the first look")


def accepted(running: RunningApp) -> float:
    return running.sample("layerwatch_hook_events_total", registry="reg", result="accepted") or 0


def judged_after_event(running: RunningApp, version: str, record_property: object) -> None:
    """Wait for the verdict of a version that no poll would find today."""
    began = datetime.now(UTC)
    assert running.wait_for_verdict(version) == "pass"
    (found,) = running.get("/api/v1/versions").json()
    queued = datetime.fromisoformat(found["discovered_at"]) - began
    record_property("seconds_from_event_to_queue", round(queued.total_seconds(), 2))  # type: ignore[operator]
    assert accepted(running) >= 1


def test_a_version_registered_in_mlflow_is_scanned_upon_mlflows_own_signed_event(
    tmp_path: Path, port: int, mlflow: MlflowServerProcess, record_property: object
) -> None:
    with daemon(tmp_path, port, kind="mlflow", url=mlflow.url) as running:
        watching(running)
        run = mlflow.new_run()
        mlflow.upload(run, "model/model.safetensors", weights(tmp_path, network()))
        mlflow.register("fraud", f"runs:/{run}/model", run)
        judged_after_event(running, "reg/fraud/1", record_property)


def test_a_push_to_an_oci_registry_is_scanned_upon_its_notification(
    tmp_path: Path, port: int, oci: OciServer, record_property: object
) -> None:
    with daemon(tmp_path, port, kind="oci", url=oci.url) as running:
        watching(running)
        blob = Blob(weights(tmp_path, network()), title=OCI_TITLE)
        digest = oci.push("models/bert", "v1", [blob], {CREATED: "2026-11-21T00:00:00Z"})
        judged_after_event(running, f"reg/models/bert/{digest}", record_property)


def test_a_commit_to_a_hub_is_scanned_upon_its_webhook(
    tmp_path: Path, port: int, hub: HubServer, record_property: object
) -> None:
    with daemon(tmp_path, port, kind="huggingface", url=hub.url, repositories=["acme/*"]) as running:
        watching(running)
        sha = hub.commit("acme/bert", {"model.safetensors": weights(tmp_path, network())})
        judged_after_event(running, f"reg/acme/bert/{sha}", record_property)


def test_with_every_event_lost_polling_finds_everything(tmp_path: Path, port: int, hub: HubServer) -> None:
    shas = [
        hub.commit(f"acme/m{number}", {"model.safetensors": weights(tmp_path, network(number))})
        for number in range(3)
    ]
    lost = len(hub.delivered)
    with daemon(
        tmp_path,
        port,
        kind="huggingface",
        url=hub.url,
        repositories=["acme/*"],
        poll="300ms",
        hook_secret="other",
    ) as running:
        for number, sha in enumerate(shas):
            assert running.wait_for_verdict(f"reg/acme/m{number}/{sha}") == "pass"
        later = hub.commit("acme/m1", {"model.safetensors": weights(tmp_path, finetuned(network(1)))})
        assert running.wait_for_verdict(f"reg/acme/m1/{later}") == "pass"
        assert accepted(running) == 0
    assert len(hub.delivered) > lost
    assert 200 not in hub.delivered

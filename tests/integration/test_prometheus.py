"""A real Prometheus scrapes a real daemon."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        shutil.which("prometheus") is None or shutil.which("promtool") is None,
        reason="prometheus and promtool are not installed: tests/install-servers.sh installs them",
    ),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that judged a broken version after a healthy one, and a model with an awkward name."""
    folder = tmp_path_factory.mktemp("watched")
    world = DirectoryWorld(folder, marker=None)
    world.publish("m", "v1", network())
    world.publish("m", "v2", with_wrong_scale(finetuned(network())))
    world.publish('say "no" \\ é', "v1", network(5))
    config = write_config(folder / "layerwatch.yaml", directory("local", world.root))
    with DaemonProcess(config) as running:
        running.wait_until_listening()
        assert running.wait_for_verdict("local/m/v2") == "fail"
        until(lambda: len(running.samples("layerwatch_model_verdict")) == 2, "the gauges")
        yield running


class Prometheus:
    """Asks a Prometheus server."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, text: str) -> list[dict[str, Any]]:
        answer = requests.get(f"{self._address}/api/v1/query", params={"query": text}, timeout=10).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def ready(self) -> bool:
        try:
            return requests.get(f"{self._address}/-/ready", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False


@pytest.fixture(scope="module")
def prometheus(daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A server that scrapes the daemon every second."""
    folder = tmp_path_factory.mktemp("prometheus")
    target = daemon.address.removeprefix("http://")
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: layerwatch, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "prometheus.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, cwd=folder) as server,
    ):
        try:
            asked = Prometheus(f"http://127.0.0.1:{port}")
            until(asked.ready, f"Prometheus is ready (log: {log})")
            until(lambda: asked.query("layerwatch_model_verdict"), f"the first scrape (log: {log})")
            yield asked
        finally:
            server.terminate()
            server.wait(20)


def test_prometheus_finds_nothing_wrong_with_the_scrape(prometheus: Prometheus) -> None:
    (up,) = prometheus.query("up")
    assert up["value"][1] == "1"


def test_promql_returns_alpha_of_every_layer_as_the_daemon_exports_it(
    prometheus: Prometheus, daemon: DaemonProcess
) -> None:
    rows = prometheus.query('layerwatch_layer_alpha{registry="local", model="m", ref="latest"}')
    scraped = {row["metric"]["layer"]: float(row["value"][1]) for row in rows}
    exported = {
        dict(labels)["layer"]: value
        for labels, value in daemon.samples("layerwatch_layer_alpha").items()
        if dict(labels)["model"] == "m"
    }
    assert set(scraped) == {"fc1", "fc2", "fc3"}
    assert scraped == exported


def test_promql_returns_the_verdict_and_the_broken_layer(prometheus: Prometheus) -> None:
    (row,) = prometheus.query("layerwatch_model_verdict == 2")
    assert (row["metric"]["model"], row["metric"]["ref"]) == ("m", "latest")
    (layer,) = prometheus.query("layerwatch_layer_status == 3")
    assert layer["metric"]["layer"] == "fc2"


def test_a_name_that_needs_escaping_arrives_as_it_was_written(prometheus: Prometheus) -> None:
    models = {row["metric"]["model"] for row in prometheus.query("layerwatch_model_verdict")}
    assert models == {"m", 'say "no" \\ é'}


def test_the_info_metric_joins_the_version_to_the_verdict(prometheus: Prometheus) -> None:
    joined = "layerwatch_model_verdict * on (registry, model, ref) group_left (version) layerwatch_model_info"
    rows = {row["metric"]["model"]: row["metric"]["version"] for row in prometheus.query(joined)}
    assert rows["m"] == "v2"


def test_promtool_finds_nothing_to_complain_about(daemon: DaemonProcess) -> None:
    text = daemon.get("/metrics").content
    command = ["promtool", "check", "metrics"]
    checked = subprocess.run(command, input=text, capture_output=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout.decode(), checked.stderr.decode()) == (0, "", "")

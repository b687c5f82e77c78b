"""The story of the demonstration as an operator sees it: daemon, Prometheus, Alertmanager, and who is told."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hookserver import HookServer
from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.servers import free_port
from layerwatch_testing.servers.alertmanager import AlertmanagerServer
from layerwatch_testing.servers.prometheus import PrometheusServer
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

_DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
_NEEDED = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")
_MISSING = [name for name in _NEEDED if shutil.which(name) is None]

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(_MISSING), reason=f"{', '.join(_MISSING)}: not installed; tests/install-servers.sh installs them"
    ),
]

# As shipped these wait for 5 and 10 minutes; everything else of the rules is as it is shipped.
_SHORTENED = (
    "LayerwatchLayerBroken.keep_firing_for=2s",
    "LayerwatchRegistryDown.for=3s",
    "LayerwatchRegistryDown.keep_firing_for=2s",
    "LayerwatchAbsent.for=3s",
)
_RUNBOOKS = "https://runbooks.example/layerwatch"
_GRAFANA = "https://grafana.example"


@dataclass(frozen=True)
class Told:
    """One alert of one message of Alertmanager."""

    receiver: str
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def name(self) -> str:
        return self.labels["alertname"]


@dataclass
class Story:
    """Everything that runs."""

    world: DirectoryWorld
    config: Path
    daemon: DaemonProcess
    prometheus: PrometheusServer
    hook: HookServer

    def told(self, name: str, status: str, receiver: str = "") -> Told | None:
        """The first message about an alert; None while there is none."""
        return next(
            (one for one in self.all_told() if (one.name, one.status) == (name, status)
             and receiver in ("", one.receiver)),
            None,
        )  # fmt: skip

    def all_told(self) -> list[Told]:
        """Everything that was received, in its order."""
        return [
            Told(one.path.strip("/"), alert["status"], alert["labels"], alert["annotations"])
            for one in list(self.hook.received)
            for alert in json.loads(one.body)["alerts"]
        ]

    def wait_for(self, name: str, status: str) -> Told:
        return until(lambda: self.told(name, status), f"Alertmanager tells that {name} is {status}", 90)


def _alertmanager(hook: HookServer) -> dict[str, Any]:
    """The example that is shipped, with the test's addresses, and without its waiting times."""
    configuration: dict[str, Any] = yaml.safe_load((_DEPLOY / "examples" / "alertmanager.yml").read_text())
    for receiver in configuration["receivers"]:
        for one in receiver["webhook_configs"]:
            one["url"] = f"{hook.url}/{receiver['name']}"
    for route in (configuration["route"], *configuration["route"]["routes"]):
        route |= {"group_wait": "0s", "group_interval": "1s"}
    return configuration


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A daemon that judged a healthy version and its fine-tune, scraped for a while."""
    folder = tmp_path_factory.mktemp("story")
    rules = folder / "layerwatch.rules.yml"
    options = [word for one in _SHORTENED for word in ("--set", one)]
    subprocess.run(
        [
            sys.executable, str(_DEPLOY / "build.py"), *options, "--job", "layerwatch",
            "--runbooks", _RUNBOOKS, "--grafana", _GRAFANA, "--output", str(rules),
        ],
        check=True,
    )  # fmt: skip
    world = DirectoryWorld(folder, marker=None, refs=["latest"])
    world.publish("digits", "v1", network())
    world.publish("digits", "v2", finetuned(network()))
    other = folder / "other"
    other.mkdir()
    config = write_config(
        folder / "layerwatch.yaml",
        directory("local", world.root),
        directory("other", other),
        receivers=[{"name": "journal", "kind": "log"}],
        server={"external_url": "https://watch.example/lw"},
        port=free_port(),
    )
    with HookServer() as hook, DaemonProcess(config) as daemon:
        daemon.wait_until_listening()
        assert daemon.wait_for_verdict("local/digits/v2") == "pass"
        target = daemon.address.removeprefix("http://")
        with (
            AlertmanagerServer(folder / "alertmanager", _alertmanager(hook)) as alertmanager,
            PrometheusServer(folder / "prometheus", target, [rules], alertmanager.address) as prometheus,
        ):
            yield Story(world, config, daemon, prometheus, hook)


def test_while_all_is_well_only_the_heartbeat_comes(story: Story) -> None:
    told = story.wait_for("LayerwatchHeartbeat", "firing")
    assert (told.receiver, told.labels["severity"]) == ("heartbeat", "none")
    until(lambda: story.prometheus.query("layerwatch_model_verdict == 0"), "the verdict of v2 is scraped")
    until(
        lambda: story.prometheus.query("count_over_time(layerwatch_build_info[1m]) > 5"),
        "Prometheus has scraped and evaluated some times",
    )
    assert {one.name for one in story.all_told()} == {"LayerwatchHeartbeat"}
    assert story.prometheus.failing_rules() == []
    (ratio,) = story.prometheus.query("registry:layerwatch_model_verdict:passed_ratio")
    assert (ratio["metric"]["registry"], ratio["value"][1]) == ("local", "1")


def test_a_broken_version_pages_with_everything_that_is_needed(story: Story) -> None:
    story.world.publish("digits", "v3", with_wrong_scale(finetuned(network(), 2)))
    told = story.wait_for("LayerwatchLayerBroken", "firing")
    assert told.receiver == "pages"
    assert told.labels == {
        "alertname": "LayerwatchLayerBroken",
        "severity": "critical",
        "job": "layerwatch",
        "registry": "local",
        "model": "digits",
        "ref": "latest",
    }
    assert told.annotations["summary"] == "digits (latest in local) has 1 broken layer"
    assert (
        "points at version v3 (judged against v2), in which layers are broken: fc2."
        in told.annotations["description"]
    )
    assert told.annotations["runbook_url"] == f"{_RUNBOOKS}/LayerwatchLayerBroken.md"
    assert told.annotations["dashboard_url"] == (
        f"{_GRAFANA}/d/layerwatch-model?var-registry=local&var-model=digits&var-ref=latest"
    )
    assert told.annotations["report_url"] == (
        "https://watch.example/lw/report?registry=local&model=digits&ref=latest"
    )
    assert {one.name for one in story.all_told()} == {"LayerwatchHeartbeat", "LayerwatchLayerBroken"}
    assert story.prometheus.failing_rules() == []


def test_a_repaired_version_resolves_it(story: Story) -> None:
    assert story.told("LayerwatchLayerBroken", "resolved") is None
    story.world.publish("digits", "v4", finetuned(network(), 3))
    told = story.wait_for("LayerwatchLayerBroken", "resolved")
    assert (told.receiver, told.labels["model"]) == ("pages", "digits")
    assert story.prometheus.alerts("LayerwatchLayerBroken") == []


def test_a_registry_that_is_taken_away_and_brought_back_is_told_of(story: Story) -> None:
    away = story.world.root.with_name("away")
    story.world.root.rename(away)
    told = story.wait_for("LayerwatchRegistryDown", "firing")
    assert (told.receiver, told.labels["registry"], told.labels["severity"]) == (
        "tickets",
        "local",
        "warning",
    )
    assert told.labels["instance"] == story.daemon.address.removeprefix("http://")
    away.rename(story.world.root)
    story.wait_for("LayerwatchRegistryDown", "resolved")


def test_a_daemon_that_is_stopped_is_missed(story: Story) -> None:
    story.daemon.send(signal.SIGTERM)
    assert story.daemon.wait(30) == 0
    told = story.wait_for("LayerwatchAbsent", "firing")
    assert (told.receiver, told.labels["severity"]) == ("pages", "critical")
    assert told.labels["instance"] == story.daemon.address.removeprefix("http://")
    assert told.annotations["summary"].endswith("does not answer")
    assert story.prometheus.failing_rules() == []
    # One page, and nothing else that was not told before.
    assert len(story.prometheus.alerts("LayerwatchAbsent")) == 1
    assert {one.name for one in story.all_told()} == {
        "LayerwatchHeartbeat",
        "LayerwatchLayerBroken",
        "LayerwatchRegistryDown",
        "LayerwatchAbsent",
    }


def test_a_daemon_that_is_started_again_ends_it_and_raises_nothing(story: Story) -> None:
    with DaemonProcess(story.config) as again:
        again.wait_until_listening()
        assert again.address == story.daemon.address
        story.wait_for("LayerwatchAbsent", "resolved")
        before = len(story.all_told())
        until(
            lambda: story.prometheus.query("changes(process_start_time_seconds[5m]) == 1"),
            "Prometheus has seen the new process",
        )
        until(
            lambda: story.prometheus.query("count_over_time(layerwatch_model_verdict[10s]) > 8"),
            "and has evaluated the rules some times",
        )
        assert {one.name for one in story.all_told()[before:]} <= {"LayerwatchHeartbeat", "LayerwatchAbsent"}
        assert story.prometheus.query('ALERTS{alertname!="LayerwatchHeartbeat"}') == []
        assert story.prometheus.failing_rules() == []

"""A pod without a cluster: the rendered manifest's container, started from the installed command with nothing changed.

Its config, arguments, environment, user, mounts and probes come from the manifest, what the image adds to the environment
from the Dockerfile; the kubelet's part (volumes, the links in a ConfigMap's folder, probes, SIGTERM) is played here.
"""

from __future__ import annotations

import base64
import json
import runpy
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from layerwatch_testing.bareroot import ContainedProcess, Volume, python_folder, require_namespaces
from layerwatch_testing.kubernetes import (
    KUBERNETES,
    REPOSITORY,
    Manifest,
    containers_of,
    kustomized,
    pod_of,
)
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.servers import ServerMissing
from layerwatch_testing.servers.postgresql import PostgresqlServer
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

RELOAD = ("python", "-c", "import os, signal; os.kill(1, signal.SIGHUP)")


def image_environment() -> dict[str, str]:
    """What the last stage of the Dockerfile puts into the environment; PATH leads to the Python that runs the tests."""
    replay = runpy.run_path(str(REPOSITORY / "deploy" / "container" / "replay.py"))
    found: dict[str, str] = {}
    for instruction in replay["parse"]((REPOSITORY / "deploy" / "container" / "Dockerfile").read_text()):
        if instruction.keyword == "FROM":
            found = {}
        elif instruction.keyword == "ENV":
            found.update(replay["pairs"](instruction, found))
    return {**found, "PATH": f"{python_folder()}:/usr/bin:/bin"}


class ConfigFolder:
    """A ConfigMap or Secret as the kubelet mounts it: files are links through `..data`, which is replaced as a whole."""

    def __init__(self, folder: Path, data: Mapping[str, str]) -> None:
        self.folder = folder
        self._count = 0
        folder.mkdir()
        self.write(data)
        for name in data:
            (folder / name).symlink_to(f"..data/{name}")

    def write(self, data: Mapping[str, str]) -> None:
        """Put other contents in place in one step."""
        self._count += 1
        fresh = self.folder / f"..2026_11_22_01_00_00.{self._count:09d}"
        fresh.mkdir()
        for name, text in data.items():
            (fresh / name).write_text(text)
        link = self.folder / "..data"
        before = link.resolve() if link.is_symlink() else None
        shown = self.folder / "..data_tmp"
        shown.symlink_to(fresh.name)
        shown.replace(link)
        if before is not None:
            shutil.rmtree(before)


class MimickedPod:
    """The container `layerwatch` of the pod that an overlay makes."""

    def __init__(self, overlay: str, folder: Path, secrets: Mapping[str, str] | None = None) -> None:
        manifests = kustomized(KUBERNETES / "overlays" / overlay)
        owner = next(one for one in manifests if pod_of(one))
        self.pod: Manifest = pod_of(owner) or {}
        self.container = next(one for one in containers_of(self.pod) if one["name"] == "layerwatch")
        maps = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "ConfigMap"}
        claims = {one["metadata"]["name"] for one in owner["spec"].get("volumeClaimTemplates") or ()}
        self._secrets = secrets
        self.models_target = ""
        self.world = DirectoryWorld(folder, marker=None)
        self.volumes: list[Volume] = []
        for mount in self.container["volumeMounts"]:
            source = next((one for one in self.pod["volumes"] if one["name"] == mount["name"]), None)
            if source is not None and "persistentVolumeClaim" in source:
                self.models_target = mount["mountPath"]
                assert mount["readOnly"], "the models are not ours to change"
                continue
            self.volumes.append(
                Volume(
                    mount["mountPath"],
                    self._folder(folder, mount["name"], source, maps, claims),
                    mount.get("readOnly", False),
                )
            )
        context = {**(self.pod.get("securityContext") or {}), **self.container["securityContext"]}
        assert context["runAsNonRoot"] and context["readOnlyRootFilesystem"]
        environment = {one["name"]: one["value"] for one in self.container.get("env") or ()}
        self.environment = {**image_environment(), **environment}
        self.port = self.container["ports"][0]["containerPort"]
        self.process = ContainedProcess(
            ["layerwatch", *self.container["args"]],
            self._scratch(folder),
            uid=context["runAsUser"],
            gid=context["runAsGroup"],
            groups=[context["fsGroup"]] if "fsGroup" in context else [],
            environment=self.environment,
            folder="/var/lib/layerwatch",
            # The models' volume comes later; its mount point is there.
            volumes=[*self.volumes, *self._mount_points(folder)],
        )

    def _mount_points(self, folder: Path) -> list[Volume]:
        empty = self._scratch(folder, "empty")
        return [Volume(self.models_target, empty, True)] if self.models_target else []

    def _scratch(self, folder: Path, name: str = "process") -> Path:
        place = folder / name
        place.mkdir()
        return place

    def _folder(
        self,
        folder: Path,
        name: str,
        source: Mapping[str, Any] | None,
        maps: Mapping[str, Mapping[str, str]],
        claims: set[str],
    ) -> Path:
        place = folder / name
        if source is not None and "configMap" in source:
            self.config = ConfigFolder(place, maps[source["configMap"]["name"]])
            self.config_data = maps[source["configMap"]["name"]]
        elif source is not None and "secret" in source:
            if self._secrets is not None:
                ConfigFolder(place, self._secrets)
            else:
                assert source["secret"]["optional"], "a secret of this overlay would have to be made first"
                place.mkdir()
        else:
            assert name in claims if source is None else "emptyDir" in source
            place.mkdir()
            place.chmod(0o777)
        return place

    def probe(self, kind: str) -> int:
        """The status that a probe of the manifest gets."""
        asked = self.container[kind]["httpGet"]
        (port,) = (one["containerPort"] for one in self.container["ports"] if one["name"] == asked["port"])
        return self.process.get(port, asked["path"])[0]

    def get(self, path: str) -> str:
        """The body of a page."""
        return self.process.get(self.port, path)[1]

    def reload(self) -> None:
        """Load the configuration again, as the README says."""
        told = self.process.execute(RELOAD, self.environment)
        assert told.returncode == 0, told.stderr

    def verdicts(self) -> dict[str, str | None]:
        """version -> verdict of its current bytes."""
        return {row["version"]: row["verdict"] for row in json.loads(self.get("/api/v1/versions"))}

    def gauge(self, name: str) -> float | None:
        """The value of a metric that has one series at most."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
            if sample.name == name
        ]
        assert len(found) < 2, found
        return found[0] if found else None

    def events(self) -> list[dict[str, str]]:
        """The log, every line of which is an event."""
        return [json.loads(line) for line in self.process.log.splitlines()]


@pytest.fixture(autouse=True)
def able() -> None:
    require_namespaces()
    if not (Path(python_folder()) / "layerwatch").exists():
        pytest.skip("the command layerwatch is not installed beside this Python")


@pytest.fixture(params=["sidecar", "sidecar-native", "standalone"])
def pod(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MimickedPod]:
    mimicked = MimickedPod(request.param, tmp_path)
    with mimicked.process:
        yield mimicked


def test_the_container_of_the_manifest_runs_with_the_installed_command_unchanged(
    pod: MimickedPod,
) -> None:
    first_probe = "startupProbe" if "startupProbe" in pod.container else "livenessProbe"
    until(lambda: pod.probe(first_probe) == 200, "the first probe", 60)
    assert pod.process.credentials() == {
        "Uid": "65532", "Gid": "65532", "CapEff": "0000000000000000", "NoNewPrivs": "1"
    }  # fmt: skip
    assert "ro" in pod.process.root_options()
    before = pod.get("/api/v1/config")

    # A change of the ConfigMap is in the folder at once, and taken when it is asked for. The volume is not there yet.
    settings = yaml.safe_load(pod.config_data["layerwatch.yaml"])
    settings["registries"][0] |= {"poll": "500ms", "settle": "0s"}
    pod.config.write({"layerwatch.yaml": yaml.safe_dump(settings)})
    pod.reload()
    until(lambda: "configuration reloaded" in pod.process.log, "the reload")
    assert pod.get("/api/v1/config") != before

    # The volume appears late, and what is on it later still.
    pod.process.mount(Volume(pod.models_target, pod.world.root, read_only=True))
    base = network(seed=1)
    pod.world.publish("m", "v1", base)
    until(lambda: pod.verdicts().get("v1"), "the verdict of v1", 90)
    pod.world.publish("m", "v2", with_nan(finetuned(base, seed=2)))
    assert until(lambda: pod.verdicts().get("v2"), "the verdict of v2", 90) == "fail"
    until(lambda: pod.gauge("layerwatch_model_verdict") == 2, "the gauge of the verdict", 10)
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert kind not in pod.container or pod.probe(kind) == 200

    # A broken file changes nothing.
    pod.config.write({"layerwatch.yaml": "registries: 7\n"})
    pod.reload()
    until(lambda: "the old one stays in force" in pod.process.log, "the refusal of a broken file")
    assert pod.gauge("layerwatch_config_last_reload_successful") == 0

    # The end, by itself and not by the kubelet's SIGKILL.
    pod.process.terminate()
    assert pod.process.wait(pod.pod["terminationGracePeriodSeconds"]) == 0
    messages = [event["message"] for event in pod.events()]
    assert "stopping" in messages[:-1]
    assert messages[-1] == "stopped"
    assert not [event for event in pod.events() if "error" in event], pod.process.log


@pytest.fixture
def postgresql() -> Iterator[PostgresqlServer]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            server = PostgresqlServer(Path(folder))
        except ServerMissing as missing:
            pytest.skip(str(missing))
        yield server
        server.stop()


@pytest.mark.server
def test_the_pod_of_the_fleet_keeps_its_store_in_postgresql_and_a_second_one_ends_at_once(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    database = postgresql.create_database()
    secrets = {
        "token": "a-token",
        "database-url": postgresql.url(database) + "\n",
        "mlflow": "another-token",
        "webhook-url": "https://hooks.example.org/layerwatch",
        "webhook-secret": "whsec_" + base64.b64encode(bytes(32)).decode(),
    }
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first = MimickedPod("fleet", tmp_path / "first", secrets)
    with first.process as process:
        process.relay(postgresql.port)
        until(lambda: first.probe("startupProbe") == 200, "the first probe", 60)
        # The registry cannot be reached from here: alive, not ready, and it says so.
        assert (first.probe("livenessProbe"), first.probe("readinessProbe")) == (200, 503)
        assert "prod" in first.get("/-/ready")
        shown = first.get("/api/v1/config")
        assert not [secret for secret in secrets.values() if secret.strip() in shown]
        tables = postgresql.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database)
        assert ("outbox",) in tables
        assert not list((tmp_path / "first" / "state").iterdir()), "the store is the database"
        second = MimickedPod("fleet", tmp_path / "second", secrets)
        with second.process as refused:
            refused.relay(postgresql.port)
            assert refused.wait(60) == 1
            assert "another layerwatch daemon" in second.events()[-1]["message"]
        assert first.probe("livenessProbe") == 200
        process.terminate()
        assert process.wait(first.pod["terminationGracePeriodSeconds"]) == 0

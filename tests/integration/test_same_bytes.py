"""The same weights are measured once, however many names, commits, tags and registries they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwatch.config.registries import HuggingFaceRegistrySettings, OciRegistrySettings
from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.registries import build_registry
from layerwatch.daemon.registries.base import Registry
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionKey
from layerwatch.daemon.watcher import Watcher
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import network
from layerwatch_testing.rigs import Rig
from layerwatch_testing.servers import ServerMissing
from layerwatch_testing.servers.huggingface import HubServer
from layerwatch_testing.servers.oci import CREATED, Blob, OciServer
from layerwatch_testing.worlds.directory import DirectoryWorld

pytestmark = pytest.mark.server


class Watched:
    """A rig with a directory, a hub and an OCI registry side by side."""

    def __init__(self, folder: Path, hub: HubServer, oci: OciServer, executor: LocalExecutor) -> None:
        database = Database.open(f"sqlite:///{folder / 'layerwatch.db'}")
        self.world = DirectoryWorld(folder)
        self.rig = Rig(database, self.world, executor)
        downloads = Downloads(folder / "downloads", 2**30)
        self.rig.registries |= {
            "hub": build_registry(
                HuggingFaceRegistrySettings(
                    name="hub", kind="huggingface", url=hub.url, repositories=("acme/*",)
                ),
                downloads,
            ),
            "oci": build_registry(
                OciRegistrySettings(name="oci", kind="oci", url=oci.url, repositories=("models/*",)),
                downloads,
            ),
        }
        self.rig.telemetry.init_for(["hub", "oci"], [])
        self.watchers = {name: self._watcher(registry) for name, registry in self.rig.registries.items()}

    def _watcher(self, registry: Registry) -> Watcher:
        nothing = lambda: None
        rig = self.rig
        return Watcher(
            registry, rig.database, lambda: rig.policy, rig.telemetry, rig.clock, nothing, nothing, nothing
        )

    def cycle(self) -> None:
        self.rig.clock.advance(60)
        for watcher in self.watchers.values():
            assert "not listed" not in watcher.look()
        self.rig.drain()

    def verdict(self, registry: str, model: str, version: str) -> Verdict | None:
        with self.rig.database.read() as connection:
            found = versions.current(connection, VersionKey(registry, model, version))
        assert found is not None
        return found.verdict

    @property
    def scans(self) -> int:
        return len(self.rig.executor.scanned)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer()
    yield server
    server.stop()


@pytest.fixture
def oci(tmp_path: Path) -> Iterator[OciServer]:
    folder = tmp_path / "oci"
    folder.mkdir()
    try:
        server = OciServer(folder)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield server
    server.stop()


@pytest.fixture
def watched(tmp_path: Path, hub: HubServer, oci: OciServer) -> Iterator[Watched]:
    executor = LocalExecutor(ScanSettings(niceness=0, threads=1))
    made = Watched(tmp_path, hub, oci, executor)
    yield made
    made.rig.database.close()
    executor.close()


def bytes_of(tmp_path: Path) -> bytes:
    file = tmp_path / "weights.safetensors"
    write_safetensors(file, network())
    return file.read_bytes()


def test_a_commit_of_the_readme_alone_causes_no_second_scan(
    watched: Watched, hub: HubServer, tmp_path: Path
) -> None:
    hub.commit("acme/bert", {"model.safetensors": bytes_of(tmp_path)})
    watched.cycle()
    assert watched.scans == 1
    downloads = len(hub.paths("/resolve/"))
    sha = hub.commit("acme/bert", {"README.md": b"# Better words"})
    watched.cycle()
    assert watched.verdict("hub", "acme/bert", sha) is Verdict.PASS
    assert watched.scans == 1
    assert len([path for path in hub.paths("/resolve/")[downloads:] if "safetensors" in path]) == 0


def test_another_tag_on_the_same_bytes_causes_no_second_scan(
    watched: Watched, oci: OciServer, tmp_path: Path
) -> None:
    blob = Blob(bytes_of(tmp_path), title="model.safetensors")
    digest = oci.push("models/bert", "v1", [blob], {CREATED: "2026-11-21T00:00:00Z"})
    watched.cycle()
    oci.tag("models/bert", "prod", digest)
    again = oci.push("models/bert", "v1-rebuilt", [blob], {CREATED: "2026-11-21T01:00:00Z"})
    watched.cycle()
    assert again != digest
    assert watched.verdict("oci", "models/bert", digest) is Verdict.PASS
    assert watched.verdict("oci", "models/bert", again) is Verdict.PASS
    assert watched.scans == 1


def test_the_same_weights_in_three_registries_are_measured_once(
    watched: Watched, hub: HubServer, oci: OciServer, tmp_path: Path
) -> None:
    sha = hub.commit("acme/bert", {"model.safetensors": bytes_of(tmp_path)})
    blob = Blob(bytes_of(tmp_path), title="model.safetensors")
    digest = oci.push("models/bert", "v1", [blob], {CREATED: "2026-11-21T00:00:00Z"})
    watched.world.publish("bert", "v1", network())
    watched.cycle()
    found = [
        watched.verdict("hub", "acme/bert", sha),
        watched.verdict("oci", "models/bert", digest),
        watched.verdict("reg", "bert", "v1"),
    ]
    assert found == [Verdict.PASS] * 3
    assert watched.scans == 1

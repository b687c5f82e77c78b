"""`layerwatch run` as a container starts it: settings from the environment, events as JSON, a volume that is late."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerwatch_testing import processes
from layerwatch_testing.daemons import Client, directory, write_config
from layerwatch_testing.networks import network
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

SERVICE_LINKS = {
    "LAYERWATCH_SERVICE_HOST": "10.0.0.7",
    "LAYERWATCH_SERVICE_PORT": "9466",
    "LAYERWATCH_SERVICE_PORT_HTTP": "9466",
    "LAYERWATCH_PORT": "tcp://10.0.0.7:9466",
    "LAYERWATCH_PORT_9466_TCP_ADDR": "10.0.0.7",
}
"""What the kubelet gives to every pod beside a service called layerwatch, unless enableServiceLinks is false."""


class Container(Client):
    """The command, its log, and what it answers."""

    def __init__(self, folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
        super().__init__("")
        self.log_file = folder / f"events-{len(list(folder.glob('events-*')))}"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "layerwatch.daemon", "run", "--log-format", "json", *arguments],
                cwd=folder,
                env=processes.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def messages(self) -> list[str]:
        """The messages of all events so far; every line must be one."""
        return [json.loads(line)["message"] for line in self.log_file.read_text().splitlines()]

    def wait_until_listening(self) -> None:
        """Find out its address."""

        def address() -> str | None:
            assert self.process.poll() is None, self.log_file.read_text()
            found = (one.split()[-1] for one in self.messages() if one.startswith("listening on "))
            return next(found, None)

        self.address = until(address, "the address")


@contextmanager
def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Container]:
    container = Container(folder, list(arguments), environment)
    try:
        yield container
    finally:
        container.process.kill()
        container.process.wait()


def test_the_environment_alone_is_enough_and_every_line_of_the_log_is_an_event(tmp_path: Path) -> None:
    world = DirectoryWorld(tmp_path, marker=None)
    world.publish("m", "v1", network(seed=1))
    folder = tmp_path / "empty"
    folder.mkdir()
    settings = {
        "LAYERWATCH_SERVER__LISTEN": "127.0.0.1:0",
        "LAYERWATCH_STORE__URL": f"sqlite:///{tmp_path / 'store.db'}",
        "LAYERWATCH_REGISTRIES": json.dumps([directory("local", world.root)]),
        "LAYERWATCH_SCAN__THREADS": "1",
        **SERVICE_LINKS,
    }
    with running(folder, **settings) as container:
        container.wait_until_listening()
        assert container.wait_for_verdict("local/m/v1") == "pass"
        container.process.send_signal(signal.SIGTERM)
        assert container.process.wait(12) == 0
        assert container.messages()[-1] == "stopped"
    assert not list(folder.glob("layerwatch*")), "nothing is written beside the configuration"


def test_what_is_wrong_with_the_settings_is_told_in_events_too(tmp_path: Path) -> None:
    config = tmp_path / "layerwatch.yaml"
    config.write_text("registries:\n  - {name: local, kind: directory}\nstorr: {}\n")
    with running(tmp_path, "-c", str(config)) as container:
        assert container.process.wait(60) == 2
        text = "\n".join(container.messages())
        assert "registries[0].path" in text and "storr" in text


def test_a_folder_that_is_missing_at_the_start_keeps_it_from_being_ready_and_is_watched_once_it_is_there(
    tmp_path: Path,
) -> None:
    config = write_config(tmp_path / "layerwatch.yaml", directory("local", tmp_path / "late" / "models"))
    with running(tmp_path, "-c", str(config)) as container:
        container.wait_until_listening()
        until(
            lambda: "does not exist: create or mount it" in container.get("/-/ready").text, "the reason", 20
        )
        assert container.get("/-/ready").status_code == 503
        assert container.get("/-/healthy").status_code == 200
        assert container.sample("layerwatch_registry_up", registry="local") == 0
        (tmp_path / "late").mkdir()
        world = DirectoryWorld(tmp_path / "late", marker=None)
        world.publish("m", "v1", network(seed=1))
        assert container.wait_for_verdict("local/m/v1") == "pass"
        assert container.get("/-/ready").status_code == 200
        assert container.process.poll() is None


def test_a_second_replica_on_the_same_store_ends_at_once_and_says_why(tmp_path: Path) -> None:
    config = write_config(tmp_path / "layerwatch.yaml")
    with running(tmp_path, "-c", str(config)) as first:
        first.wait_until_listening()
        with running(tmp_path, "-c", str(config)) as second:
            assert second.process.wait(60) == 1
            assert "another layerwatch daemon uses this store" in second.messages()[-1]
        assert first.get("/-/healthy").status_code == 200

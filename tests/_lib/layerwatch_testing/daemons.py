"""The daemon, once inside the test's process and once as a process of its own, asked over HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import requests
from prometheus_client.parser import text_string_to_metric_families

from layerwatch.daemon.app import App
from layerwatch_testing import processes
from layerwatch_testing.emptystore import empty_store
from layerwatch_testing.waiting import until

TOKEN = "the-token-of-the-tests"


def directory(name: str, path: Path, **other: Any) -> dict[str, Any]:
    """Configuration of a directory registry that is looked at often and believes versions at once."""
    return {"name": name, "kind": "directory", "path": str(path), "poll": "200ms", "settle": "0s", **other}


def write_config(
    path: Path,
    *registries: Mapping[str, Any],
    receivers: Sequence[Mapping[str, Any]] = (),
    port: int = 0,
    **sections: Mapping[str, Any],
) -> Path:
    """A configuration file (JSON is YAML), replaced in one step; beside it lies the store, new and empty at first."""
    store = path.with_name("layerwatch.db")
    if not store.exists() and "store" not in sections:
        empty_store(store)
    config: dict[str, Any] = {
        "server": {"listen": f"127.0.0.1:{port}", "token": TOKEN},
        "store": {"url": f"sqlite:///{store}"},
        "registries": list(registries),
        "scan": {"niceness": 0, "threads": 1},
        "alerts": {"receivers": list(receivers)},
    }
    if receivers:
        config["alerts"]["route"] = {
            "receiver": receivers[0]["name"],
            "group_wait": "0s",
            "group_interval": "0s",
        }
    for name, values in sections.items():
        config[name] = {**config.get(name, {}), **values}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(config, indent=1))
    return fresh.replace(path)


class Client:
    """Asks a daemon."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **parameters: str) -> requests.Response:
        return requests.get(self.address + path, params=parameters, timeout=10)

    def post(self, path: str, token: str | None = TOKEN) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return requests.post(self.address + path, headers=headers, timeout=30)

    def verdicts(self) -> dict[str, str | None]:
        """``registry/model/version`` -> verdict of the current bytes."""
        rows = self.get("/api/v1/versions", limit="1000").json()
        return {
            f"{row['registry']}/{row['model']}/{row['version']}": row["verdict"] for row in reversed(rows)
        }

    def states(self) -> dict[str, str]:
        """``registry/model/version`` -> pending, scanning or judged."""
        rows = self.get("/api/v1/versions", limit="1000").json()
        return {f"{row['registry']}/{row['model']}/{row['version']}": row["state"] for row in reversed(rows)}

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Value by sorted labels of one metric."""
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == name
        }

    def sample(self, name: str, **labels: str) -> float | None:
        """Value of the one series with these labels."""
        return self.samples(name).get(tuple(sorted(labels.items())))

    def wait_for_verdict(self, version: str, seconds: float = 60) -> str:
        """The verdict of ``registry/model/version`` once there is one."""
        return until(lambda: self.verdicts().get(version), f"the verdict of {version}", seconds)


class RunningApp(Client):
    """An `App` in a thread of the test's process; a context manager."""

    def __init__(self, config: Path) -> None:
        super().__init__("")
        self.app = App(config)
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="app", daemon=True)

    def _run(self) -> None:
        try:
            self.app.run(self._on_ready)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self._error = error
            self._ready.set()

    def _on_ready(self, address: str) -> None:
        self.address = address
        self._ready.set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self.app.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error


class DaemonProcess(Client):
    """``layerwatch run`` as a process; a context manager that kills what is left."""

    def __init__(self, config: Path, **environment: str) -> None:
        super().__init__("")
        self.log_file = config.with_name(f"daemon-{len(list(config.parent.glob('daemon-*.log')))}.log")
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "layerwatch.daemon", "run", "-c", str(config)],
                cwd=config.parent,
                env=processes.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything it logged so far."""
        return self.log_file.read_text(errors="replace")

    def wait_until_listening(self) -> None:
        """Find out its address from its log."""

        def address() -> str | None:
            assert self.process.poll() is None, (
                f"the daemon ended with {self.process.returncode}:\n{self.log}"
            )
            _, found, rest = self.log.partition("listening on ")
            return rest.split()[0] if found and "\n" in rest else None

        self.address = until(address, "the daemon's address")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit code; fails when it does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still alive after {seconds} s:\n{self.log}") from None

    def workers(self) -> list[int]:
        """Process ids of its scan processes."""
        return processes.children(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

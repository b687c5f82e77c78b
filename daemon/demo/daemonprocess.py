"""The daemon of the demonstration: the installed command in a process of its own, asked over HTTP."""

from __future__ import annotations

import base64
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from layerwatch.daemon.demo.errors import DemoError, DemoReason
from layerwatch.daemon.demo.narration import Judged
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.names import LAYER_ALPHA, LAYER_ALPHA_SIGMA, LAYER_LOG_NORM, MODEL_INFO

USUAL_PORT = 9466
ALPHA = LAYER_ALPHA[0]
ALPHA_SIGMA = LAYER_ALPHA_SIGMA[0]
LOG_NORM = LAYER_LOG_NORM[0]
_START_LIMIT = 60.0


def write_config(folder: Path, registry: Path, webhook_url: str, secret: str, port: int) -> Path:
    """The configuration file of the demonstration; readable by its owner only, because it holds the secret."""
    config = {
        "server": {"listen": f"127.0.0.1:{port}", "external_url": f"http://127.0.0.1:{port}"},
        "store": {"url": f"sqlite:///{folder / 'layerwatch.db'}"},
        "registries": [
            {"name": "demo", "kind": "directory", "path": str(registry), "poll": "1s", "settle": "1s"},
        ],
        "alerts": {
            "receivers": [
                {
                    "name": "demo-webhook",
                    "kind": "webhook",
                    "url": webhook_url,
                    "secret": secret,
                    "allow_private_cidrs": ["127.0.0.0/8"],
                }
            ],
            # Each version is told at once: nobody waits for others here.
            "route": {"receiver": "demo-webhook", "group_wait": "0s", "group_interval": "0s"},
        },
    }
    path = folder / "layerwatch.yaml"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def new_secret() -> str:
    """A fresh signing secret in the form of Standard Webhooks; it never leaves this machine."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def free_port() -> int:
    """The usual port when nobody has it, else any free one."""
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError(DemoReason.DAEMON, "no free port on 127.0.0.1")


@dataclass(frozen=True, slots=True)
class Gauges:
    """What /metrics says of one model.

    Attributes:
        version: version that the gauges belong to; None while nothing is exported.
        values: gauge name -> layer -> value.
    """

    version: str | None
    values: dict[str, dict[str, float]]


class DaemonProcess:
    """``layerwatch run`` as a child process; its log goes to ``daemon.log`` beside the configuration."""

    def __init__(self, config: Path, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.log = config.parent / "daemon.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "layerwatch.daemon", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_until_ready(self) -> None:
        """Return once the daemon listed its registry; raises DemoError when it ends or takes too long."""
        deadline = time.monotonic() + _START_LIMIT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                tail = self.log.read_text(errors="replace").strip().splitlines()[-1:]
                raise DemoError(
                    DemoReason.DAEMON, f"the daemon ended at once: {' '.join(tail)} (log: {self.log})"
                )
            try:
                if requests.get(f"{self.base}/-/ready", timeout=2).status_code == 200:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.1)
        raise DemoError(
            DemoReason.DAEMON, f"the daemon was not ready after {_START_LIMIT:.0f} s (log: {self.log})"
        )

    def judged(self, model: str, version: str) -> Judged | None:
        """What the daemon says about a version, or None while it has not judged."""
        found = [one for one in self._get("/api/v1/versions", model=model) if one["version"] == version]
        if not found or found[0]["state"] != "judged":
            return None
        report = self._get(f"/api/v1/versions/{found[0]['id']}/report")
        worst = [one["layer"] for one in report["findings"] if one["severity"] == "critical"]
        return Judged(Verdict(report["verdict"]), worst[0] if worst else None)

    def gauges(self, model: str) -> Gauges:
        """The gauges of a model now, read from /metrics as Prometheus does."""
        text = requests.get(f"{self.base}/metrics", timeout=5).text
        version: str | None = None
        values: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("model") != model:
                    continue
                if sample.name == MODEL_INFO[0]:
                    version = sample.labels["version"]
                elif "layer" in sample.labels:
                    values.setdefault(sample.name, {})[sample.labels["layer"]] = sample.value
        return Gauges(version, values)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _get(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"{self.base}{path}", params=parameters, timeout=5)
        answer.raise_for_status()
        return answer.json()

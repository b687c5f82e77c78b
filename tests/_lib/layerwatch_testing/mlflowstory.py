"""The story of a model in an MLflow registry, as the README tells it: registered, promoted, broken, rolled back.

A real MLflow server, the installed daemon as a process of its own, MLflow's own signed webhooks as the trigger, and a
receiver of alerts. Every line is what was seen at that moment.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hookserver import HookServer
from layerwatch_testing import processes
from layerwatch_testing.daemons import DaemonProcess, write_config
from layerwatch_testing.models import State, write_safetensors
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.servers.mlflow import MlflowServerProcess
from layerwatch_testing.waiting import until

MODEL = "fraud"
HOOK_SECRET = "the-secret-of-the-hook"
_SIGNING_KEY = "whsec_aGlkZGVuLWtleS1oaWRkZW4ta2V5LWhpZGRlbg=="
_VERDICTS = {0: "pass", 1: "warn", 2: "fail", 3: "undecided"}


class MlflowStory:
    """Tells the story step by step; ``lines`` is the transcript."""

    def __init__(
        self, folder: Path, server: MlflowServerProcess, daemon: DaemonProcess, config: Path
    ) -> None:
        self._folder = folder
        self._server = server
        self._daemon = daemon
        self._config = config
        self._told = 0
        self.lines: list[str] = []
        self.seconds_to_scan: list[float] = []

    def tell(self, alerts: HookServer) -> None:
        """All of it."""
        first = network()
        tuned = finetuned(first)
        self._register("the first version", first, None)
        self._alias("1")
        self._register("a fine-tune of it", tuned, "1")
        self._alias("2")
        self._register(
            "a fine-tune whose layer fc2 got a wrong scale", with_wrong_scale(finetuned(tuned, 2)), "2"
        )
        self._as_if("3")
        self._alias("3")
        self._alert(alerts)
        self._alias("2")
        self._alert(alerts)

    def _register(self, what: str, state: State, parent: str | None) -> None:
        file = self._folder / "weights.safetensors"
        write_safetensors(file, state)
        run = self._server.new_run()
        self._server.upload(run, "model/model.safetensors", file.read_bytes())
        tags = {"layerwatch.parent": parent, "layerwatch.relation": "finetuned"} if parent else {}
        number = self._server.register(MODEL, f"runs:/{run}/model", run, **tags)
        self.lines.append(f"# version {number} is registered: {what}")
        verdict = self._daemon.wait_for_verdict(f"prod/{MODEL}/{number}")
        written = until(lambda: self._tags(number).get("layerwatch.verdict"), "the tag")
        assert written == verdict
        self.lines.append(f"version {number}   layerwatch.verdict = {written}")

    def _alias(self, number: str) -> None:
        self._server.call("POST", "registered-models/alias", name=MODEL, alias="champion", version=number)
        self.lines.append(f"# the alias champion is moved to version {number}")

        def moved() -> bool:
            infos = self._daemon.samples("layerwatch_model_info")
            return any(("ref", "champion") in labels and ("version", number) in labels for labels in infos)

        until(moved, "the gauges of the alias")
        gauge = self._daemon.sample("layerwatch_model_verdict", registry="prod", model=MODEL, ref="champion")
        assert gauge is not None
        self.lines.append(
            f'layerwatch_model_verdict{{registry="prod",model="{MODEL}",ref="champion"}} {gauge:g}'
            f"   ({_VERDICTS[int(gauge)]})"
        )

    def _as_if(self, number: str) -> None:
        command = ["gate", f"prod/{MODEL}", "--as-if", f"champion={number}"]
        finished = subprocess.run(
            [sys.executable, "-P", "-m", "layerwatch.daemon", *command, "-c", str(self._config)],
            capture_output=True,
            text=True,
            env=processes.environment(),
            timeout=120,
            check=False,
        )
        assert not finished.stderr, finished.stderr
        self.lines.append(f"$ layerwatch {' '.join(command)}")
        self.lines += finished.stdout.splitlines()
        self.lines.append(f"(exit code {finished.returncode})")

    def _alert(self, alerts: HookServer) -> None:
        until(lambda: len(alerts.received) > self._told, "the alert")
        event = json.loads(alerts.received[self._told].body)
        self._told += 1
        summary = re.sub(r"\d{4}-\d\d-\d\d [\d:]+ UTC", "(time)", event["data"]["summary"])
        self.lines.append(f"webhook: {event['type']}: {summary}")

    def _tags(self, number: str) -> dict[str, str]:
        found = self._server.call("GET", "model-versions/get", name=MODEL, version=number)
        return {tag["key"]: tag["value"] for tag in found["model_version"].get("tags", [])}


@contextmanager
def mlflow_story(folder: Path) -> Iterator[Callable[[], MlflowStory]]:
    """Server, daemon and receiver, running; what is yielded tells the story."""
    (folder / "server").mkdir()
    server = MlflowServerProcess(folder / "server")
    try:
        with HookServer() as alerts:
            registry: dict[str, object] = {"name": "prod", "kind": "mlflow", "url": server.url, "poll": "5s"}
            registry |= {"refs": ["@champion"], "write_verdict": True, "hook_secret": HOOK_SECRET}
            receiver: dict[str, object] = {"name": "oncall", "kind": "webhook", "url": f"{alerts.url}/hook"}
            receiver |= {"secret": _SIGNING_KEY, "allow_private_cidrs": ["127.0.0.0/8"]}
            config = write_config(folder / "layerwatch.yaml", registry, receivers=[receiver])
            with DaemonProcess(config) as daemon:
                daemon.wait_until_listening()
                _announce(server, f"{daemon.address}/hooks/prod")
                story = MlflowStory(folder, server, daemon, config)

                def told() -> MlflowStory:
                    story.tell(alerts)
                    return story

                yield told
    finally:
        server.stop()


def _announce(server: MlflowServerProcess, hook: str) -> None:
    """MLflow's own webhooks, which it signs."""
    events = [
        {"entity": "MODEL_VERSION", "action": "CREATED"},
        {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"},
    ]
    server.call(
        "POST", "webhooks", name="layerwatch", url=hook, events=events, secret=HOOK_SECRET, status="ACTIVE"
    )

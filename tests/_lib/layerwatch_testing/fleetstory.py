"""A daemon that sees much happen while a Prometheus scrapes it: something to show in every panel of a dashboard."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray

from hookserver import Answer, HookServer
from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.models import State
from layerwatch_testing.networks import Network, finetuned, network, with_wrong_scale
from layerwatch_testing.servers.prometheus import PrometheusServer
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

FRAUD = {"registry": "local", "model": "fraud", "ref": "latest"}
MIXTURE = {"registry": "local", "model": "mixture", "ref": "latest"}


def mixture(seed: int = 0) -> Network:
    """Twelve layers by number, two of which have eight experts."""
    generator = np.random.default_rng(seed)

    def matrix() -> NDArray[np.float32]:
        return (generator.standard_normal((96, 64)) / 8).astype(np.float32)

    state = {f"layers.{number}.attn.weight": matrix() for number in range(12)}
    for layer in (2, 10):
        state |= {f"layers.{layer}.mlp.experts.{number}.w1.weight": matrix() for number in range(8)}
    return state


@dataclass(frozen=True)
class Story:
    """A daemon that has seen much, and the Prometheus that scraped it from the beginning."""

    daemon: DaemonProcess
    prometheus: PrometheusServer
    began: float
    ended: float

    def rows(self, target: Mapping[str, Any], expr: str) -> list[dict[str, Any]]:
        """What Grafana gets for one query: at the end of the time range, or over all of it."""
        if target["instant"]:
            return self.prometheus.query(expr, self.ended)
        return self.prometheus.query_range(expr, self.began, self.ended)

    @property
    def seconds(self) -> int:
        return math.ceil(self.ended - self.began)


@contextmanager
def told(folder: Path, rules: Path, pause: Callable[[], None] = lambda: None) -> Iterator[Story]:
    """The story, told to its end: good versions, a broken one, one broken expert, a version that cannot be read, bytes
    that changed in place, a forged event, a webhook that fails, a registry that is gone, a scan that hangs.

    Args:
        folder: where everything lies.
        rules: file of Prometheus' rules.
        pause: called after each step.
    """
    world = DirectoryWorld(folder, marker=None)
    world.publish("fraud", "v1", network())
    world.publish("mixture", "v1", mixture())
    with HookServer() as webhook:
        receiver = {
            "name": "oncall",
            "kind": "webhook",
            "url": webhook.url,
            "allow_private_cidrs": ["127.0.0.0/8"],
        }
        config = write_config(
            folder / "layerwatch.yaml",
            directory("local", world.root, hook_secret="the secret of the hook"),
            directory("gone", folder / "nowhere"),
            receivers=[receiver],
            server={"external_url": "https://layerwatch.example.com"},
        )
        with DaemonProcess(config) as daemon:
            daemon.wait_until_listening()
            (folder / "prometheus").mkdir()
            target = daemon.address.removeprefix("http://")
            with PrometheusServer(folder / "prometheus", target, [rules]) as server:
                began = time.time()
                stuck = _play(world, daemon, server, webhook, pause)
                yield Story(daemon, server, began, time.time())
                for worker in stuck:
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGCONT)


def _play(
    world: DirectoryWorld,
    daemon: DaemonProcess,
    server: PrometheusServer,
    webhook: HookServer,
    pause: Callable[[], None],
) -> list[int]:
    """Play it; the scan processes that hang at its end."""

    def judged(version: str, state: State, verdict: str) -> None:
        model, name = version.split("/")
        world.publish(model, name, state)
        assert daemon.wait_for_verdict(f"local/{version}") == verdict, daemon.log
        info = f'layerwatch_model_info{{model="{model}", version="{name}"}}'
        until(lambda: server.query(info), f"a scrape of {version}")
        pause()

    assert daemon.wait_for_verdict("local/fraud/v1") == "pass"
    assert daemon.wait_for_verdict("local/mixture/v1") == "pass"
    until(lambda: server.query("layerwatch_model_verdict"), "the first scrape")
    pause()

    judged("fraud/v2", finetuned(network()), "pass")
    judged("fraud/v3", with_wrong_scale(finetuned(network())), "fail")
    until(lambda: webhook.received, "the alert about fraud")
    webhook.answer = Answer(status=500)
    one_expert = "layers.10.mlp.experts.3.w1.weight"
    judged("mixture/v2", with_wrong_scale(finetuned(mixture()), one_expert), "fail")
    failures = "layerwatch_notification_failures_total"
    until(lambda: sum(daemon.samples(failures).values()), "the failed notification")

    cut = world.folder("torn", "v1")
    cut.mkdir(parents=True)
    (cut / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    assert daemon.wait_for_verdict("local/torn/v1") == "undecided"
    world.publish("fraud", "v1", network(9))
    until(lambda: daemon.sample("layerwatch_content_changes_total", registry="local"), "the change in place")
    requests.post(f"{daemon.address}/hooks/local", headers={"Authorization": "Bearer wrong"}, timeout=10)
    pause()

    # A scan that hangs, and versions that wait behind it.
    stuck = daemon.workers()
    for worker in stuck:
        os.kill(worker, signal.SIGSTOP)
    for number in range(3):
        world.publish("waiting", f"v{number}", network(20 + number))
    until(lambda: server.query("layerwatch_scan_queue_oldest_timestamp_seconds"), "a version that waits")
    until(lambda: server.query('ALERTS{alertname="LayerwatchLayerBroken"}'), "the alert of Prometheus")
    until(lambda: server.query("increase(layerwatch_scan_failures_total[1m]) > 0"), "two scrapes since")
    return stuck

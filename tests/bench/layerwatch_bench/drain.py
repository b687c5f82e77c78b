"""Part i: how fast a real daemon tells 10,000 transitions to five receivers, one of which is slow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import Lineage, VersionKey
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from layerwatch_bench.plan import Plan
from layerwatch_bench.table import Row
from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.servers.misbehaving import MisbehavingProcess, Mode

TRANSITIONS = 10_000
TARGET = 200.0
"""Deliveries per second, those of the slow receiver not counted."""

SLOW_MILLISECONDS = 250
_FAST = ("one", "two", "three", "four")
_REGISTRY = "prod"
_PATIENCE = 900
_AT_A_TIME = 500


def drain(plan: Plan) -> Iterator[Row]:
    """The rows of this part: every transition is an alert of its own model, so nothing is grouped."""
    folder = plan.folder / "drain"
    folder.mkdir()
    transitions = TRANSITIONS // 20 if plan.quick else TRANSITIONS
    with MisbehavingProcess(folder / "fast.jsonl") as fast, MisbehavingProcess(folder / "slow.jsonl") as slow:
        slow.behave(Mode.SLOW, milliseconds=SLOW_MILLISECONDS)
        config = write_config(
            folder / "layerwatch.yaml",
            directory(_REGISTRY, folder / "not-mounted"),
            receivers=[
                *(_receiver(name, f"{fast.url}/{name}") for name in _FAST),
                _receiver("slow", f"{slow.url}/slow"),
            ],
        )
        _route_to_all(config)
        _break_models(folder / "layerwatch.db", transitions)
        began = time.time()
        with DaemonProcess(config) as daemon:
            daemon.wait_until_listening()
            times = _told(fast, transitions)
            told_slowly = len(slow.taken())
            status = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
            memory = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    seconds = {name: max(moments) - began for name, moments in times.items()}
    slowest = max(seconds.values())
    deliveries = len(_FAST) * transitions
    rate = deliveries / slowest
    yield Row(
        "i",
        f"{transitions:,} transitions to 5 receivers, one of them answering in {SLOW_MILLISECONDS} ms",
        f"{deliveries:,} deliveries to the four others in {slowest:.0f} s from the start of the daemon "
        f"({transitions / slowest:.0f} transitions/s); the slow one had {told_slowly:,} by then",
        f"{rate:.0f} deliveries/s",
        f"at least {TARGET:.0f}/s",
        plan.judged(rate >= TARGET),
        {"seconds": seconds, "told_slowly": told_slowly},
    )
    yield Row(
        "i",
        "memory of the daemon while it did",
        f"{5 * transitions:,} events queued",
        f"peak {memory / 1e6:.0f} MB",
        "",
        None,
        {"bytes": memory},
    )


def _receiver(name: str, url: str) -> dict[str, Any]:
    return {"name": name, "kind": "webhook", "url": url, "allow_private_cidrs": ["127.0.0.0/8"]}


def _route_to_all(config: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["alerts"]["route"] = {
        "receiver": "slow",
        "group_wait": "0s",
        "group_interval": "0s",
        "routes": [*({"receiver": name, "continue": True} for name in _FAST), {"receiver": "slow"}],
    }
    config.write_text(yaml.safe_dump(settings))


def _break_models(store: Path, models: int) -> None:
    """So many models, each with one version that is broken; nobody was told yet."""
    database = Database.open(f"sqlite:///{store}")
    policy = AlertPolicy(Severity.CRITICAL, "https://layerwatch.example.org")
    try:
        for start in range(0, models, _AT_A_TIME):
            with database.write() as connection:
                for number in range(start, min(start + _AT_A_TIME, models)):
                    now = datetime.now(UTC)
                    key = VersionKey(_REGISTRY, f"model-{number:05}", "v2")
                    record = versions.register(
                        connection, key, f"sha256:{number}", f"/{number}", "v2", Lineage(), now
                    )
                    versions.record_verdict(connection, record.id, Verdict.FAIL, "{}", _findings(), now)
                    follow_refs(connection, _REGISTRY, key.model, {"latest": "v2"}, policy, now)
    finally:
        database.close()


def _findings() -> Sequence[Finding]:
    return [
        Finding(
            "scaled",
            RuleGroup.WEIGHTS,
            Severity.CRITICAL,
            f"model.layers.{layer}.mlp.down_proj",
            "same direction as the baseline (cosine 0.990) but 125 times smaller: a wrong scale",
            {"norm_ratio": 0.008, "cosine": 0.99},
            2.0,
        )
        for layer in range(3)
    ]


def _told(fast: MisbehavingProcess, transitions: int) -> dict[str, list[float]]:
    """Receiver -> when it took each event, once all have all."""
    deadline = time.monotonic() + _PATIENCE
    while fast.seen().get(Mode.OK.value, 0) < transitions * len(_FAST):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {_PATIENCE} s the receivers were told {fast.seen()}")
        time.sleep(0.5)
    times: dict[str, list[float]] = {name: [] for name in _FAST}
    for one in fast.taken():
        times[one.path.strip("/")].append(one.at.timestamp())
    return times

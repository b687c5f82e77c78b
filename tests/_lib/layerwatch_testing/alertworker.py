"""The part of the daemon between a verdict and the people who are told, alone in a process that may be killed at any time.

What is real: store, life cycle, routing, notifier, outbox, delivery loops, receivers. What is not: verdicts come from a
script instead of scans, and the clock is one that the test sets forward and back and lets run faster.

``python -m layerwatch_testing.alertworker CONFIG CLOCK SCRIPT_LENGTH`` forks a worker for each line that it reads, and
prints its number: a fork starts within milliseconds, an interpreter would take a second for each of hundreds of lives.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from layerwatch.alerts.heartbeat import HeartbeatTelemetry
from layerwatch.alerts.telemetry import AlertTelemetry
from layerwatch.daemon.alerting import follow_refs
from layerwatch.daemon.alertloops import AlertLoops
from layerwatch.daemon.health import Heartbeats
from layerwatch.daemon.live import Live, load_live
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.store.onedaemon import only_daemon
from layerwatch.daemon.store.records import Lineage, VersionKey
from layerwatch.daemon.storelocation import store_url
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict

BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MODELS = 50
_CLOCK = struct.Struct("ddd")


class ScriptedClock:
    """A clock in a file: real time since ``began``, so many times as fast, and set forward or back."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_RDONLY)

    @staticmethod
    def write(file: Path, began: float, speed: float, offset: float) -> None:
        """Set the clock.

        Args:
            began: real time, in seconds, at which it shows `BEGAN`.
            offset: seconds that it is set forward (or back) by.
        """
        with file.open("r+b" if file.exists() else "w+b") as opened:
            opened.write(_CLOCK.pack(began, speed, offset))

    def __call__(self) -> datetime:
        """The time now."""
        began, speed, offset = _CLOCK.unpack(os.pread(self._file, _CLOCK.size, 0))
        return BEGAN + timedelta(seconds=(time.time() - began) * speed + offset)


@dataclass
class _Turns:
    """Stands for the schedule: the same cycles, as fast as the clock runs."""

    cycles: list[Callable[[], str]]

    def add(self, loop: str, cycle: Callable[[], str], *_: object, **__: object) -> None:
        self.cycles.append(cycle)


def judge_next(database: Database, live: Live, clock: Callable[[], datetime], length: int) -> bool:
    """Judge the next version of the script, in one transaction with what it changes of an alert; False at the end.

    Version i is that of model ``i % 50``; every other version of a model is broken, in one to three layers.
    """
    with database.write() as connection:
        done = versions.count_present(connection, "prod")
        if done >= length:
            return False
        model, step = f"model-{done % MODELS:02d}", done // MODELS
        broken = step % 2 == 0
        name, now = f"v{step}", clock()
        record = versions.register(
            connection,
            VersionKey("prod", model, name),
            f"sha256:{model}-{name}",
            f"/models/{model}/{name}",
            f"{step:04d}",
            Lineage(),
            now,
        )
        findings = [
            Finding(
                "scaled",
                RuleGroup.WEIGHTS,
                Severity.CRITICAL,
                f"layer{number}",
                "8 times smaller: a wrong scale",
                {"norm_ratio": 0.125},
                2.0,
            )
            for number in range(1 + done % 3 if broken else 0)
        ]
        verdict = Verdict.FAIL if broken else Verdict.PASS
        versions.record_verdict(connection, record.id, verdict, "{}", findings, now)
        follow_refs(connection, "prod", model, {"latest": name}, live.policy, now)
    return True


def work(config: Path, clock_file: Path, length: int) -> None:
    """Judge, decide and deliver until killed."""
    clock = ScriptedClock(clock_file)
    live = load_live(config)
    url = store_url(live.settings, config)
    with only_daemon(url):
        database = _opened(url)
        metrics = CollectorRegistry()
        loops = AlertLoops(
            database,
            lambda: live,
            DaemonTelemetry(metrics),
            AlertTelemetry(metrics),
            HeartbeatTelemetry(metrics),
            Heartbeats(clock),
            clock,
        )
        turns = _Turns([])
        loops.start(turns)  # type: ignore[arg-type]
        threading.Thread(target=_judge, args=(database, live, clock, length, loops), daemon=True).start()
        while True:
            for cycle in turns.cycles:
                try:
                    cycle()
                except StoreError:
                    time.sleep(0.05)
            time.sleep(0.02)


def _opened(url: str) -> Database:
    while True:
        try:
            return Database.open(url)
        except StoreError:
            time.sleep(0.1)


def _judge(
    database: Database, live: Live, clock: Callable[[], datetime], length: int, loops: AlertLoops
) -> None:
    goes_on = True
    while goes_on:
        try:
            goes_on = judge_next(database, live, clock, length)
            loops.notifier.wake()
        except StoreError:
            pass
        time.sleep(0.02)


def main() -> None:
    """Fork a worker for each line of the input."""
    # Those that were killed are reaped by the system.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    config, clock_file, length = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                work(config, clock_file, length)
            finally:
                os._exit(1)
        print(json.dumps(child), flush=True)


if __name__ == "__main__":
    main()

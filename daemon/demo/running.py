"""The demonstration from the first training step to the last alert."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from layerwatch.daemon.demo.daemonprocess import (
    ALPHA,
    ALPHA_SIGMA,
    LOG_NORM,
    DaemonProcess,
    Gauges,
    free_port,
    new_secret,
    write_config,
)
from layerwatch.daemon.demo.errors import DemoError, DemoReason
from layerwatch.daemon.demo.listener import ReceivedEvent, WebhookListener
from layerwatch.daemon.demo.narration import Agreement, Judged, Row, row, rows
from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.daemon.demo.publishing import publish
from layerwatch.metrics.findings import Verdict

BETWEEN_VERSIONS = 3.0
"""Seconds from one publication to the next, so that a person can follow."""

_JUDGE_LIMIT = 90.0
_ALERT_LIMIT = 30.0


class Demonstration:
    """Runs the story in a folder.

    Args:
        folder: holds registry, store, configuration and log afterwards; must be new or empty.
        say: told each line as it happens.
        between: seconds between two publications.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], between: float = BETWEEN_VERSIONS) -> None:
        self._folder = folder.absolute()
        self._say = say
        self._between = between
        self._told = 0
        self.prepared: list[PreparedVersion] = []

    def start(self) -> None:
        """Train, compress, and start the daemon on a still empty registry."""
        from layerwatch.daemon.demo.preparing import prepare

        if self._folder.exists() and any(self._folder.iterdir()):
            raise DemoError(DemoReason.CANNOT_WRITE, f"{self._folder} is not empty: name another --directory")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._say("training and compressing two small networks on scikit-learn's digits ...")
        self.prepared = prepare(self._folder / "staging")
        self.registry = self._folder / "models"
        self.registry.mkdir()
        secret = new_secret()
        self.listener = WebhookListener(secret)
        port = free_port()
        self.config = write_config(self._folder, self.registry, self.listener.url, secret, port)
        self.daemon = DaemonProcess(self.config, port)
        self.daemon.wait_until_ready()
        self._say(f"the daemon watches {self.registry} and answers on {self.daemon.base}\n")

    def tell(self) -> None:
        """Publish version after version, and report what the daemon says of each."""
        versions = list(dict.fromkeys(one.version for one in self.prepared))
        before: dict[str, Gauges] = {}
        for version in versions:
            began = time.monotonic()
            published = [one for one in self.prepared if one.version == version]
            for one in published:
                publish(one, self.registry)
            for one in published:
                judged = self._wait_for_verdict(one)
                self._say(_line(row(one, judged)))
                gauges = self._gauges(one)
                self._say(f"    alpha:    {_moves(before.get(one.model), gauges, ALPHA, ALPHA_SIGMA)}")
                if judged.verdict is Verdict.FAIL:
                    self._say(f"    log norm: {_moves(before.get(one.model), gauges, LOG_NORM)}")
                before[one.model] = gauges
                if judged.verdict is Verdict.FAIL:
                    self._wait_for_event(one, "firing")
            self._tell_events()
            time.sleep(max(0.0, self._between - (time.monotonic() - began)))
        for one in self.prepared:
            if one.step.expected is Verdict.FAIL:
                self._wait_for_event(one, "resolved")
        self._tell_events()
        # Everything in it was published.
        shutil.rmtree(self._folder / "staging", ignore_errors=True)

    def outcome(self) -> list[Row]:
        """Every version with its verdict beside the truth."""
        return rows(self.prepared, self.daemon.judged)

    def succeeded(self) -> bool:
        """True when every verdict agrees with the test accuracy."""
        return all(one.agreement is Agreement.AGREES for one in self.outcome())

    def stop(self) -> None:
        """End the daemon and the webhook."""
        if hasattr(self, "daemon"):
            self.daemon.stop()
        if hasattr(self, "listener"):
            self.listener.close()

    def _wait_for_verdict(self, one: PreparedVersion) -> Judged:
        deadline = time.monotonic() + _JUDGE_LIMIT
        while time.monotonic() < deadline:
            judged = self.daemon.judged(one.model, one.version)
            if judged is not None:
                return judged
            time.sleep(0.2)
        raise DemoError(
            DemoReason.DAEMON,
            f"{one.model} {one.version} was not judged within {_JUDGE_LIMIT:.0f} s; see {self.daemon.log}",
        )

    def _gauges(self, one: PreparedVersion) -> Gauges:
        """The model's gauges once they show this version: they are published right after the verdict."""
        deadline = time.monotonic() + _ALERT_LIMIT
        while time.monotonic() < deadline:
            gauges = self.daemon.gauges(one.model)
            if gauges.version == one.version:
                return gauges
            time.sleep(0.1)
        raise DemoError(DemoReason.DAEMON, f"/metrics never showed {one.model} {one.version}")

    def _wait_for_event(self, one: PreparedVersion, phase: str) -> None:
        deadline = time.monotonic() + _ALERT_LIMIT
        while time.monotonic() < deadline:
            if any(event.model == one.model and event.phase == phase for event in self.listener.events()):
                return
            time.sleep(0.2)
        raise DemoError(
            DemoReason.DAEMON, f"no {phase} alert about {one.model} arrived within {_ALERT_LIMIT:.0f} s"
        )

    def _tell_events(self) -> None:
        events = self.listener.events()
        for event in events[self._told :]:
            self._say(event_line(event))
        self._told = len(events)


def event_line(event: ReceivedEvent) -> str:
    """A received event in one line."""
    return f"    webhook received {event.phase.upper()} {event.event_id}: {event.summary}"


def _line(one: Row) -> str:
    return (
        f"{one.model:<11} {one.version}  {one.what:<47} test accuracy {one.accuracy:<20} "
        f"verdict {one.verdict:<14} {one.agreement}"
    )


def _moves(before: Gauges | None, now: Gauges, gauge: str, error: str | None = None) -> str:
    """``fc1 2.31 -> 2.40 ±0.15``, layer by layer, from the version published before; without the gauge left out."""
    parts = []
    for layer, value in now.values.get(gauge, {}).items():
        old = before.values.get(gauge, {}).get(layer) if before else None
        text = f"{layer} {value:.2f}" if old is None else f"{layer} {old:.2f} -> {value:.2f}"
        sigma = now.values.get(error, {}).get(layer) if error else None
        parts.append(text if sigma is None else f"{text} ±{sigma:.2f}")
    return ", ".join(parts)

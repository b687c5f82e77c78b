"""A week in the life of the demonstration's two models, in half a minute: everything is real but the clock.

Versions are published into a directory as a user would. Watcher, scans, pipeline, store, life cycle, routing, notifier
and dispatcher are the daemon's own, built from a configuration file; only its loops are turned by `Week`, at the times
at which they would turn in that week.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from layerwatch.alerts.dispatcher import Dispatcher
from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.message import as_text, message_of
from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.telemetry import AlertTelemetry
from layerwatch.config.loading import load_settings
from layerwatch.config.matchers import parse_matcher
from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.daemon.demo.publishing import publish
from layerwatch.daemon.demo.version_files import SAFETENSORS_FILE, read_weights
from layerwatch.daemon.live import build_live
from layerwatch.daemon.notifying import Notifier
from layerwatch.daemon.pipeline import Pipeline, PipelineSettings
from layerwatch.daemon.scan.executor import Executor
from layerwatch.daemon.store import alerts, outbox
from layerwatch.daemon.store.auditlog import Actor, Authentication
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.storelocation import downloads_of
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.daemon.watcher import Watcher
from layerwatch.daemon.web.decisions import Decisions

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
REGISTRY = "models"
EXTERNAL_URL = "https://layerwatch.example"

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun", "next mon")
_LOOP = timedelta(seconds=10)
_POLL = timedelta(seconds=30)
_BUSY = timedelta(minutes=6)
"""So long after something happened the loops are turned about as often as in the daemon ..."""

_QUIET = timedelta(minutes=5)
_QUIET_POLL = timedelta(minutes=30)
"""... and then only so often, and when time alone makes something due: nothing else can happen."""

_TRAINED = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)|(?<= fingerprint )\w{12}|(?<= became )\w{12}|(?<=&fingerprint=)\w{12}"
    r"|(?<![\w.-])\d+(?:\.\d+)?(?:e[+-]\d+)?"
)


def at(when: str) -> datetime:
    """A time of that week: ``fri 16:55``, ``sat 04:56:10``; the Monday after it is ``next mon``."""
    day, _, clock = when.rpartition(" ")
    hour, minute, second = (*map(int, clock.split(":")), 0)[:3]
    return MONDAY + timedelta(days=_DAYS.index(day), hours=hour, minutes=minute, seconds=second)


def when(moment: datetime) -> str:
    """The same, written."""
    since = moment - MONDAY
    clock = f"{moment:%H:%M:%S}"
    return f"{_DAYS[since.days]} {clock.removesuffix(':00') if clock.count(':') == 2 else clock}"


def digest_of(prepared: PreparedVersion) -> str:
    """Of the tensors of a version: equal where training gave the same weights."""
    digest = hashlib.sha256()
    for name, values in sorted(read_weights(prepared.folder).items()):
        digest.update(f"{name} {values.shape} {values.dtype}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def without_trained_numbers(text: str) -> str:
    """A message without the numbers that another machine may compute otherwise: its times, names and words stay."""
    return _TRAINED.sub(lambda found: found[1] or "#", text)


@dataclass(frozen=True, slots=True)
class Received:
    """A message as its receiver took it."""

    at: datetime
    receiver: str
    event_id: str
    data: Mapping[str, Any]
    text: str

    @property
    def title(self) -> str:
        """When, for whom, of what model and why, such as ``fri-16.56-oncall-digits-mlp-first``."""
        told = (when(self.at), self.receiver, self.data["alerts"][0]["model"], self.data["reason"])
        return "-".join(told).replace(" ", "-").replace(":", ".")

    @property
    def line(self) -> str:
        """When, for whom, why, how it stands, and the models, versions and refs that it tells of, worst first."""
        about: dict[str, list[str]] = {}
        for alert in self.data["alerts"]:
            told = f"{alert['model']} {alert['version']} {alert['group']} {alert['phase']}"
            about.setdefault(told, []).append(alert["ref"])
        listed = "; ".join(f"{told} ({', '.join(refs)})" for told, refs in about.items())
        return f"{when(self.at)} {self.receiver}: {self.data['reason']}, {self.data['phase']}: {listed}"


@dataclass
class Inbox:
    """A receiver that keeps what it takes, as text for people.

    Attributes:
        root: a folder of the machine at hand, which people read as ``/models``.
    """

    name: str
    kept: list[Received]
    root: Path
    send_resolved: bool = True
    max_age: timedelta = timedelta(days=1)

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        message = message_of(entry.payload)
        text = f"[{message.label}] {message.subject}\n\n{as_text(message)}\n"
        text = text.replace(str(self.root), "/models")
        data = json.loads(entry.payload)["data"]
        self.kept.append(Received(now, self.name, entry.event_id, data, text))


@dataclass
class Week:
    """The daemon's parts over a registry of prepared versions.

    Attributes:
        settings: ``alerts`` of the configuration; all else of it has its defaults.
        now: the time; moved by `until` alone.
        received: messages in the order of their delivery.
    """

    folder: Path
    prepared: Mapping[tuple[str, str], PreparedVersion]
    database: Database
    executor: Executor
    settings: Mapping[str, Any]
    now: datetime = MONDAY
    received: list[Received] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = self.folder / "models"
        self.root.mkdir()
        config = {
            "server": {"external_url": EXTERNAL_URL},
            "registries": [
                {
                    "name": REGISTRY,
                    "kind": "directory",
                    "path": str(self.root),
                    "refs": ["latest", "champion"],
                }
            ],
            "alerts": dict(self.settings),
        }
        path = self.folder / "layerwatch.yaml"
        path.write_text(yaml.safe_dump(config))
        loaded = load_settings(path, {})
        self.live = build_live(loaded, downloads_of(loaded, path))
        self._telemetry = DaemonTelemetry(CollectorRegistry())
        self._alert_telemetry = AlertTelemetry(CollectorRegistry())
        self._inboxes = {name: Inbox(name, self.received, self.root) for name in self.live.receivers}
        assert self.live.routing.root is not None
        self._repeat_interval = self.live.routing.root.repeat_interval
        self._looked_at = MONDAY - _POLL
        self._happened_at = MONDAY
        self._due: list[datetime] = []
        self._work = False
        self._queued: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """The daemon's parts anew, which know nothing but what is in the store."""
        settings = self.live.settings
        self.watcher = Watcher(
            self.live.registries[REGISTRY],
            self.database,
            policy=lambda: self.live.policy,
            telemetry=self._telemetry,
            clock=self._clock,
            alive=_nothing,
            found_work=self._found_work,
            changed=self._changed,
        )
        self.pipeline = Pipeline(
            self.database,
            self.live.registries.get,
            self.executor,
            lambda: PipelineSettings(settings.scan, settings.rules, settings.baselines),
            self._judged,
            self._telemetry,
            self._clock,
            stopping=lambda: False,
        )
        self.notifier = Notifier(
            self.database,
            routing=lambda: self.live.routing,
            policy=lambda: self.live.policy,
            clock=self._clock,
            queued=lambda receivers: self._queued.update(receivers),
            gave_up=lambda receiver, events: None,
        )
        self.dispatcher = Dispatcher(
            outbox.DatabaseOutbox(self.database, "the daemon"),
            lambda: self._inboxes,
            self._alert_telemetry,
            self._clock,
        )
        self.decisions = Decisions(
            self.database, lambda: settings, lambda: self.notifier.muted, self.notifier.wake, self._clock
        )

    def until(self, moment: datetime) -> None:
        """Time passes; the loops turn."""
        self._turn()
        while self.now < moment:
            step = _LOOP if self._is_busy else _QUIET
            self.now = min(self.now + step, moment, *(due for due in self._due if due > self.now))
            self._turn()

    def publish(self, model: str, version: str) -> None:
        """As the demonstration does: written beside, then renamed."""
        self._happens()
        publish(self.prepared[model, version], self.root)

    def replace(self, model: str, version: str, by: str) -> None:
        """The files of another version under the name of this one."""
        self._happens()
        shutil.rmtree(self.root / model / version)
        beside = self.root / model / f".{version}.tmp"
        shutil.copytree(self.prepared[model, by].folder, beside)
        beside.rename(self.root / model / version)

    def publish_half(self, model: str, version: str) -> None:
        """The first half of the weight file, under the final name: what an upload leaves behind that broke off."""
        self._happens()
        folder = self.root / model / version
        shutil.copytree(self.prepared[model, version].folder, folder)
        weights = folder / SAFETENSORS_FILE
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])

    def remove(self, model: str, version: str) -> None:
        """Deleted for good."""
        self._happens()
        shutil.rmtree(self.root / model / version)

    def point(self, model: str, ref: str, version: str) -> None:
        """A symbolic link, swapped in one step."""
        self._happens()
        fresh = self.root / model / f".{ref}.tmp"
        fresh.symlink_to(version)
        fresh.replace(self.root / model / ref)

    def silence(self, matcher: str, hours: float, author: str, reason: str) -> None:
        """As through the API."""
        self._happens()
        lasting = timedelta(hours=hours)
        self.decisions.silence(_person(author), [parse_matcher(matcher)], reason, None, None, lasting)
        self._due.append(self.now + lasting)

    def acknowledge(self, model: str, by: str, reason: str) -> None:
        """Every alert of a model that fires, as through the API."""
        self._happens()
        with self.database.read() as connection:
            firing = alerts.list_states(connection, AlertPhase.FIRING, REGISTRY, model)
        for state in firing:
            self.decisions.acknowledge(_person(by), alert_id(state.identity, state.episode), reason)

    @property
    def _is_busy(self) -> bool:
        return self.now - self._happened_at < _BUSY

    def _turn(self) -> None:
        if self.now - self._looked_at >= (_POLL if self._is_busy else _QUIET_POLL):
            self._looked_at = self.now
            self.watcher.look()
        if self._work:
            self._work = False
            while self.pipeline.process_next() is not None:
                self._happens()
        self.notifier.turn()
        queued, self._queued = self._queued, set()
        for name in sorted(queued):
            self.dispatcher.deliver(name)
            self._due.append(self.now + self._repeat_interval)

    def _happens(self) -> None:
        self._happened_at = self.now

    def _found_work(self) -> None:
        self._work = True

    def _judged(self, connection: Connection, version: VersionRecord, moment: datetime) -> None:
        self.watcher.after_verdict(connection, version, moment)

    def _changed(self) -> None:
        self._happens()
        self.notifier.wake()

    def _clock(self) -> datetime:
        return self.now


def _person(name: str) -> Actor:
    return Actor(name, Authentication.TOKEN)


def _nothing() -> None:
    pass

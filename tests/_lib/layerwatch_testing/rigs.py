"""Watcher and pipeline over a real store, a real directory tree and real scans, driven step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from layerwatch.config.baselines import BaselinesSettings
from layerwatch.config.rules import RulesSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.alerting import AlertPolicy
from layerwatch.daemon.pipeline import Pipeline, PipelineSettings
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundVersion,
    Listing,
    Progress,
    Registry,
    VerdictWriter,
    no_progress,
)
from layerwatch.daemon.scan.executor import Executor, ScanListener, ScanOutcome
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionKey, VersionRecord
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.daemon.watcher import Watcher
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.manifest import Manifest
from layerwatch.metrics.measure import MeasuredLayer
from layerwatch.metrics.report import Report
from layerwatch_testing.worlds.base import RegistryWorld
from tellings import ONCALL, event_ids, tell

POLICY = AlertPolicy(fire_on=Severity.CRITICAL, external_url=None)


@dataclass
class Clock:
    """A clock that stands still until it is moved; it runs ahead of the change times of files."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC) + timedelta(hours=1))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class CountingRegistry:
    """A registry that remembers which versions were hashed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.hashed: list[str] = []

    @property
    def name(self) -> str:
        return self._registry.name

    def recall(self, published: Mapping[str, str]) -> None:
        self._registry.recall(published)

    @property
    def verdict_writer(self) -> VerdictWriter | None:
        return self._registry.verdict_writer

    def listing(self, now: datetime, everything: bool = True) -> Listing:
        return self._registry.listing(now, everything)

    def manifest(self, found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        self.hashed.append(f"{found.model}/{found.version}")
        return self._registry.manifest(found, anew, progress)

    def lineage(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        return self._registry.lineage(found)

    def token(self, location: str) -> str | None:
        return self._registry.token(location)

    def open(self, location: str, progress: Progress = no_progress) -> AbstractContextManager[Path]:
        return self._registry.open(location, progress)


class CountingExecutor:
    """An executor that remembers what it scanned and which layers it measured.

    Attributes:
        scanned: paths, in order; compared: those of the baselines given with them, or None.
        measured: layers of which a new measurement was taken, by scan.
        before, during: called before each scan, and at each layer of it.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.scanned: list[str] = []
        self.compared: list[str | None] = []
        self.measured: list[list[str]] = []
        self.before: Callable[[], None] = lambda: None
        self.during: Callable[[], None] = lambda: None

    def scan(self, request: ScanRequest, listener: ScanListener) -> ScanOutcome:
        self.scanned.append(request.path)
        self.compared.append(request.baseline_path)
        self.measured.append([])
        self.before()

        def known(digest: str) -> bool:
            self.during()
            return listener.known(digest)

        def on_layer(layer: MeasuredLayer) -> None:
            if layer.measurement is not None:
                self.measured[-1].append(layer.layer.name)
            listener.on_layer(layer)

        return self._executor.scan(request, ScanListener(known, on_layer, listener.on_plan))

    def rest(self) -> None:
        self._executor.rest()

    def close(self) -> None:
        self._executor.close()


class Rig:
    """The working parts of a daemon without its threads: looks and scans happen when a test says so.

    Attributes:
        work, changes: how often the watcher said that there is work, and that something exported changed.
        stop: True once the daemon is to stop.
        beats: how often the pipeline said that it is alive.
    """

    def __init__(self, database: Database, world: RegistryWorld, executor: Executor) -> None:
        self.database = database
        self.world = world
        self.clock = Clock()
        self.metrics = CollectorRegistry()
        self.telemetry = DaemonTelemetry(self.metrics)
        self.telemetry.init_for(["reg"], ["scan"])
        self.registry = CountingRegistry(world.registry)
        self.executor = CountingExecutor(executor)
        self.registries: dict[str, Registry] = {"reg": self.registry}
        self.scan = ScanSettings()
        self.rules = RulesSettings()
        self.baselines = BaselinesSettings()
        self.policy = POLICY
        self.routing = ONCALL
        self.work = 0
        self.changes = 0
        self.stop = False
        self.beats = 0
        self.watcher = self.new_watcher()
        self.pipeline = Pipeline(
            database,
            self.registries.get,
            self.executor,
            lambda: PipelineSettings(self.scan, self.rules, self.baselines),
            self._judged,
            self.telemetry,
            self.clock,
            lambda: self.stop,
            self._alive,
        )

    def new_watcher(self) -> Watcher:
        """A watcher that knows nothing of the looks of others, as after a restart."""
        return Watcher(
            self.registry,
            self.database,
            policy=lambda: self.policy,
            telemetry=self.telemetry,
            clock=self.clock,
            alive=lambda: None,
            found_work=self._found_work,
            changed=self._changed,
        )

    def look(self, rehash: bool = False) -> str:
        """One look at the registry."""
        return self.watcher.look(rehash)

    def drain(self) -> list[str]:
        """Process the queue until nothing can be claimed now; the sentences."""
        sentences = []
        while (sentence := self.pipeline.process_next()) is not None:
            sentences.append(sentence)
        return sentences

    def cycle(self, seconds: float = 10) -> list[str]:
        """Time passes, a look, and everything that it found is judged."""
        self.clock.advance(seconds)
        self.look()
        return self.drain()

    def version(self, model: str, version: str) -> VersionRecord:
        """The current row of a version, with its report."""
        with self.database.read() as connection:
            found = versions.current(connection, VersionKey("reg", model, version))
        assert found is not None, f"{model}/{version} is not in the store"
        return found

    def report(self, model: str, version: str) -> Report:
        """The last report of a version."""
        record = self.version(model, version)
        assert record.report is not None, f"{model}/{version} has no report"
        return Report.model_validate_json(record.report)

    def told(self) -> list[str]:
        """Ids of all events so far, after queueing what is due for a receiver that is told of everything at once."""
        with self.database.write() as connection:
            tell(connection, self.clock(), self.routing)
            return event_ids(connection)

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one of the daemon's own metrics."""
        return self.metrics.get_sample_value(name, labels)

    def _judged(self, connection: Connection, version: VersionRecord, at: datetime) -> None:
        self.watcher.after_verdict(connection, version, at)

    def _alive(self) -> None:
        self.beats += 1

    def _found_work(self) -> None:
        self.work += 1

    def _changed(self) -> None:
        self.changes += 1

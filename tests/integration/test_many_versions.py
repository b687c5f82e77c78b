"""The watcher's bookkeeping at a hundred thousand versions: what it costs in memory, and in work at each look."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from layerwatch.daemon.manners import Manners
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundRef,
    FoundVersion,
    Listing,
    Progress,
    RegistryReason,
    RegistryUnavailable,
    VerdictWriter,
    no_progress,
)
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import Lineage, VersionKey
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.daemon.watcher import Watcher
from layerwatch.metrics.manifest import Manifest, ManifestEntry
from layerwatch_testing.processes import MIB
from layerwatch_testing.rigs import POLICY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_MODELS = 1000
_LIMIT = 200 * MIB


class CountedRegistry:
    """A registry of as many versions as it is told to have, and no bytes behind them.

    It lists changes alone when it may, as the remote kinds do.

    Attributes:
        per_model: versions of each model.
        hashed: how many manifests were asked for.
        recalled: how many versions an earlier process had found.
    """

    name = "reg"
    verdict_writer: VerdictWriter | None = None

    def __init__(self, per_model: int) -> None:
        self.per_model = per_model
        self.hashed = 0
        self.recalled = 0
        self._listed = 0

    def recall(self, published: Mapping[str, str]) -> None:
        self.recalled += len(published)

    def listing(self, now: datetime, everything: bool = True) -> Listing:
        first = 0 if everything else self._listed
        self._listed = self.per_model
        return Listing(
            tuple(
                _found(model, number) for model in range(_MODELS) for number in range(first, self.per_model)
            ),
            tuple(FoundRef(_name(model), "latest", f"v{self.per_model - 1}") for model in range(_MODELS)),
            complete=everything,
        )

    def manifest(self, found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        self.hashed += 1
        digest = hashlib.sha256(found.location.encode()).hexdigest()
        return Manifest((ManifestEntry("model.safetensors", 1, digest),))

    def lineage(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        return ()

    def token(self, location: str) -> str | None:
        return f"token of {location}"

    def open(self, location: str, progress: Progress = no_progress) -> AbstractContextManager[Path]:
        raise RegistryUnavailable(RegistryReason.VERSION_GONE, "there are no bytes here")


def _name(model: int) -> str:
    return f"team-{model % 20}/model-{model:04d}"


def _found(model: int, number: int) -> FoundVersion:
    location = f"{_name(model)}/v{number}"
    return FoundVersion(_name(model), f"v{number}", location, f"v{number}", f"token of {location}")


class Memory:
    """How much more memory this process has than at the start, at most; asked again and again by a thread."""

    def __init__(self) -> None:
        self._start = _resident()
        self._most = self._start
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def growth(self) -> int:
        """The largest growth so far, in bytes."""
        self._most = max(self._most, _resident())
        return self._most - self._start

    def close(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._most = max(self._most, _resident())


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this process has no VmRSS")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path / 'layerwatch.db'}")
    yield opened
    opened.close()


@pytest.fixture
def memory() -> Iterator[Memory]:
    watched = Memory()
    yield watched
    watched.close()


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """Every statement that any database of this process executes meanwhile."""
    executed: list[str] = []

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        executed.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def watcher_of(registry: CountedRegistry, database: Database, work: list[None]) -> Watcher:
    now = datetime.now(UTC)
    telemetry = DaemonTelemetry(CollectorRegistry())
    telemetry.init_for(["reg"], ["scan"])
    clock = iter(now + timedelta(seconds=number) for number in range(10**9))
    return Watcher(
        registry,
        database,
        policy=lambda: POLICY,
        telemetry=telemetry,
        clock=lambda: next(clock),
        alive=lambda: None,
        found_work=lambda: work.append(None),
        changed=lambda: None,
        manners=Manners(rehash=timedelta(days=30)),
    )


def fill(registry: CountedRegistry, database: Database, per_model: int) -> None:
    """Register more versions of each model as a watcher would, in fewer transactions: each costs a disk its time."""
    now = datetime.now(UTC)
    for model in range(_MODELS):
        with database.write() as connection:
            for number in range(registry.per_model, per_model):
                found = _found(model, number)
                key = VersionKey("reg", found.model, found.version)
                fingerprint = registry.manifest(found).fingerprint
                versions.register(
                    connection,
                    key,
                    fingerprint,
                    found.location,
                    found.order_key,
                    Lineage(),
                    now,
                    token=found.token,
                )
    registry.per_model = per_model


def test_a_hundred_thousand_versions_are_kept_in_mind_with_little_memory(
    database: Database, memory: Memory
) -> None:
    registry = CountedRegistry(5)
    work: list[None] = []
    watcher_of(registry, database, work).look()
    assert registry.hashed == len(work) == 5_000
    fill(registry, database, 100)

    watcher = watcher_of(registry, database, work)
    watcher.look()
    assert registry.recalled == 100_000
    with database.read() as connection:
        assert versions.count_present(connection, "reg") == 100_000
    registry.per_model += 1
    watcher.look()
    watcher.look()
    assert registry.hashed == 101_000
    assert len(work) == 6_000, "something was queued that was known"
    watcher.look(rehash=True)
    hashed_again = registry.hashed - 101_000
    assert 0 < hashed_again < 101_000 / 50, "a reconcile hashes what is due, one part in 120"
    assert len(work) == 6_000
    assert memory.growth < _LIMIT, f"they took {memory.growth / MIB:.0f} MiB"


def test_an_idle_look_costs_the_same_however_many_versions_there_are(database: Database) -> None:
    registry = CountedRegistry(2)
    watcher = watcher_of(registry, database, [])
    watcher.look()
    with counted_statements() as few:
        watcher.look()
    registry.per_model = 12
    watcher.look()
    with counted_statements() as many:
        watcher.look()
    assert few, "nothing was counted"
    assert many == few

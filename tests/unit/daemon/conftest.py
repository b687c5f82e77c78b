"""A real SQLite file, a real directory tree and real scans for each test of the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.store.database import Database
from layerwatch_testing.emptystore import empty_store
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A new, empty database."""
    opened = Database.open(empty_store(tmp_path / "layerwatch.db"))
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def local_executor() -> Iterator[LocalExecutor]:
    """One real scan process for all tests of this folder: it takes seconds to start."""
    executor = LocalExecutor(ScanSettings(niceness=0, threads=1))
    yield executor
    executor.close()


@pytest.fixture
def world(tmp_path: Path) -> DirectoryWorld:
    """An empty directory tree; a marker file says that a version is complete."""
    return DirectoryWorld(tmp_path)


@pytest.fixture
def rig(database: Database, world: DirectoryWorld, local_executor: LocalExecutor) -> Rig:
    """Watcher and pipeline over that tree and an empty store."""
    return Rig(database, world, local_executor)

"""A server may commit and be gone before it says so: whatever was in its answer, nothing stays half done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection

from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import VersionState
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld


class SilentServer:
    """A store that commits; the answer to one commit is lost.

    Args:
        lost: which write transaction, 0 for the next one.
    """

    def __init__(self, database: Database, lost: int) -> None:
        self._database = database
        self._left = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._database.write() as connection:
            yield connection
        self._left -= 1
        if self._left == -1:
            raise StoreError(StoreReason.UNREACHABLE, "the connection was lost")


def test_a_version_is_judged_once_whichever_answer_is_lost(
    rig: Rig, world: DirectoryWorld, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lost in range(8):
        world.publish(f"m{lost}", "v1")
        rig.look()
        server = SilentServer(database, lost)
        monkeypatch.setattr(rig.pipeline, "_database", server)
        monkeypatch.setattr(rig.pipeline._measuring, "_database", server)
        happened = 0
        while rig.version(f"m{lost}", "v1").verdict is None:
            try:
                rig.pipeline.process_next()
            except StoreError:
                happened += 1
            rig.clock.advance(30)
        assert happened <= 1
        record = rig.version(f"m{lost}", "v1")
        assert (record.state, record.verdict) == (VersionState.JUDGED, Verdict.PASS)
        assert record.attempts <= 2
        if lost == 0:
            # It was not begun: the answer to the claim is what was lost.
            assert (happened, record.attempts) == (1, 1)
        # What was put off meanwhile finds the verdict there and leaves it.
        monkeypatch.undo()
        rig.drain()
    with database.read() as connection:
        assert versions.counts_by_state(connection)[VersionState.JUDGED] == 8

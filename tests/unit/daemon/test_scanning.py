"""The scan loop: a thread that outlives every error and ends when asked."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.scanning import ScanLoop
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import VersionState
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.networks import network
from layerwatch_testing.rigs import Rig
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld


class Watch:
    """What a loop told: how often it was alive, failed, and changed something."""

    def __init__(self) -> None:
        self.turns = 0
        self.failures = 0
        self.changes = 0
        self.trouble: Exception | None = None

    def alive(self) -> None:
        self.turns += 1

    def failed(self) -> None:
        self.failures += 1

    def changed(self) -> None:
        self.changes += 1
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble


StartLoop = Callable[[Rig], tuple[ScanLoop, Watch]]


@pytest.fixture
def start() -> Iterator[StartLoop]:
    """Starts a loop over a rig; all are ended with the test."""
    loops = []

    def begin(rig: Rig) -> tuple[ScanLoop, Watch]:
        watch = Watch()
        loop = ScanLoop(
            "scan:0",
            rig.pipeline,
            rig.executor,
            watch.alive,
            watch.failed,
            watch.changed,
            rest_after=timedelta(seconds=1),
        )
        loops.append(loop)
        loop.start()
        return loop, watch

    yield begin
    for loop in loops:
        assert loop.stop(timedelta(seconds=30))


@pytest.fixture
def own_rig(database: Database, world: DirectoryWorld) -> Rig:
    """A rig with a scan process of its own, which its loop may end."""
    return Rig(database, world, LocalExecutor(ScanSettings(niceness=0, threads=1)))


def judged(rig: Rig, model: str, version: str = "v1") -> Callable[[], bool]:
    return lambda: rig.version(model, version).state is VersionState.JUDGED


def test_the_loop_judges_what_is_queued_and_rests_when_idle(
    own_rig: Rig, world: DirectoryWorld, start: StartLoop
) -> None:
    world.publish("m", "v1")
    own_rig.look()
    _, watch = start(own_rig)
    until(judged(own_rig, "m"), "the verdict")
    until(lambda: watch.changes == 1, "news of the verdict")
    executor = own_rig.executor._executor
    assert isinstance(executor, LocalExecutor)
    until(lambda: executor._worker is None, "the end of the idle scan process")


def test_a_wake_shortens_the_wait(own_rig: Rig, world: DirectoryWorld, start: StartLoop) -> None:
    loop, watch = start(own_rig)
    until(lambda: watch.turns > 0, "the first turn")
    world.publish("m", "v1")
    own_rig.look()
    loop.wake()
    until(judged(own_rig, "m"), "the verdict")


@pytest.mark.parametrize("trouble", [ValueError("no sense"), StoreError(StoreReason.BUSY, "busy")])
def test_trouble_with_what_follows_a_verdict_does_not_end_the_loop(
    own_rig: Rig, world: DirectoryWorld, start: StartLoop, trouble: Exception
) -> None:
    loop, watch = start(own_rig)
    watch.trouble = trouble
    world.publish("a", "v1", network(1))
    own_rig.look()
    loop.wake()
    until(lambda: watch.failures == 1, "the failure")
    world.publish("b", "v1", network(2))
    own_rig.look()
    loop.wake()
    until(judged(own_rig, "b"), "the verdict after the failure")


def test_stopping_in_the_middle_of_a_scan_ends_the_loop_and_the_version_waits_again(
    own_rig: Rig, world: DirectoryWorld, start: StartLoop
) -> None:
    world.publish("m", "v1")
    own_rig.look()
    scanning, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        own_rig.executor.during = lambda: None
        scanning.set()
        go_on.wait(30)

    own_rig.executor.during = hold
    loop, watch = start(own_rig)
    assert scanning.wait(30)
    own_rig.stop = True
    loop.ask_to_stop()
    assert loop.stopping
    go_on.set()
    assert loop.stop(timedelta(seconds=30))
    record = own_rig.version("m", "v1")
    assert (record.state, record.not_before, record.verdict) == (VersionState.PENDING, None, None)
    assert watch.changes == 0


def test_after_a_restart_the_interrupted_version_is_judged(
    own_rig: Rig, world: DirectoryWorld, rig: Rig, start: StartLoop
) -> None:
    world.publish("m", "v1")
    own_rig.look()
    own_rig.stop = True
    loop, _ = start(own_rig)
    assert loop.stop(timedelta(seconds=30))
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.PASS


def test_a_machine_without_room_for_a_scan_process_is_told_in_one_line_and_the_loop_goes_on(
    own_rig: Rig,
    world: DirectoryWorld,
    start: StartLoop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    world.publish("m", "v1")
    own_rig.look()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        loop, watch = start(own_rig)
        until(lambda: watch.failures, "the failure")
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert record.getMessage().startswith("the scan process cannot be started: Resource temporarily")
    assert record.exc_info is None
    own_rig.clock.advance(5)
    loop.wake()
    until(judged(own_rig, "m"), "the verdict")

"""Versions are compared with their baseline element by element while its files are there, and by sketches after."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import sqlalchemy as sa

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.measuring import Interrupted
from layerwatch.daemon.registries.base import Progress, no_progress
from layerwatch.daemon.scan.executor import LocalExecutor, ScanListener, ScanOutcome
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.daemon.store import baselines, comparisons, tables, versions
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.networks import finetuned, network, with_one_layer_trained, with_wrong_scale
from layerwatch_testing.rigs import CountingRegistry, Rig
from layerwatch_testing.worlds.directory import DirectoryWorld


def methods(rig: Rig, version: str) -> dict[str, str | None]:
    """Layer -> how its change was obtained."""
    return {
        layer.name: layer.change.method if layer.change is not None else None
        for layer in rig.report("m", version).layers
    }


def all_by(method: str) -> dict[str, str]:
    return dict.fromkeys(("fc1", "fc2", "fc3"), method)


def kept(rig: Rig) -> int:
    with rig.database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(tables.comparisons)).scalar_one()


class BreaksWithTwoFiles:
    """An executor whose scans of two files end for a reason; those of one file succeed."""

    def __init__(self, executor: LocalExecutor, reason: UnreadableReason) -> None:
        self._executor = executor
        self._reason = reason

    def scan(self, request: ScanRequest, listener: ScanListener) -> ScanOutcome:
        if request.baseline_path is not None:
            raise UnreadableError(self._reason, request.path, "ended")
        return self._executor.scan(request, listener)

    def rest(self) -> None: ...

    def close(self) -> None: ...


class UnreachableRegistry(CountingRegistry):
    """A registry that lists everything and can open nothing."""

    def open(self, location: str, progress: Progress = no_progress) -> AbstractContextManager[Path]:
        raise PermissionError(13, "Permission denied")


# Exact


def test_while_both_files_are_there_the_comparison_is_exact(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", with_wrong_scale(network()))
    rig.cycle()
    layers = {layer.name: layer for layer in rig.report("m", "v2").layers}
    assert {name: layer.change.method for name, layer in layers.items() if layer.change} == {
        "fc1": "identical",
        "fc2": "exact",
        "fc3": "identical",
    }
    scaled = layers["fc2"].change
    assert scaled is not None
    # Eight times the weights are seven times the norm away (``networks.with_wrong_scale``).
    assert scaled.relative_change == pytest.approx(7.0)
    assert scaled.relative_change_error == 0.0
    assert not any("sketches" in spot for spot in rig.report("m", "v2").blind_spots)


def test_one_pass_over_both_files_measures_and_compares(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    rig.cycle()
    assert [path.rpartition("/")[2] for path in rig.executor.scanned] == ["v1", "v2"]
    assert [path and path.rpartition("/")[2] for path in rig.executor.compared] == [None, "v1"]


def test_bytes_that_were_measured_before_are_still_compared_exactly_with_a_new_baseline(
    rig: Rig, world: DirectoryWorld
) -> None:
    state = finetuned(network())
    world.publish("other", "v1", state)
    world.publish("m", "v1", network())
    rig.cycle()
    world.publish("m", "v2", state)
    rig.cycle()
    assert methods(rig, "v2") == all_by("exact")
    assert rig.executor.measured[-1] == []


def test_a_version_with_the_same_bytes_as_its_baseline_is_not_opened(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2")
    rig.cycle()
    assert methods(rig, "v2") == all_by("identical")
    assert len(rig.executor.scanned) == 1


def test_judging_again_takes_the_comparison_from_the_store(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    rig.cycle()
    before = rig.report("m", "v2")
    world.remove("m", "v1")
    with rig.database.write() as connection:
        versions.reopen(connection, rig.version("m", "v2").id)
    rig.drain()
    after = rig.report("m", "v2")
    assert len(rig.executor.scanned) == 2
    assert methods(rig, "v2") == all_by("exact")
    assert (after.layers, after.findings, after.verdict) == (before.layers, before.findings, before.verdict)


def test_a_comparison_that_was_lost_is_made_again_while_the_files_are_there(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", with_one_layer_trained(network(), "fc3.weight"))
    rig.cycle()
    before = rig.report("m", "v2").layers
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.comparisons))
        versions.reopen(connection, rig.version("m", "v2").id)
    rig.drain()
    assert rig.report("m", "v2").layers == before
    assert rig.executor.measured[-1] == []
    assert kept(rig) == 1


def test_a_pin_during_the_scan_is_what_the_version_is_judged_against(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    rig.cycle()
    world.publish("m", "v3", finetuned(network(), seed=3))
    rig.look()

    def pin() -> None:
        rig.executor.during = lambda: None
        with rig.database.write() as connection:
            baselines.pin(connection, "reg", "m", "v1", "ann", "the reference", rig.clock())

    rig.executor.during = pin
    rig.drain()
    baseline = rig.report("m", "v3").baseline
    assert baseline is not None
    assert (baseline.version, baseline.chosen_by) == ("v1", "pinned")
    assert methods(rig, "v3") == all_by("exact")


# Sketches


def test_a_baseline_whose_files_are_gone_is_compared_with_by_sketches(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network())
    rig.cycle()
    world.remove("m", "v1")
    world.publish("m", "v2", with_wrong_scale(network()))
    rig.cycle()
    assert methods(rig, "v2") == {"fc1": "identical", "fc2": "sketch", "fc3": "identical"}
    assert rig.version("m", "v2").verdict is Verdict.FAIL
    assert any("sketches" in spot for spot in rig.report("m", "v2").blind_spots)
    assert kept(rig) == 0


def test_a_baseline_whose_files_changed_since_is_compared_with_by_sketches(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network())
    rig.cycle()
    world.publish("m", "v2", finetuned(network()))
    rig.look()
    world.publish("m", "v1", network(7))  # and nobody has looked at it yet
    rig.drain()
    assert methods(rig, "v2") == all_by("sketch")
    assert rig.version("m", "v2").verdict is Verdict.PASS


def test_a_baseline_that_vanishes_while_it_is_read_leaves_the_sketches(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network())
    rig.cycle()
    world.publish("m", "v2", finetuned(network()))
    rig.look()

    def vanish() -> None:
        rig.executor.during = lambda: None
        world.remove("m", "v1")

    rig.executor.during = vanish
    (sentence,) = rig.drain()
    assert sentence == "reg/m/v2: pass"
    assert methods(rig, "v2") == all_by("sketch")
    assert kept(rig) == 0


def test_a_baseline_that_is_damaged_after_all_leaves_the_sketches(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    rig.cycle()
    weights = world.folder("m", "v1") / "model.safetensors"

    def truncate() -> None:
        # Between the look at its token and its opening: the same that a failing disk does.
        rig.executor.before = lambda: None
        os.truncate(weights, 100)

    rig.executor.before = truncate
    world.publish("m", "v2", finetuned(network()))
    rig.cycle()
    assert rig.version("m", "v2").verdict is Verdict.PASS
    assert methods(rig, "v2") == all_by("sketch")
    assert rig.value("layerwatch_scan_failures_total", reason="truncated") in (None, 0)


@pytest.mark.parametrize(
    "reason", [UnreadableReason.MEMORY_LIMIT, UnreadableReason.WORKER_DIED, UnreadableReason.TIMEOUT]
)
def test_when_two_files_are_one_too_many_the_version_is_scanned_alone_in_the_same_attempt(
    rig: Rig, world: DirectoryWorld, reason: UnreadableReason, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish("m", "v1", network())
    rig.cycle()
    real = rig.executor._executor
    assert isinstance(real, LocalExecutor)
    rig.executor._executor = BreaksWithTwoFiles(real, reason)
    world.publish("m", "v2", finetuned(network()))
    (sentence,) = rig.cycle()
    assert sentence == "reg/m/v2: pass"
    assert methods(rig, "v2") == all_by("sketch")
    assert "baseline v1 is compared with by sketches" in caplog.text


def test_a_registry_that_cannot_open_the_baseline_leaves_the_sketches(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    rig.cycle()
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.comparisons))
        versions.reopen(connection, rig.version("m", "v2").id)
    rig.registries["reg"] = UnreachableRegistry(world.registry)
    rig.drain()
    assert methods(rig, "v2") == all_by("sketch")
    assert rig.version("m", "v2").verdict is Verdict.PASS


def test_a_registry_that_is_no_longer_configured_leaves_the_sketches(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    rig.cycle()
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.comparisons))
        versions.reopen(connection, rig.version("m", "v2").id)
    rig.registries.clear()
    rig.drain()
    assert methods(rig, "v2") == all_by("sketch")


def test_a_shutdown_while_only_comparing_is_no_verdict_without_the_comparison(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    rig.cycle()
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.comparisons))
        versions.reopen(connection, rig.version("m", "v2").id)

    def stop() -> None:
        rig.stop = True

    rig.executor.during = stop
    with pytest.raises(Interrupted):
        rig.pipeline.process_next()
    rig.stop, rig.executor.during = False, lambda: None
    rig.drain()
    assert methods(rig, "v2") == all_by("exact")


def test_a_version_that_cannot_be_read_is_opened_once_although_it_has_a_baseline(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    world.publish("m", "v2")
    (world.folder("m", "v2") / "model.safetensors").write_bytes(b"not a model at all")
    rig.cycle()
    assert rig.version("m", "v2").verdict is Verdict.UNDECIDED
    assert len(rig.executor.scanned) == 2


def test_both_ways_of_comparing_give_the_same_verdict(rig: Rig, world: DirectoryWorld) -> None:
    states: Mapping[str, object] = {"v2": finetuned(network()), "v3": with_wrong_scale(network())}
    world.publish("m", "v1", network())
    for name, state in states.items():
        world.publish("m", name, state)  # type: ignore[arg-type]
    rig.cycle()
    exact = {name: rig.version("m", name).verdict for name in states}
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.comparisons))
        for name in states:
            versions.reopen(connection, rig.version("m", name).id)
    for name in ("v1", "v2"):
        world.remove("m", name)
    rig.drain()
    assert {name: rig.version("m", name).verdict for name in states} == exact


def test_a_scan_process_really_short_of_memory_for_two_files_does_one(
    rig: Rig, world: DirectoryWorld
) -> None:
    impossible = LocalExecutor(ScanSettings(niceness=0, threads=1, memory_limit=64 * 2**20))
    real = rig.executor._executor

    class SmallForTwo:
        """Gives scans of two files to a process that has too little memory to start."""

        def scan(self, request: ScanRequest, listener: ScanListener) -> ScanOutcome:
            return (impossible if request.baseline_path else real).scan(request, listener)

        def rest(self) -> None: ...

        def close(self) -> None: ...

    try:
        world.publish("m", "v1", network())
        rig.cycle()
        rig.executor._executor = SmallForTwo()
        world.publish("m", "v2", finetuned(network()))
        rig.cycle()
        assert rig.version("m", "v2").verdict is Verdict.PASS
        assert methods(rig, "v2") == all_by("sketch")
    finally:
        impossible.close()


def test_comparisons_are_forgotten_with_what_they_compare(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    rig.cycle()
    assert kept(rig) == 1
    with rig.database.write() as connection:
        connection.execute(
            sa.delete(tables.contents).where(
                tables.contents.c.fingerprint == rig.version("m", "v1").fingerprint
            )
        )
        assert comparisons.prune(connection) == 1
        assert comparisons.prune(connection) == 0

"""From the queue to verdicts, with real scans in a real child process."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from layerwatch.alerts.model import AlertPhase
from layerwatch.config.baselines import BaselinesSettings
from layerwatch.config.rules import RulesSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.pipeline import Interrupted
from layerwatch.daemon.scan.executor import LocalExecutor, WorkerStartError
from layerwatch.daemon.store import alerts, baselines, contents, tables, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import VersionState
from layerwatch.metrics.errors import UnreadableReason
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import LayerStatus, RuleGroup, Severity, Verdict
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.relation import Relation
from layerwatch_testing import processes
from layerwatch_testing.networks import (
    finetuned,
    network,
    with_nan,
    with_one_layer_trained,
    with_wrong_scale,
)
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld

JUDGE = "layerwatch.daemon.pipeline.judge"
SCAN_WORKER = "layerwatch.daemon.scan.worker"


def rules(rig: Rig, version: str, model: str = "m") -> dict[str, str]:
    """Rule -> severity of the findings that are more than information."""
    found = rig.report(model, version).findings
    return {one.rule: one.severity for one in found if one.severity != Severity.INFO}


def firing(rig: Rig) -> set[RuleGroup]:
    with rig.database.read() as connection:
        return {state.identity.group for state in alerts.list_states(connection, phase=AlertPhase.FIRING)}


def states(rig: Rig) -> dict[VersionState, int]:
    with rig.database.read() as connection:
        return {state: count for state, count in versions.counts_by_state(connection).items() if count}


@pytest.fixture
def impatient() -> Iterator[LocalExecutor]:
    """Real scan processes that are ended for taking too long before they have begun."""
    executor = LocalExecutor(ScanSettings(timeout=timedelta(milliseconds=1), niceness=0, threads=1))
    yield executor
    executor.close()


# Verdicts


def test_a_story_of_versions_gets_the_verdicts_it_deserves(rig: Rig, world: DirectoryWorld) -> None:
    first = network()
    world.publish("m", "v1", first)
    world.publish("m", "v2", finetuned(first))
    world.publish("m", "v3", with_wrong_scale(finetuned(first)))
    world.publish("m", "v4", with_nan(finetuned(first)))
    world.publish("m", "v5", finetuned(first, seed=5))
    sentences = rig.cycle()
    verdicts = {name: rig.version("m", name).verdict for name in ("v1", "v2", "v3", "v4", "v5")}
    assert verdicts == {
        "v1": Verdict.PASS,
        "v2": Verdict.PASS,
        "v3": Verdict.FAIL,
        "v4": Verdict.FAIL,
        "v5": Verdict.PASS,
    }
    assert [sentence.split(":")[0] for sentence in sentences] == [
        f"reg/m/v{number}" for number in range(1, 6)
    ]
    assert sentences[2].startswith("reg/m/v3: fail: fc2: ")
    assert "non_finite" in rules(rig, "v4")
    chosen = [rig.report("m", name).baseline for name in ("v1", "v2", "v3", "v4", "v5")]
    assert [one.version if one else None for one in chosen] == [None, "v1", "v2", "v2", "v2"]
    broken = {layer.name for layer in rig.report("m", "v3").layers if layer.status is LayerStatus.BROKEN}
    assert broken == {"fc2"}


def test_the_verdict_the_ref_and_the_alert_come_together(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.cycle()
    world.publish("m", "v2", with_nan(network()))
    rig.look()
    assert firing(rig) == set()
    rig.pipeline.process_next()
    assert firing(rig) == {RuleGroup.WEIGHTS}


def test_the_declared_parent_is_what_a_version_is_compared_with(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network(1))
    world.publish("m", "v2", network(2))
    world.publish("m", "v3", finetuned(network(1)), lineage=b'{"parent": "v1", "relation": "finetuned"}')
    rig.cycle()
    baseline = rig.report("m", "v3").baseline
    assert baseline is not None
    assert (baseline.version, baseline.relation, baseline.chosen_by) == ("v1", "finetuned", "parent")
    assert rig.version("m", "v3").verdict is Verdict.PASS


def test_an_empty_queue_gives_nothing_to_do(rig: Rig) -> None:
    assert rig.pipeline.process_next() is None
    assert rig.value("layerwatch_scans_total") == 0


# Doing nothing twice


def test_the_same_bytes_under_three_names_are_scanned_once(rig: Rig, world: DirectoryWorld) -> None:
    for model, version in [("a", "v1"), ("a", "copy"), ("b", "v1")]:
        world.publish(model, version)
    rig.cycle()
    assert len(rig.executor.scanned) == 1
    for model, version in [("a", "v1"), ("a", "copy"), ("b", "v1")]:
        report = rig.report(model, version)
        assert report.verdict is Verdict.PASS
        assert [layer.metrics.stable_rank is not None for layer in report.layers].count(True) == 3


def test_frozen_layers_are_not_measured_again(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", with_one_layer_trained(network(), "fc3.weight"))
    rig.cycle()
    assert len(rig.executor.measured[0]) == 6
    assert rig.executor.measured[1] == ["fc3"]
    assert len(rig.report("m", "v2").layers) == len(rig.report("m", "v1").layers)


def test_a_version_that_is_reopened_is_judged_again_and_tells_nothing_new(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", with_nan(network()))
    rig.cycle()
    with rig.database.write() as connection:
        versions.reopen(connection, rig.version("m", "v1").id)
    told = rig.told()
    assert told
    rig.drain()
    assert rig.told() == told
    with rig.database.read() as connection:
        rows = connection.execute(sa.select(sa.func.count()).select_from(tables.findings)).scalar_one()
    assert rows == len(rig.report("m", "v1").findings)
    assert len(rig.executor.scanned) == 1


def test_measurements_that_retention_took_are_taken_again(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.cycle()
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.measurements))
        versions.reopen(connection, rig.version("m", "v1").id)
    rig.drain()
    assert len(rig.executor.scanned) == 2
    assert rig.version("m", "v1").verdict is Verdict.PASS


def test_a_baseline_whose_measurements_are_lost_is_measured_again(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.cycle()
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.contents))
    world.publish("m", "v2", with_wrong_scale(network()))
    rig.cycle()
    assert [path.rpartition("/")[2] for path in rig.executor.scanned] == ["v1", "v1", "v2"]
    assert rig.version("m", "v2").verdict is Verdict.FAIL


@pytest.mark.parametrize(("accepted", "verdict"), [(True, Verdict.UNDECIDED), (False, Verdict.PASS)])
def test_a_baseline_that_is_lost_leaves_a_version_undecided_if_a_person_chose_it(
    rig: Rig, world: DirectoryWorld, accepted: bool, verdict: Verdict
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.contents))
        if accepted:
            baselines.accept(connection, "reg", "m", "v1", "ann", "good", rig.clock())
    world.remove("m", "v1")
    world.publish("m", "v2", finetuned(network()))
    for _ in range(rig.scan.attempts):
        rig.cycle(600)
    assert rig.version("m", "v2").verdict is verdict
    if not accepted:
        assert rig.report("m", "v2").baseline is None
        assert any("no baseline" in spot for spot in rig.report("m", "v2").blind_spots)


def test_a_store_of_an_older_metric_set_is_measured_anew_and_never_compared_with(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network())
    rig.cycle()
    with rig.database.write() as connection:
        connection.execute(sa.update(tables.contents).values(metric_set="1"))
        connection.execute(sa.update(tables.measurements).values(metric_set="1"))
    world.publish("m", "v2", with_wrong_scale(network()))
    rig.cycle()
    assert [path.rpartition("/")[2] for path in rig.executor.scanned] == ["v1", "v1", "v2"]
    # Equal layers are found equal by the new measurement of the baseline, not by the old one.
    assert sorted(rig.executor.measured[1]) == sorted(rig.executor.measured[0])
    assert rig.version("m", "v2").verdict is Verdict.FAIL
    baseline = rig.report("m", "v2").baseline
    assert baseline is not None
    assert baseline.version == "v1"


def test_a_version_that_passes_becomes_the_baseline_where_that_is_asked_for(
    rig: Rig, world: DirectoryWorld
) -> None:
    rig.baselines = BaselinesSettings(accept="pass")
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    world.publish("m", "v3", with_wrong_scale(finetuned(network())))
    world.publish("m", "v4", finetuned(network(), seed=4))
    rig.cycle()
    with rig.database.read() as connection:
        events = baselines.history(connection, "reg", "m")
    assert [(one.version, one.by, one.reason) for one in events] == [
        ("v4", "layerwatch", "verdict pass against v2"),
        ("v2", "layerwatch", "verdict pass against v1"),
        ("v1", "layerwatch", "verdict pass, without a baseline"),
    ]
    baseline = rig.report("m", "v4").baseline
    assert baseline is not None
    assert (baseline.version, baseline.chosen_by) == ("v2", "accepted automatically")
    assert firing(rig) == set()


def test_a_publisher_does_not_get_broken_weights_passed_by_putting_their_like_into_a_model_of_his_own(
    rig: Rig, world: DirectoryWorld
) -> None:
    rig.baselines = BaselinesSettings(accept="pass")
    good, broken = network(), with_wrong_scale(network())
    world.publish("fraud", "v1", good)
    world.publish("fraud", "v2", finetuned(good))
    rig.cycle()
    with rig.database.write() as connection:
        baselines.accept(connection, "reg", "fraud", "v2", "ann", "looked at it", rig.clock())
    # Nothing is known that this could be compared with.
    world.publish("scratch", "x1", broken)
    rig.cycle()
    assert rig.version("scratch", "x1").verdict is Verdict.PASS
    world.publish("fraud", "v3", finetuned(broken, seed=3))
    world.publish("fraud", "v4", finetuned(broken, seed=4), lineage=b'{"parent": "scratch/x1"}')
    rig.cycle()
    assert rig.version("fraud", "v3").verdict is Verdict.FAIL
    assert rig.version("fraud", "v4").verdict is Verdict.FAIL
    baseline = rig.report("fraud", "v4").baseline
    assert baseline is not None
    assert (baseline.name, baseline.version) == ("fraud", "v2")
    assert baseline.chosen_by == (
        "accepted (declared parent scratch/x1 is of another model: nobody accepted it there, and "
        "baselines.parents_from does not name that model)"
    )
    with rig.database.read() as connection:
        (chosen,) = baselines.chosen(connection, "reg", "fraud")
    assert (chosen.version, chosen.by) == ("v2", "ann")


def test_the_first_version_of_a_model_is_judged_against_its_base_and_not_accepted_by_itself(
    rig: Rig, world: DirectoryWorld
) -> None:
    rig.baselines = BaselinesSettings(accept="pass")
    world.publish("base", "b1", network())
    rig.cycle()
    world.publish("tuned", "v1", finetuned(network()), lineage=b'{"parent": "base/b1"}')
    rig.cycle()
    assert rig.version("tuned", "v1").verdict is Verdict.PASS
    baseline = rig.report("tuned", "v1").baseline
    assert baseline is not None
    assert (baseline.name, baseline.version, baseline.chosen_by) == ("base", "b1", "parent")
    with rig.database.read() as connection:
        assert baselines.history(connection, "reg", "tuned") == []


def test_a_declared_parent_goes_before_the_accepted_version_where_the_configuration_names_its_model(
    rig: Rig, world: DirectoryWorld
) -> None:
    rig.baselines = BaselinesSettings(parents_from=("reg/base",))
    world.publish("base", "b1", network(2))
    world.publish("tuned", "v1", network(1))
    rig.cycle()
    with rig.database.write() as connection:
        baselines.accept(connection, "reg", "tuned", "v1", "ann", "looked at it", rig.clock())
    world.publish("tuned", "v2", finetuned(network(2), seed=5), lineage=b'{"parent": "base/b1"}')
    rig.cycle()
    baseline = rig.report("tuned", "v2").baseline
    assert baseline is not None
    assert (baseline.name, baseline.version, baseline.chosen_by) == ("base", "b1", "parent")
    assert rules(rig, "v2", "tuned") == {}


def test_the_declared_relation_reaches_the_rules(
    rig: Rig, world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Relation | None] = []

    def remember(examination: Examination, settings: RulesSettings) -> Judgement:
        seen.append(examination.relation)
        return judge(examination, settings)

    monkeypatch.setattr(JUDGE, remember)
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()), lineage=b'{"parent": "v1", "relation": "quantized"}')
    world.publish("m", "v3", finetuned(network(), seed=3))
    rig.cycle()
    assert seen == [None, Relation.QUANTIZED, None]


# Failures that may pass


def test_a_failure_that_may_pass_is_tried_again_later_each_time_and_ends_as_undecided(
    rig: Rig, world: DirectoryWorld, impatient: LocalExecutor
) -> None:
    rig.executor._executor = impatient
    world.publish("m", "v1")
    (sentence,) = rig.cycle()
    assert sentence.startswith("reg/m/v1: attempt 1 failed, next in 5 s: ")
    assert "timeout" in sentence
    rig.clock.advance(4.9)
    assert rig.drain() == []
    rig.clock.advance(0.2)
    (sentence,) = rig.drain()
    assert "attempt 2 failed, next in 10 s" in sentence
    rig.clock.advance(9.9)
    assert rig.drain() == []
    assert rig.version("m", "v1").verdict is None
    rig.clock.advance(0.2)
    (sentence,) = rig.drain()
    assert sentence.startswith("reg/m/v1: undecided")
    assert "after 3 attempts" in sentence
    assert rig.value("layerwatch_scan_failures_total", reason="timeout") == 3
    assert rules(rig, "v1") == {"unreadable": "warning"}
    assert firing(rig) == {RuleGroup.EXAMINATION}
    rig.clock.advance(10_000)
    assert rig.drain() == []


def test_a_failure_that_passed_leaves_no_trace_in_the_verdict(
    rig: Rig, world: DirectoryWorld, impatient: LocalExecutor
) -> None:
    world.publish("m", "v1")
    patient, rig.executor._executor = rig.executor._executor, impatient
    rig.cycle()
    rig.executor._executor = patient
    rig.clock.advance(5)
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.PASS
    assert rig.report("m", "v1").findings == ()


def test_a_version_that_waits_for_another_attempt_does_not_hold_up_other_models(
    rig: Rig, world: DirectoryWorld, impatient: LocalExecutor
) -> None:
    world.publish("a", "v1", network(1))
    patient, rig.executor._executor = rig.executor._executor, impatient
    rig.cycle()
    rig.executor._executor = patient
    world.publish("b", "v1", network(2))
    rig.look()
    assert [sentence.split(":")[0] for sentence in rig.drain()] == ["reg/b/v1"]


def test_a_scan_process_that_dies_is_replaced(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    with_child = rig.executor

    def kill_the_child() -> None:
        with_child.during = lambda: None
        # Servers that tests share are children of this process, too.
        scanning = [child for child in processes.children() if SCAN_WORKER in processes.command(child)]
        assert scanning
        for child in scanning:
            os.kill(child, signal.SIGKILL)

    with_child.during = kill_the_child
    (sentence,) = rig.cycle()
    assert "worker_died" in sentence
    rig.clock.advance(5)
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.PASS


# Content


def test_content_that_changed_in_place_is_a_critical_finding_about_integrity(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network())
    rig.cycle()
    world.publish("m", "v1", finetuned(network()))
    rig.cycle()
    record = rig.version("m", "v1")
    assert (record.revision, record.verdict) == (2, Verdict.FAIL)
    assert rules(rig, "v1") == {"content_changed_in_place": "critical"}
    assert firing(rig) == {RuleGroup.INTEGRITY}
    assert rig.metrics.get_sample_value("layerwatch_content_changes_total", {"registry": "reg"}) == 1


def test_bytes_that_were_replaced_before_anyone_examined_them_did_not_change_in_place(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network(1))
    rig.look()
    world.publish("m", "v1", network(2))
    rig.cycle()
    record = rig.version("m", "v1")
    assert (record.revision, record.verdict) == (2, Verdict.PASS)


def test_a_change_is_held_against_what_was_examined_last_whatever_lay_there_in_between(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network(1))
    rig.cycle()
    examined = rig.version("m", "v1").fingerprint
    world.publish("m", "v1", network(2))
    rig.look()
    world.publish("m", "v1", network(3))
    rig.cycle()
    (finding,) = [one for one in rig.report("m", "v1").findings if one.rule == "content_changed_in_place"]
    assert finding.evidence["previous_fingerprint"] == examined
    assert finding.severity == "critical"


def test_bytes_that_came_back_before_anyone_examined_the_others_did_not_change_in_place(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network(1))
    rig.cycle()
    world.publish("m", "v1", network(2))
    rig.look()
    world.publish("m", "v1", network(1))
    rig.cycle()
    record = rig.version("m", "v1")
    assert (record.revision, record.verdict) == (3, Verdict.PASS)
    assert rig.report("m", "v1").findings == ()


def test_a_version_completed_after_it_could_not_be_read_is_information_only(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    weights = world.folder("m", "v1") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    rig.cycle()
    assert rig.version("m", "v1").verdict is Verdict.UNDECIDED
    weights.write_bytes(whole)
    rig.cycle()
    assert rig.version("m", "v1").verdict is Verdict.PASS
    assert firing(rig) == set()


def test_files_that_change_before_their_scan_wait_for_the_next_look(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network(1))
    rig.look()
    world.publish("m", "v1", network(2))
    (sentence,) = rig.drain()
    assert "changed_while_reading" in sentence
    assert rig.executor.scanned == []
    rig.cycle()
    assert rig.version("m", "v1").verdict is Verdict.PASS
    assert rig.version("m", "v1").revision == 2


def test_files_that_change_during_their_scan_get_no_verdict_for_the_mixture(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network(1))
    rig.look()
    fingerprint = rig.version("m", "v1").fingerprint

    def rewrite() -> None:
        rig.executor.during = lambda: None
        world.publish("m", "v1", network(2))

    rig.executor.during = rewrite
    (sentence,) = rig.drain()
    assert "changed_while_reading" in sentence
    assert rig.version("m", "v1").state is VersionState.PENDING
    with rig.database.read() as connection:
        assert contents.load(connection, fingerprint, METRIC_SET) is None
    rig.cycle()
    assert rig.version("m", "v1").verdict is Verdict.PASS


def test_files_that_never_stop_changing_end_as_undecided(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.look()
    os.utime(world.folder("m", "v1") / "model.safetensors")  # and nobody looks at the registry again
    attempts = 0
    while rig.version("m", "v1").verdict is None:
        rig.clock.advance(600)
        attempts += len(rig.drain())
        assert attempts < 50
    assert rig.version("m", "v1").verdict is Verdict.UNDECIDED
    assert attempts == rig.scan.attempts + 10


def test_a_version_that_vanishes_before_its_scan_is_not_scanned(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.look()
    world.remove("m", "v1")
    rig.look()
    assert rig.drain() == []


# Hostile files


HOSTILE: dict[str, tuple[bytes, UnreadableReason]] = {
    "empty": (b"", UnreadableReason.EMPTY_FILE),
    "noise": (b"\x13\x37" * 500, UnreadableReason.TOO_LARGE),
    "header that lies": ((2**62).to_bytes(8, "little") + b"{}", UnreadableReason.TOO_LARGE),
    "no tensors": ((2).to_bytes(8, "little") + b"{}", UnreadableReason.NO_TENSORS),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_undecided_with_its_reason_and_the_next_version_is_judged(
    rig: Rig, world: DirectoryWorld, name: str
) -> None:
    data, reason = HOSTILE[name]
    world.publish("m", "v1")
    world.publish("m", "v2")
    (world.folder("m", "v2") / "model.safetensors").write_bytes(data)
    world.publish("m", "v3", finetuned(network()))
    rig.cycle()
    assert rig.version("m", "v2").verdict is Verdict.UNDECIDED
    (finding,) = rig.report("m", "v2").findings
    assert (finding.rule, finding.evidence["reason"]) == ("unreadable", reason)
    assert str(world.folder("m", "v2")) in finding.message
    assert rig.value("layerwatch_scan_failures_total", reason=reason.value) == 1
    assert rig.version("m", "v3").verdict is Verdict.PASS
    baseline = rig.report("m", "v3").baseline
    assert baseline is not None
    assert baseline.version == "v1"


def test_a_hostile_file_is_opened_once_however_often_it_is_published(rig: Rig, world: DirectoryWorld) -> None:
    for version in ("v1", "v2"):
        world.publish("m", version)
        (world.folder("m", version) / "model.safetensors").write_bytes(b"not a model at all")
    rig.cycle()
    assert len(rig.executor.scanned) == 1
    assert states(rig) == {VersionState.JUDGED: 2}


# Ending, and going on


def test_a_scan_that_is_interrupted_leaves_its_version_in_the_queue(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.look()

    def stop() -> None:
        rig.stop = True

    rig.executor.during = stop
    with pytest.raises(Interrupted):
        rig.pipeline.process_next()
    record = rig.version("m", "v1")
    assert (record.state, record.not_before, record.verdict) == (VersionState.PENDING, None, None)
    rig.stop = False
    rig.executor.during = lambda: None
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.PASS


def test_however_often_a_scan_is_interrupted_its_version_keeps_all_its_attempts(
    rig: Rig, world: DirectoryWorld, impatient: LocalExecutor
) -> None:
    world.publish("m", "v1")
    rig.look()
    patient = rig.executor._executor

    def stop() -> None:
        rig.stop = True

    for turn in range(3 * rig.scan.attempts + 10):
        rig.stop = False
        if turn % 3 == 0:
            # Interrupted between two layers.
            rig.executor.before, rig.executor.during = lambda: None, stop
            with pytest.raises(Interrupted):
                rig.pipeline.process_next()
        elif turn % 3 == 1:
            # The scan process was ended by the shutdown.
            rig.executor._executor, rig.executor.before = impatient, stop
            assert "interrupted by the shutdown" in (rig.pipeline.process_next() or "")
            rig.executor._executor = patient
        else:
            # The daemon was killed.
            with rig.database.write() as connection:
                assert versions.claim_next(connection, rig.clock()) is not None
                assert versions.reset_interrupted(connection) == 1
        assert rig.version("m", "v1").attempts == 0
    rig.stop = False
    rig.executor.before = rig.executor.during = lambda: None
    rig.executor._executor = impatient
    (sentence,) = rig.drain()
    assert "attempt 1 failed" in sentence
    rig.executor._executor = patient
    rig.clock.advance(5)
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.PASS


def test_a_shutdown_while_the_baseline_is_measured_again_is_no_verdict_without_it(
    rig: Rig, world: DirectoryWorld, impatient: LocalExecutor
) -> None:
    rig.scan = rig.scan.model_copy(update={"attempts": 1})
    world.publish("m", "v1")
    rig.cycle()
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.contents))
        baselines.accept(connection, "reg", "m", "v1", "ann", "good", rig.clock())
    world.publish("m", "v2", finetuned(network()))
    rig.look()
    patient = rig.executor._executor

    def stop_at_the_baseline() -> None:
        if rig.executor.scanned[-1].endswith("v1"):
            rig.stop = True
            rig.executor._executor = impatient

    rig.executor.before = stop_at_the_baseline
    with pytest.raises(Interrupted):
        rig.pipeline.process_next()
    assert rig.version("m", "v2").verdict is None
    rig.stop, rig.executor._executor = False, patient
    rig.executor.before = lambda: None
    rig.drain()
    assert rig.version("m", "v2").verdict is Verdict.PASS


@pytest.mark.parametrize("place", [(subprocess, "Popen"), (tempfile, "TemporaryFile")])
def test_a_scan_process_that_cannot_be_started_is_not_the_fault_of_the_version(
    rig: Rig, world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str]
) -> None:
    world.publish("m", "v1")
    rig.look()
    # Real ones need a machine without room for a process or a temporary file.
    rested = LocalExecutor(ScanSettings(niceness=0, threads=1))
    rig.executor._executor, patient = rested, rig.executor._executor

    def refuse(*arguments: Any, **more: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(*place, refuse)
        for _ in range(rig.scan.attempts + 20):
            with pytest.raises(WorkerStartError, match="cannot be started: Resource temporarily unavailable"):
                rig.pipeline.process_next()
            assert rig.drain() == []
            record = rig.version("m", "v1")
            assert (record.state, record.attempts) == (VersionState.PENDING, 0)
            rig.clock.advance(5)
    assert rig.value("layerwatch_scan_failures_total", reason="io_error") == 0
    rig.executor._executor = patient
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.PASS


def test_a_scan_tells_that_it_is_alive_at_each_layer_of_the_version_and_of_its_baseline(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    layers = len(rig.report("m", "v1").layers)
    with rig.database.write() as connection:
        connection.execute(sa.delete(tables.contents))
    world.publish("m", "v2", with_wrong_scale(network()))
    before = rig.beats
    rig.cycle()
    assert rig.beats - before >= 2 * layers


def test_no_scan_is_begun_once_the_daemon_stops(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.look()
    rig.stop = True
    with pytest.raises(Interrupted):
        rig.pipeline.process_next()
    assert rig.executor.scanned == []
    assert states(rig) == {VersionState.PENDING: 1}


def test_an_unexpected_error_leaves_the_version_in_the_queue_behind_the_others(
    rig: Rig, world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("a", "v1", network(1))
    world.publish("b", "v1", network(2))
    rig.look()

    def break_down(*arguments: Any) -> Any:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(JUDGE, break_down)
    with pytest.raises(ZeroDivisionError):
        rig.pipeline.process_next()
    assert rig.version("a", "v1").not_before == rig.clock() + timedelta(seconds=5)
    assert [sentence.split(":")[0] for sentence in rig.drain()] == ["reg/b/v1"]
    rig.clock.advance(5)
    assert [sentence.split(":")[0] for sentence in rig.drain()] == ["reg/a/v1"]


def test_a_version_that_always_ends_its_scan_unexpectedly_is_undecided_in_the_end(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    rig.look()

    def break_down() -> None:
        raise ZeroDivisionError

    rig.executor.before = break_down
    for _ in range(rig.scan.attempts + 10):
        with pytest.raises(ZeroDivisionError):
            rig.pipeline.process_next()
        rig.clock.advance(600)
    (sentence,) = rig.drain()
    assert "begun 13 times and never finished" in sentence
    assert rig.version("m", "v1").verdict is Verdict.UNDECIDED


def test_a_version_that_cannot_be_put_back_at_once_is_put_back_before_the_next_is_taken(
    rig: Rig, world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("m", "v1")
    rig.look()
    database = rig.database

    class FullDisk:
        """The store of a disk that is full from the scan on."""

        def __getattr__(self, name: str) -> Any:
            return getattr(database, name)

        def write(self) -> Any:
            raise StoreError(StoreReason.DISK_FULL, "no space left")

    def fill_the_disk() -> None:
        monkeypatch.setattr(rig.pipeline, "_database", FullDisk())

    rig.executor.before = fill_the_disk
    with pytest.raises(StoreError):
        rig.pipeline.process_next()
    assert states(rig) == {VersionState.SCANNING: 1}
    with pytest.raises(StoreError):
        rig.pipeline.process_next()
    monkeypatch.undo()
    rig.executor.before = lambda: None
    assert rig.drain() == []
    assert states(rig) == {VersionState.PENDING: 1}
    rig.clock.advance(5)
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.PASS


@pytest.mark.parametrize("stage", ["measured", "judged"])
def test_a_kill_between_two_steps_gives_the_same_single_verdict_after_the_restart(
    rig: Rig, world: DirectoryWorld, database: Database, stage: str
) -> None:
    world.publish("m", "v1", with_nan(network()))
    rig.look()

    class Killed(BaseException):
        """As if the process ended here: nothing after it runs."""

    def die(*arguments: Any) -> Any:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rig.pipeline, "_put_back", lambda *arguments, **more: None)
        if stage == "measured":
            patch.setattr(JUDGE, die)
        else:
            patch.setattr(rig.pipeline, "_judged", die)
        with pytest.raises(Killed):
            rig.pipeline.process_next()
    assert states(rig) == {VersionState.SCANNING: 1}
    assert rig.version("m", "v1").verdict is None
    with database.write() as connection:
        assert versions.reset_interrupted(connection) == 1
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.FAIL
    assert len(rig.executor.scanned) == 1
    assert len(rig.told()) == 1

"""What a look at a registry does to the store."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from layerwatch.alerts.model import AlertPhase
from layerwatch.daemon.alerting import AlertPolicy
from layerwatch.daemon.fingerprints import is_stand_in
from layerwatch.daemon.registries.base import FoundVersion, Listing
from layerwatch.daemon.registries.directory.registry import DirectoryRegistry
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.store import alerts, baselines, refs, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import VersionState
from layerwatch.daemon.watcher import forget_registry, known_registries
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.findings import RuleGroup, Severity, Verdict
from layerwatch.metrics.manifest import Manifest
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.rights import forbidden
from layerwatch_testing.rigs import POLICY, Rig
from layerwatch_testing.worlds.directory import DirectoryWorld


def pointed(rig: Rig) -> dict[str, str]:
    with rig.database.read() as connection:
        found = {}
        for ref in refs.list_refs(connection):
            record = versions.get(connection, ref.version_id)
            assert record is not None
            found[f"{ref.model}@{ref.ref}"] = record.key.version
        return found


def firing(rig: Rig) -> list[tuple[str, RuleGroup]]:
    with rig.database.read() as connection:
        states = alerts.list_states(connection, phase=AlertPhase.FIRING)
    return [(state.identity.model, state.identity.group) for state in states]


def told(rig: Rig) -> int:
    return len(rig.told())


# Discovery


def test_a_new_version_is_registered_with_its_lineage_and_waits_for_its_scan(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v2", lineage=b'{"parent": "v1", "relation": "finetuned"}')
    assert rig.look() == "registry reg: 1 versions listed, 1 queued, 0 gone"
    record = rig.version("m", "v2")
    assert (record.state, record.revision, record.verdict) == (VersionState.PENDING, 1, None)
    assert (record.lineage.parent, record.lineage.relation) == ("v1", "finetuned")
    assert record.fingerprint == world.registry.manifest(world.found("m", "v2")).fingerprint
    assert rig.work == 1


def test_a_version_whose_token_is_unchanged_is_not_hashed_again(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2")
    rig.look()
    rig.look()
    rig.watcher = rig.new_watcher()
    rig.look()
    assert rig.registry.hashed == ["m/v1", "m/v2"]
    assert rig.work == 2


def test_a_touched_version_is_hashed_and_stays_the_same_version(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.cycle()
    os.utime(world.folder("m", "v1") / "model.safetensors")
    assert rig.look() == "registry reg: 1 versions listed, 0 queued, 0 gone"
    assert rig.registry.hashed == ["m/v1", "m/v1"]
    assert rig.version("m", "v1").state is VersionState.JUDGED
    rig.look()
    assert len(rig.registry.hashed) == 2


def test_other_bytes_under_an_old_name_are_a_new_revision_that_waits(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    rig.cycle()
    old = rig.version("m", "v1")
    world.publish("m", "v1", finetuned(network()))
    rig.look()
    new = rig.version("m", "v1")
    assert (new.revision, new.state, new.previous_fingerprint) == (2, VersionState.PENDING, old.fingerprint)


def test_a_version_that_is_being_written_is_neither_registered_nor_gone(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.begin("m", "v1")
    assert rig.look() == "registry reg: 0 versions listed, 0 queued, 0 gone, 1 still being written"
    world.publish("m", "v1")
    rig.cycle()
    (world.folder("m", "v1") / "COMPLETE").unlink()
    rig.cycle()
    assert rig.version("m", "v1").gone_at is None
    assert pointed(rig) == {"m@latest": "v1"}


def test_the_reconcile_finds_bytes_that_changed_behind_an_unchanged_token(
    rig: Rig, world: DirectoryWorld
) -> None:
    # Change times cannot be forged on a file system, so the store is told the token of the changed file: to the
    # watcher that is the same as a disk that returns other data.
    world.publish("m", "v1", network(1))
    rig.cycle()
    write_safetensors(world.folder("m", "v1") / "model.safetensors", network(2))
    record, token = rig.version("m", "v1"), world.found("m", "v1").token
    with rig.database.write() as connection:
        versions.register(
            connection,
            record.key,
            record.fingerprint,
            record.source_path,
            record.order_key,
            record.lineage,
            rig.clock(),
            token=token,
        )
    assert rig.look() == "registry reg: 1 versions listed, 0 queued, 0 gone"
    assert rig.look(rehash=True) == "registry reg: 1 versions listed, 1 queued, 0 gone"
    assert rig.version("m", "v1").revision == 2


def test_a_file_that_changes_while_it_is_hashed_is_left_to_the_next_look(
    rig: Rig, world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("m", "v1", network(1))
    hash_it = rig.registry.manifest

    def rewritten_meanwhile(found: FoundVersion, **how: object) -> Manifest:
        monkeypatch.undo()
        world.remove("m", "v1")
        return hash_it(found)

    monkeypatch.setattr(rig.registry, "manifest", rewritten_meanwhile)
    assert rig.look() == "registry reg: 1 versions listed, 0 queued, 0 gone"
    world.publish("m", "v1", network(2))
    assert rig.look() == "registry reg: 1 versions listed, 1 queued, 0 gone"


def test_a_version_that_cannot_be_read_is_registered_and_becomes_undecided(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    rig.scan = rig.scan.model_copy(update={"attempts": 1})
    with forbidden(world.folder("m", "v1")):
        rig.cycle()
    record = rig.version("m", "v1")
    assert (record.state, record.verdict) == (VersionState.JUDGED, Verdict.UNDECIDED)
    assert firing(rig) == [("m", RuleGroup.EXAMINATION)]
    rig.cycle()
    assert rig.version("m", "v1").verdict is Verdict.PASS
    assert firing(rig) == []


def test_a_version_that_could_not_be_read_for_a_while_was_not_tampered_with(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    rig.scan = rig.scan.model_copy(update={"attempts": 1})
    rig.cycle()
    with forbidden(world.folder("m", "v1")):
        rig.cycle()
        assert rig.version("m", "v1").verdict is Verdict.UNDECIDED
        assert {one.rule for one in rig.report("m", "v1").findings} == {"unreadable"}
    rig.cycle()
    assert rig.version("m", "v1").verdict is Verdict.PASS
    assert rig.report("m", "v1").findings == ()
    assert len(rig.executor.scanned) == 1


def failing(reason: UnreadableReason) -> Callable[..., Manifest]:
    """A registry's `manifest` while its disk fails (a failing disk cannot be had in a test)."""

    def manifest(found: FoundVersion, **how: object) -> Manifest:
        raise UnreadableError(reason, found.location, "Input/output error")

    return manifest


def test_a_disk_that_fails_at_the_reconcile_does_not_replace_what_is_known_of_a_version(
    rig: Rig, world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    before = rig.version("m", "v1")
    with monkeypatch.context() as patch:
        patch.setattr(rig.registry, "manifest", failing(UnreadableReason.IO_ERROR))
        assert rig.look(rehash=True) == "registry reg: 1 versions listed, 0 queued, 0 gone"
        rig.look(rehash=True)
        assert rig.drain() == []
    assert rig.version("m", "v1") == before
    assert pointed(rig) == {"m@latest": "v1"}
    (told,) = [record.getMessage() for record in caplog.records if "m/v1" in record.getMessage()]
    assert told.startswith("m/v1 cannot be hashed again now; what is known of it stays: ")
    assert told.endswith("io_error: Input/output error")
    assert rig.value("layerwatch_registry_failures_total", registry="reg", reason="io_error") == 2
    rig.look(rehash=True)
    with monkeypatch.context() as patch:
        patch.setattr(rig.registry, "manifest", failing(UnreadableReason.IO_ERROR))
        rig.look(rehash=True)
    assert len([record for record in caplog.records if "m/v1" in record.getMessage()]) == 2


@pytest.mark.parametrize("reason", [UnreadableReason.IO_ERROR, UnreadableReason.TOO_DEEP])
def test_a_version_whose_files_changed_and_cannot_be_read_is_a_new_revision(
    rig: Rig, world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch, reason: UnreadableReason
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    os.utime(world.folder("m", "v1") / "model.safetensors")
    monkeypatch.setattr(rig.registry, "manifest", failing(reason))
    assert rig.look() == "registry reg: 1 versions listed, 1 queued, 0 gone"
    assert rig.version("m", "v1").revision == 2
    assert is_stand_in(rig.version("m", "v1").fingerprint)


def test_a_lasting_reason_replaces_a_version_also_when_its_token_is_unchanged(
    rig: Rig, world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    monkeypatch.setattr(rig.registry, "manifest", failing(UnreadableReason.CORRUPT))
    assert rig.look(rehash=True) == "registry reg: 1 versions listed, 1 queued, 0 gone"


def test_the_reconcile_tries_again_what_was_undecided_for_a_reason_that_may_have_passed(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    rig.look()
    rig.registries.clear()
    rig.scan = rig.scan.model_copy(update={"attempts": 1})
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.UNDECIDED
    rig.registries["reg"] = rig.registry
    rig.look()
    assert rig.drain() == []
    rig.look(rehash=True)
    rig.drain()
    assert rig.version("m", "v1").verdict is Verdict.PASS


def test_the_reconcile_leaves_alone_what_will_never_be_readable(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    (world.folder("m", "v1") / "model.safetensors").write_bytes(b"not a model")
    rig.cycle()
    assert rig.version("m", "v1").verdict is Verdict.UNDECIDED
    rig.look(rehash=True)
    assert rig.drain() == []


# Trouble with the registry


def test_a_registry_that_is_down_shows_in_its_gauge_and_nothing_is_taken_for_gone(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", with_nan(network()))
    rig.cycle()
    assert rig.value("layerwatch_registry_up", registry="reg") == 1
    succeeded = rig.value("layerwatch_last_success_timestamp_seconds", registry="reg")
    world.hide()
    rig.clock.advance(60)
    sentence = rig.look()
    assert sentence.startswith("registry reg: not listed: not_found: ")
    assert rig.watcher.last_error is not None
    assert rig.value("layerwatch_registry_up", registry="reg") == 0
    assert rig.value("layerwatch_registry_failures_total", registry="reg", reason="not_found") == 1
    assert rig.value("layerwatch_last_success_timestamp_seconds", registry="reg") == succeeded
    assert rig.version("m", "v1").gone_at is None
    assert pointed(rig) == {"m@latest": "v1"}
    assert firing(rig) == [("m", RuleGroup.WEIGHTS)]


def empty(world: DirectoryWorld) -> None:
    """Leave the folder that an unmounted volume leaves."""
    world.hide()
    world.root.mkdir()


def test_a_registry_that_is_empty_all_at_once_is_taken_for_not_mounted_and_believed_after_ten_minutes(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2", with_nan(network()))
    rig.cycle()
    empty(world)
    assert rig.look() == (
        "registry reg: not listed: empty: the directory is empty although it held 2 versions: is it mounted?"
    )
    assert rig.value("layerwatch_registry_up", registry="reg") == 0
    assert rig.value("layerwatch_registry_failures_total", registry="reg", reason="empty") == 1
    rig.clock.advance(599)
    rig.look(rehash=True)
    assert rig.version("m", "v2").gone_at is None
    assert pointed(rig) == {"m@latest": "v2"}
    assert firing(rig) == [("m", RuleGroup.WEIGHTS)]
    rig.clock.advance(1)
    assert rig.look() == "registry reg: 0 versions listed, 0 queued, 2 gone"
    assert rig.value("layerwatch_registry_up", registry="reg") == 1
    assert (pointed(rig), firing(rig)) == ({}, [])
    assert rig.look() == "registry reg: 0 versions listed, 0 queued, 0 gone"


def test_a_volume_that_is_mounted_again_begins_a_new_wait_when_it_vanishes_again(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    elsewhere = world.root.with_name("elsewhere")
    for _ in range(3):
        empty(world)
        assert "is it mounted?" in rig.look()
        world.root.rmdir()
        elsewhere.rename(world.root)
        rig.clock.advance(400)
        assert rig.look() == "registry reg: 1 versions listed, 0 queued, 0 gone"
        assert rig.watcher.last_error is None
    assert len(rig.executor.scanned) == 1


def test_a_registry_that_never_held_anything_may_be_empty(rig: Rig) -> None:
    assert rig.look() == "registry reg: 0 versions listed, 0 queued, 0 gone"
    assert rig.value("layerwatch_registry_up", registry="reg") == 1


def test_a_registry_that_was_never_listed_is_not_ready(rig: Rig, world: DirectoryWorld) -> None:
    world.hide()
    rig.look()
    assert not rig.watcher.listed_once
    world.root.mkdir()
    rig.look()
    assert rig.watcher.listed_once
    assert rig.watcher.last_error is None


def test_a_model_that_cannot_be_listed_is_not_taken_for_gone(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("a", "v1")
    world.publish("m", "v1", with_nan(network()))
    rig.cycle()
    queued = told(rig)
    with forbidden(world.root / "m"):
        rig.look()
        rig.watcher = rig.new_watcher()
        rig.look()
    assert rig.version("m", "v1").gone_at is None
    assert pointed(rig) == {"a@latest": "v1", "m@latest": "v1"}
    assert told(rig) == queued
    assert rig.value("layerwatch_registry_failures_total", registry="reg", reason="not_permitted") == 2


# Refs


def test_a_version_that_vanished_is_gone_and_the_ref_and_alert_follow(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2", with_nan(network()))
    rig.cycle()
    assert (pointed(rig), firing(rig)) == ({"m@latest": "v2"}, [("m", RuleGroup.WEIGHTS)])
    world.remove("m", "v2")
    assert rig.look() == "registry reg: 1 versions listed, 0 queued, 1 gone"
    assert rig.version("m", "v2").gone_at is not None
    assert (pointed(rig), firing(rig)) == ({"m@latest": "v1"}, [])
    assert rig.look() == "registry reg: 1 versions listed, 0 queued, 0 gone"


def test_a_version_that_comes_back_is_hashed_and_not_scanned_again(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.cycle()
    aside = world.root.parent / "aside"
    world.folder("m", "v1").rename(aside)
    rig.look()
    aside.rename(world.folder("m", "v1"))
    rig.cycle()
    record = rig.version("m", "v1")
    assert (record.gone_at, record.state, record.revision) == (None, VersionState.JUDGED, 1)
    assert len(rig.executor.scanned) == 1
    assert pointed(rig) == {"m@latest": "v1"}


def test_a_model_that_vanished_loses_its_refs(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.cycle()
    changes = rig.changes
    world.remove("m", "v1")
    rig.look()
    assert pointed(rig) == {}
    assert rig.changes == changes + 1


def test_refs_stay_where_they_were_when_a_verdict_comes_before_the_first_look(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    world.publish("m", "v2")
    rig.look()
    rig.watcher = rig.new_watcher()
    rig.drain()
    assert pointed(rig) == {"m@latest": "v1"}
    rig.look()
    assert pointed(rig) == {"m@latest": "v2"}


def test_a_restart_right_after_a_publication_does_not_move_refs_back(
    database: Database, tmp_path: Path, local_executor: LocalExecutor
) -> None:
    world = DirectoryWorld(tmp_path, marker=None)
    rig = Rig(database, world, local_executor)
    world.publish("m", "v1")
    world.publish("m", "v2", with_nan(network()))
    rig.cycle()
    queued = told(rig)
    rig.clock.now = datetime.now(UTC)  # both are fresh at this moment
    rig.registry._registry = DirectoryRegistry(world.settings())
    rig.watcher = rig.new_watcher()
    assert rig.look() == "registry reg: 2 versions listed, 0 queued, 0 gone"
    assert pointed(rig) == {"m@latest": "v2"}
    assert told(rig) == queued


def test_refs_that_could_not_be_followed_are_followed_by_the_next_look(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    world.publish("m", "v2")
    rig.cycle(0)
    world.remove("m", "v2")

    broken = AlertPolicy(Severity.CRITICAL, None)

    def policy_that_fails() -> AlertPolicy:
        raise StoreError(StoreReason.DISK_FULL, "no space")

    rig.watcher._policy = policy_that_fails
    with pytest.raises(StoreError):
        rig.look()
    assert pointed(rig) == {"m@latest": "v2"}
    rig.watcher._policy = lambda: broken
    rig.look()
    assert pointed(rig) == {"m@latest": "v1"}


def test_accepting_a_version_ends_its_alert_at_the_next_look(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", with_nan(network()))
    rig.cycle()
    with rig.database.write() as connection:
        baselines.accept(connection, "reg", "m", "v1", "ann", "meant", rig.clock())
    rig.look()
    assert firing(rig) == []


def test_a_change_of_what_fires_reaches_versions_that_were_judged_before(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", with_nan(network()))
    rig.rules = rig.rules.model_validate({"non_finite": {"severity": "warning"}})
    rig.cycle()
    assert firing(rig) == []
    rig.policy = AlertPolicy(Severity.WARNING, None)
    rig.look()
    assert firing(rig) == []
    rig.watcher.follow_again()
    rig.look()
    assert firing(rig) == [("m", RuleGroup.WEIGHTS)]


def test_a_look_that_finds_nothing_new_writes_nothing(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.cycle()
    rig.look()
    with rig.database.write():  # any write transaction of the look would wait for this one, and fail
        done = threading.Thread(target=rig.look, daemon=True)
        done.start()
        done.join(10)
        assert not done.is_alive()


# Leaving


def test_a_retired_watcher_changes_nothing_more(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    rig.cycle()
    listing_of = rig.registry.listing

    def retired_meanwhile(now: datetime, everything: bool = True) -> Listing:
        world.remove("m", "v1")
        world.publish("m", "v2")
        rig.watcher.retire()
        return listing_of(now)

    rig.registry.listing = retired_meanwhile  # type: ignore[method-assign]
    assert rig.look() == "registry reg: no longer watched"
    assert rig.version("m", "v1").gone_at is None
    assert pointed(rig) == {"m@latest": "v1"}
    assert rig.work == 1


def test_a_registry_that_is_forgotten_leaves_no_ref_and_no_alert(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", with_nan(network()))
    world.publish("n", "v1")
    rig.look()
    rig.pipeline.process_next()
    with rig.database.write() as connection:
        assert known_registries(connection) == {"reg"}
        assert forget_registry(connection, "reg", POLICY, rig.clock())
        assert known_registries(connection) == set()
        assert not forget_registry(connection, "reg", POLICY, rig.clock())
    assert (pointed(rig), firing(rig)) == ({}, [])
    assert rig.drain() == []


def test_every_counter_of_a_registry_exists_from_the_start_and_goes_with_it(rig: Rig) -> None:
    assert rig.value("layerwatch_registry_failures_total", registry="reg", reason="io_error") == 0
    rig.telemetry.forget_registry("reg")
    assert b'registry="reg"' not in generate_latest(rig.metrics)

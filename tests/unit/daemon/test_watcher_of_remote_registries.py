"""What the watcher does with registries that list changes only, fail, or ask to be left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from layerwatch.alerts.model import AlertPhase
from layerwatch.daemon.fingerprints import is_stand_in
from layerwatch.daemon.manners import MISCONFIGURED_WAIT, Manners
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundRef,
    FoundVersion,
    Listing,
    Progress,
    RegistryReason,
    RegistryUnavailable,
    VerdictNote,
    VerdictWriter,
    no_progress,
)
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.store import alerts, refs
from layerwatch.daemon.store import versions as store_versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.watcher import Watcher
from layerwatch.metrics.findings import RuleGroup, Verdict
from layerwatch.metrics.manifest import Manifest, build_manifest
from layerwatch.metrics.relation import Relation
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld

POLL = timedelta(minutes=2)


@dataclass
class ListedRegistry:
    """A registry whose listings are written down by the test; its files are real.

    Attributes:
        listings: what the next looks find; the last one again and again. An error is raised.
        asked: whether each look asked for everything.
        unreadable: locations whose files cannot be fetched now; broken: what hashing them raises.
        hashed: (location, whether anew), in order.
        notes: verdicts that were written, by location; refuse, refuse_for: what writing them raises.
    """

    folder: Path
    listings: list[Listing | RegistryUnavailable] = field(default_factory=list)
    asked: list[bool] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    hashed: list[tuple[str, bool]] = field(default_factory=list)
    recalled: Mapping[str, str] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)
    notes: dict[str, VerdictNote] = field(default_factory=dict)
    refuse_for: dict[str, RegistryUnavailable] = field(default_factory=dict)
    refuse: RegistryUnavailable | None = None
    name: str = "reg"

    def version(self, model: str, version: str, seed: int = 0, token: str = "t1") -> FoundVersion:
        location = f"{model}/{version}"
        file = self.folder / location / "model.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(file, network(seed))
        return FoundVersion(model, version, location, version, token)

    @property
    def verdict_writer(self) -> VerdictWriter | None:
        return self._write

    def _write(self, location: str, note: VerdictNote) -> None:
        refused = self.refuse or self.refuse_for.get(location)
        if refused is not None:
            raise refused
        self.notes[location] = note

    def recall(self, published: Mapping[str, str]) -> None:
        self.recalled = published

    def listing(self, now: datetime, everything: bool = True) -> Listing:
        self.asked.append(everything)
        found = self.listings.pop(0) if len(self.listings) > 1 else self.listings[0]
        if isinstance(found, RegistryUnavailable):
            raise found
        return found

    def manifest(self, found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        self.hashed.append((found.location, anew))
        if found.location in self.broken:
            raise self.broken[found.location]
        with self.open(found.location) as path:
            return build_manifest(path)

    def lineage(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        return (DeclaredLineage("v1", Relation.FINETUNED, "tag"), DeclaredLineage("v0", None, "card"))

    def token(self, location: str) -> str | None:
        return "t1"

    @contextmanager
    def open(self, location: str, progress: Progress = no_progress) -> Iterator[Path]:
        if location in self.unreadable:
            raise RegistryUnavailable(RegistryReason.UNREACHABLE, "nobody answers")
        yield self.folder / location


@pytest.fixture
def listed(tmp_path: Path) -> ListedRegistry:
    return ListedRegistry(tmp_path / "listed")


@pytest.fixture
def remote(
    database: Database, world: DirectoryWorld, local_executor: LocalExecutor, listed: ListedRegistry
) -> Rig:
    """A rig whose watcher treats its registry as one behind a network."""
    rig = Rig(database, world, local_executor)
    rig.registries["reg"] = listed
    rig.watcher = watcher_of(rig, listed)
    return rig


def watcher_of(rig: Rig, registry: ListedRegistry, **manners: object) -> Watcher:
    return Watcher(
        registry,
        rig.database,
        policy=lambda: rig.policy,
        telemetry=rig.telemetry,
        clock=rig.clock,
        alive=lambda: None,
        found_work=lambda: None,
        changed=lambda: None,
        manners=Manners(poll=POLL, parallel=4, **manners),  # type: ignore[arg-type]
    )


def changes(*versions: FoundVersion, refs: tuple[FoundRef, ...] = ()) -> Listing:
    return Listing(versions, refs, complete=False)


# Listings of changes


def test_the_first_look_asks_for_everything_later_ones_for_changes_and_a_reconcile_for_everything(
    remote: Rig, listed: ListedRegistry
) -> None:
    listed.listings = [Listing((), ())]
    remote.look()
    remote.look()
    remote.look(rehash=True)
    assert listed.asked == [True, False, True]


def test_a_look_that_failed_leaves_the_next_one_to_ask_for_everything(
    remote: Rig, listed: ListedRegistry
) -> None:
    listed.listings = [RegistryUnavailable(RegistryReason.UNREACHABLE, "down"), Listing((), ())]
    remote.look()
    remote.clock.advance(3600)
    remote.look()
    assert listed.asked == [True, True]


def test_what_a_listing_of_changes_does_not_name_is_still_there(remote: Rig, listed: ListedRegistry) -> None:
    one, two = listed.version("m", "v1", 1), listed.version("m", "v2", 2)
    listed.listings = [Listing((one,), ()), changes(two)]
    remote.look()
    assert remote.look() == "registry reg: 1 versions listed, 1 queued, 0 gone"
    assert remote.version("m", "v1").gone_at is None


def test_what_a_complete_listing_knows_to_be_there_still_is_not_gone(
    remote: Rig, listed: ListedRegistry
) -> None:
    one, two = listed.version("m", "v1", 1), listed.version("m", "v2", 2)
    listed.listings = [Listing((one, two), ()), Listing((), (), still_there=frozenset({"m/v1"}))]
    remote.look()
    assert remote.look(rehash=True) == "registry reg: 0 versions listed, 0 queued, 1 gone"
    assert remote.version("m", "v1").gone_at is None
    assert remote.version("m", "v2").gone_at is not None


def test_a_version_that_could_not_be_fetched_is_tried_again_though_no_listing_names_it_again(
    remote: Rig, listed: ListedRegistry
) -> None:
    one = listed.version("m", "v1")
    listed.unreadable = {"m/v1"}
    listed.listings = [changes(one), changes()]
    assert remote.look() == "registry reg: 1 versions listed, 0 queued, 0 gone"
    remote.look()
    assert len(listed.hashed) == 1
    remote.clock.advance(POLL.total_seconds())
    remote.look()
    listed.unreadable = set()
    remote.clock.advance(2 * POLL.total_seconds())
    remote.look()
    assert not is_stand_in(remote.version("m", "v1").fingerprint)
    assert remote.value("layerwatch_registry_failures_total", registry="reg", reason="unreachable") == 2


def test_a_version_that_can_never_be_fetched_becomes_undecided_and_is_tried_on(
    remote: Rig, listed: ListedRegistry
) -> None:
    one = listed.version("m", "v1")
    listed.unreadable = {"m/v1"}
    listed.listings = [
        changes(one, refs=(FoundRef("m", "champion", "v1"),)),
        changes(refs=(FoundRef("m", "champion", "v1"),)),
    ]
    for _ in range(60):
        remote.look()
        remote.clock.advance(POLL.total_seconds())
        remote.drain()
    assert remote.version("m", "v1").verdict is Verdict.UNDECIDED
    with remote.database.read() as connection:
        firing = alerts.list_states(connection, phase=AlertPhase.FIRING)
    assert [(state.identity.ref, state.identity.group) for state in firing] == [
        ("champion", RuleGroup.EXAMINATION)
    ]
    assert len(listed.hashed) < 10
    listed.unreadable = set()
    remote.clock.advance(3600)
    remote.look()
    remote.drain()
    assert remote.version("m", "v1").verdict is Verdict.PASS


def test_a_version_that_only_a_person_can_make_readable_is_undecided_at_once(
    remote: Rig, listed: ListedRegistry
) -> None:
    listed.listings = [changes(listed.version("m", "v1"))]
    listed.broken["m/v1"] = RegistryUnavailable(RegistryReason.NOT_PERMITTED, "403: ask for access")
    remote.look()
    assert is_stand_in(remote.version("m", "v1").fingerprint)


def test_an_unexpected_error_about_one_version_leaves_the_others_alone(
    remote: Rig, listed: ListedRegistry
) -> None:
    versions = [listed.version("m", f"v{number}", number) for number in range(3)]
    listed.broken["m/v1"] = ValueError("nobody thought of this")
    listed.listings = [Listing(tuple(versions), (FoundRef("m", "champion", "v2"),))]
    assert remote.look() == "registry reg: 3 versions listed, 3 queued, 0 gone"
    assert remote.watcher.listed_once
    lost = [is_stand_in(remote.version("m", f"v{number}").fingerprint) for number in range(3)]
    assert lost == [False, True, False]
    assert remote.value("layerwatch_registry_failures_total", registry="reg", reason="bad_response") == 1


def test_a_look_that_ended_in_the_middle_is_followed_by_one_that_asks_for_everything(
    remote: Rig, listed: ListedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = listed.version("m", "v1", 1), listed.version("m", "v2", 2)
    listed.listings = [Listing((one,), ()), changes(two), Listing((one, two), ())]
    remote.look()
    with monkeypatch.context() as patch:
        patch.setattr(store_versions, "known", _busy)
        with pytest.raises(StoreError):
            remote.look()
    remote.look()
    assert listed.asked == [True, False, True]
    assert remote.version("m", "v2").fingerprint


def _busy(*_: object) -> None:
    raise StoreError(StoreReason.BUSY, "another writer stays")


def test_a_rollback_does_not_wait_until_new_versions_are_fetched(remote: Rig, listed: ListedRegistry) -> None:
    good, bad = listed.version("m", "v1", 1), listed.version("m", "v2", 2)
    listed.listings = [
        Listing((good, bad), (FoundRef("m", "champion", "v2"),)),
        changes(listed.version("n", "v1", 3), refs=(FoundRef("m", "champion", "v1"),)),
    ]
    remote.look()
    remote.drain()
    hash_it = listed.manifest
    pointed: list[str] = []

    def slow(found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        with remote.database.read() as connection:
            (ref,) = refs.list_refs(connection, "reg", "m")
            record = store_versions.get(connection, ref.version_id)
            assert record is not None
            pointed.append(record.key.version)
        return hash_it(found, anew, progress)

    listed.manifest = slow  # type: ignore[method-assign]
    remote.look()
    assert pointed == ["v1"]


def test_a_look_has_an_end_also_when_there_is_much_to_fetch(remote: Rig, listed: ListedRegistry) -> None:
    versions = tuple(listed.version("m", f"v{number}", number) for number in range(6))
    listed.listings = [Listing(versions, ()), changes()]
    remote.watcher = watcher_of(remote, listed)
    hash_it = listed.manifest

    def slow(found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        remote.clock.advance(100)
        return hash_it(found, anew, progress)

    listed.manifest = slow  # type: ignore[method-assign]
    remote.look()
    assert len(listed.hashed) < 6
    for _ in range(6):
        remote.look()
    assert sorted({location for location, _ in listed.hashed}) == [one.location for one in versions]


def test_after_its_end_nothing_more_is_fetched(remote: Rig, listed: ListedRegistry) -> None:
    versions = tuple(listed.version("m", f"v{number}", number) for number in range(20))
    listed.listings = [Listing(versions, ())]
    hash_it = listed.manifest

    def ended(found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        remote.watcher.retire()
        return hash_it(found, anew, progress)

    listed.manifest = ended  # type: ignore[method-assign]
    assert remote.look() == "registry reg: no longer watched"
    assert len(listed.hashed) <= 4


def test_versions_are_judged_by_the_most_reliable_declaration(remote: Rig, listed: ListedRegistry) -> None:
    listed.listings = [Listing((listed.version("m", "v2"),), ())]
    remote.look()
    lineage = remote.version("m", "v2").lineage
    assert (lineage.parent, lineage.relation, lineage.source) == ("v1", "finetuned", "tag")


def test_a_restart_recalls_what_was_there(remote: Rig, listed: ListedRegistry) -> None:
    listed.listings = [Listing((listed.version("m", "v1"), listed.version("n", "v1")), ())]
    remote.look()
    again = watcher_of(remote, listed)
    again.look()
    assert listed.recalled == {"m/v1": "t1", "n/v1": "t1"}


def test_a_registry_that_holds_nothing_of_what_is_watched_is_told_once(
    remote: Rig, listed: ListedRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    listed.listings = [Listing((), ())]
    remote.look()
    remote.watcher.look(rehash=True)
    told = [one for one in caplog.messages if "holds no version of what is watched" in one]
    assert len(told) == 1


# Failures


def failures(remote: Rig, listed: ListedRegistry, seconds: float) -> int:
    """How often the registry is asked within a time, with a look every two minutes."""
    before = len(listed.asked)
    for _ in range(int(seconds / 120)):
        remote.clock.advance(120)
        remote.look()
    return len(listed.asked) - before


def test_a_server_that_is_down_is_asked_less_often_the_longer_it_is_and_at_least_every_ten_minutes(
    remote: Rig, listed: ListedRegistry
) -> None:
    listed.listings = [RegistryUnavailable(RegistryReason.UNREACHABLE, "connection refused")]
    remote.look()
    first_hour, second_hour = failures(remote, listed, 3600), failures(remote, listed, 3600)
    assert 6 <= second_hour <= first_hour < 30
    assert remote.value("layerwatch_registry_misconfigured", registry="reg") == 0


def test_a_server_that_is_back_is_asked_at_every_poll_again(remote: Rig, listed: ListedRegistry) -> None:
    down = RegistryUnavailable(RegistryReason.UNREACHABLE, "connection refused")
    listed.listings = [down, down, down, down, Listing((), ())]
    failures(remote, listed, 3600)
    assert remote.value("layerwatch_registry_up", registry="reg") == 1
    assert failures(remote, listed, 600) == 5


def test_a_registry_that_only_a_person_can_mend_is_left_alone_until_somebody_asks(
    remote: Rig, listed: ListedRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    listed.listings = [RegistryUnavailable(RegistryReason.NOT_PERMITTED, "401: check the token")]
    remote.look()
    assert remote.value("layerwatch_registry_misconfigured", registry="reg") == 1
    assert "registry reg is misconfigured: not_permitted: 401: check the token" in caplog.text
    assert failures(remote, listed, MISCONFIGURED_WAIT.total_seconds() - 180) == 0
    remote.watcher.look(hinted=True)
    assert len(listed.asked) == 2
    remote.watcher.ask_again()
    remote.look()
    assert len(listed.asked) == 3


def test_a_server_that_says_when_to_come_back_is_not_asked_before(
    remote: Rig, listed: ListedRegistry
) -> None:
    busy = RegistryUnavailable(RegistryReason.RATE_LIMITED, "429", retry_after=timedelta(minutes=20))
    listed.listings = [busy, Listing((), ())]
    remote.look()
    assert failures(remote, listed, 19 * 60) == 0
    assert failures(remote, listed, 240) >= 1


# Hashing again


def test_within_the_time_of_rehash_every_version_is_hashed_once_a_part_at_each_reconcile(
    remote: Rig, listed: ListedRegistry
) -> None:
    versions = tuple(listed.version("m", f"v{number}", number) for number in range(40))
    listed.listings = [Listing(versions, ())]
    remote.watcher = watcher_of(remote, listed, reconcile=timedelta(hours=6), rehash=timedelta(hours=60))
    remote.look()
    listed.hashed.clear()
    counts = []
    for _ in range(10):
        before = len(listed.hashed)
        remote.watcher.look(rehash=True)
        counts.append(len(listed.hashed) - before)
        remote.clock.advance(6 * 3600)
    assert sorted(location for location, _ in listed.hashed) == sorted(one.location for one in versions)
    assert all(anew for _, anew in listed.hashed)
    assert max(counts) < 20


def test_hashing_large_versions_again_leaves_each_look_time_for_new_ones(
    remote: Rig, listed: ListedRegistry
) -> None:
    versions = tuple(listed.version("m", f"v{number}", number) for number in range(3))
    listed.listings = [Listing(versions, ())]
    remote.watcher = watcher_of(remote, listed, rehash=timedelta(hours=6))
    remote.look()
    listed.hashed.clear()
    hash_it = listed.manifest

    def slow(found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        remote.clock.advance(600)
        return hash_it(found, anew, progress)

    listed.manifest = slow  # type: ignore[method-assign]
    remote.watcher.look(rehash=True)
    counts = [len(listed.hashed)]
    for _ in range(3):
        remote.look()
        counts.append(len(listed.hashed))
    assert counts == [1, 2, 3, 3]


def test_bytes_that_rotted_in_place_are_found_when_their_turn_comes(
    remote: Rig, listed: ListedRegistry
) -> None:
    listed.listings = [Listing((listed.version("m", "v1"),), ())]
    remote.look()
    remote.drain()
    write_safetensors(listed.folder / "m/v1/model.safetensors", finetuned(network()))
    remote.watcher = watcher_of(remote, listed, rehash=timedelta(hours=6))
    remote.watcher.look(rehash=True)
    assert remote.version("m", "v1").revision == 2


# Verdicts that are written back


def test_each_verdict_is_written_back_once(remote: Rig, listed: ListedRegistry) -> None:
    listed.listings = [Listing((listed.version("m", "v1"),), ())]
    remote.look()
    assert remote.watcher.write_verdicts() == "registry reg: 0 verdicts written"
    remote.drain()
    assert remote.watcher.write_verdicts() == "registry reg: 1 verdicts written"
    record = remote.version("m", "v1")
    assert listed.notes == {"m/v1": VerdictNote("pass", record.fingerprint, "")}
    listed.notes.clear()
    assert watcher_of(remote, listed).write_verdicts() == "registry reg: 0 verdicts written"
    assert listed.notes == {}


def test_a_verdict_that_cannot_be_written_is_counted_and_tried_again_later(
    remote: Rig, listed: ListedRegistry
) -> None:
    listed.listings = [Listing((listed.version("m", "v1"),), ())]
    remote.look()
    remote.drain()
    listed.refuse = RegistryUnavailable(RegistryReason.SERVER_ERROR, "500")
    assert "cannot be written" in remote.watcher.write_verdicts()
    assert remote.value("layerwatch_verdict_write_failures_total", registry="reg", reason="server_error") == 1
    listed.refuse = None
    assert remote.watcher.write_verdicts() == "registry reg: no verdicts written"
    remote.clock.advance(POLL.total_seconds())
    assert remote.watcher.write_verdicts() == "registry reg: 1 verdicts written"
    assert listed.notes["m/v1"].verdict == "pass"


def test_one_verdict_that_is_refused_does_not_hold_up_the_others(remote: Rig, listed: ListedRegistry) -> None:
    versions = tuple(listed.version("m", f"v{number}", number) for number in range(4))
    listed.listings = [Listing(versions, ())]
    remote.look()
    remote.drain()
    listed.refuse_for["m/v2"] = RegistryUnavailable(RegistryReason.NOT_PERMITTED, "403")
    assert remote.watcher.write_verdicts() == "registry reg: 3 verdicts written, 1 refused"
    assert remote.watcher.write_verdicts() == "registry reg: 0 verdicts written"
    listed.refuse_for.clear()
    remote.clock.advance(MISCONFIGURED_WAIT.total_seconds())
    assert remote.watcher.write_verdicts() == "registry reg: 1 verdicts written"

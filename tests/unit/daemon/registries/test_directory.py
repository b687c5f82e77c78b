"""What is peculiar to directory trees: settling, links, odd entries, and rights."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layerwatch.daemon.registries.base import FoundRef, Listing, RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.directory.registry import DirectoryRegistry
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network
from layerwatch_testing.rights import forbidden
from layerwatch_testing.worlds.directory import DirectoryWorld


@pytest.fixture
def world(tmp_path: Path) -> DirectoryWorld:
    """A tree without markers: versions settle."""
    return DirectoryWorld(tmp_path, marker=None)


def names(listing: Listing) -> list[str]:
    return [found.version for found in listing.versions]


def refs(listing: Listing) -> dict[str, str]:
    return {found.ref: found.version for found in listing.refs}


def last_change(world: DirectoryWorld, version: str) -> datetime:
    folder = world.folder("m", version)
    return datetime.fromtimestamp(max(path.stat().st_ctime for path in [folder, *folder.iterdir()]), UTC)


# Completeness


def test_a_version_is_complete_once_nothing_changed_for_the_settle_time(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    changed = last_change(world, "v1")
    assert world.registry.listing(changed + timedelta(seconds=4.9)).unfinished == (("m", "v1"),)
    assert names(world.registry.listing(changed + timedelta(seconds=5.1))) == ["v1"]


def test_a_version_whose_times_lie_in_the_future_settles_by_what_was_seen(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    ahead = datetime.now(UTC) + timedelta(days=3)
    for path in world.folder("m", "v1").iterdir():
        os.utime(path, (ahead.timestamp(), ahead.timestamp()))
    first = datetime.now(UTC)
    assert names(world.registry.listing(first)) == []
    assert names(world.registry.listing(first + timedelta(seconds=4.9))) == []
    assert names(world.registry.listing(first + timedelta(seconds=5.1))) == ["v1"]


def test_the_first_sight_of_a_version_does_not_trust_a_file_server_whose_clock_is_behind(
    world: DirectoryWorld,
) -> None:
    world.publish("m", "v1")
    # Seen from a server that is 59 s behind, what changes this moment changed 59 s ago.
    moment = last_change(world, "v1") + timedelta(seconds=59)
    assert world.registry.listing(moment).unfinished == (("m", "v1"),)
    (world.folder("m", "v1") / "model.safetensors").chmod(0o600)
    moment += timedelta(seconds=1)
    assert world.registry.listing(moment).unfinished == (("m", "v1"),)
    assert names(world.registry.listing(moment + timedelta(seconds=5))) == ["v1"]


def test_a_version_that_is_minutes_old_at_the_first_look_is_complete_at_once(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    assert names(world.registry.listing(last_change(world, "v1") + timedelta(seconds=65.1))) == ["v1"]


def test_what_was_published_before_a_restart_is_complete_at_once_or_keeps_its_refs_when_it_changed(
    world: DirectoryWorld,
) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2")
    published = {found.location: found.token for found in world.look().versions}
    (world.folder("m", "v2") / "model.safetensors").chmod(0o600)
    restarted = DirectoryRegistry(world.settings())
    restarted.recall(published)
    moment = last_change(world, "v2")
    listing = restarted.listing(moment)
    assert (names(listing), listing.unfinished, refs(listing)) == (["v1"], (("m", "v2"),), {"latest": "v2"})
    assert names(restarted.listing(moment + timedelta(seconds=5.1))) == ["v1", "v2"]


def test_a_version_that_keeps_changing_does_not_settle(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    moment = datetime.now(UTC)
    for step in range(5):
        weights = world.folder("m", "v1") / "model.safetensors"
        ahead = (moment + timedelta(days=1, seconds=step)).timestamp()
        os.utime(weights, (ahead, ahead))
        assert names(world.registry.listing(moment + timedelta(seconds=4 * step))) == []


def test_old_time_stamps_do_not_make_a_fresh_copy_complete(world: DirectoryWorld) -> None:
    # cp -p and rsync -t set the modification time back; the change time is the file system's own.
    world.publish("m", "v1")
    for path in world.folder("m", "v1").iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert names(world.registry.listing(last_change(world, "v1") + timedelta(seconds=1))) == []


def test_with_a_marker_a_version_is_complete_at_once_and_never_without(tmp_path: Path) -> None:
    world = DirectoryWorld(tmp_path, marker="DONE")
    world.publish("m", "v1")
    world.begin("m", "v2")
    assert names(world.registry.listing(datetime.now(UTC))) == ["v1"]
    assert names(world.registry.listing(datetime.now(UTC) + timedelta(days=30))) == ["v1"]
    (world.folder("m", "v2") / "DONE").touch()
    assert names(world.registry.listing(datetime.now(UTC))) == ["v1", "v2"]


def test_a_folder_without_weights_is_no_version_yet(world: DirectoryWorld) -> None:
    folder = world.folder("m", "v1")
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("soon")
    assert (world.look().versions, world.look().unfinished) == ((), ())


def test_a_folder_that_settled_without_weights_is_told(world: DirectoryWorld) -> None:
    folder = world.folder("m", "v1")
    folder.mkdir(parents=True)
    (folder / "weights.pkl").write_bytes(b"?")
    changed = datetime.fromtimestamp(folder.stat().st_ctime, UTC)
    assert world.registry.listing(changed + timedelta(seconds=30)).remarks == ()
    listing = world.registry.listing(changed + timedelta(seconds=66))
    (remark,) = listing.remarks
    assert remark.startswith(f"{folder}: holds no weight file, so it is no version; ")
    assert ".safetensors" in remark
    assert (listing.versions, listing.unfinished) == ((), ())


def test_with_a_marker_a_folder_without_weights_is_told_once_the_marker_is_there(tmp_path: Path) -> None:
    world = DirectoryWorld(tmp_path, marker="DONE")
    folder = world.folder("m", "v1")
    folder.mkdir(parents=True)
    assert world.look().remarks == ()
    (folder / "DONE").touch()
    (remark,) = world.look().remarks
    assert remark.startswith(f"{folder}: holds no weight file")


def test_with_a_marker_a_single_file_is_told_to_need_a_folder(tmp_path: Path) -> None:
    world = DirectoryWorld(tmp_path, marker="DONE")
    (world.root / "m").mkdir()
    file = write_safetensors(world.root / "m" / "v1.safetensors", network())
    listing = world.look()
    assert listing.versions == ()
    assert listing.remarks == (
        f"{file}: a single file cannot hold the marker DONE, so it never counts as complete; "
        + "put it into a folder of its own",
    )


@pytest.mark.parametrize("name", [".v2", "v2.tmp", "v2.partial", "v2~"])
def test_names_of_preparation_are_invisible(world: DirectoryWorld, name: str) -> None:
    world.publish("m", "v1")
    world.folder("m", name).mkdir()
    write_safetensors(world.folder("m", name) / "model.safetensors", network())
    listing = world.look()
    assert (names(listing), listing.unfinished, listing.remarks) == (["v1"], (), ())


def test_a_version_that_is_touched_again_keeps_its_refs_and_does_not_count_as_gone(
    world: DirectoryWorld,
) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2")
    assert refs(world.look()) == {"latest": "v2"}
    (world.folder("m", "v2") / "model.safetensors").chmod(0o600)
    listing = world.registry.listing(last_change(world, "v2") + timedelta(seconds=1))
    assert names(listing) == ["v1"]
    assert listing.unfinished == (("m", "v2"),)
    assert refs(listing) == {"latest": "v2"}


def test_a_link_to_a_version_that_is_still_being_written_waits_for_it(tmp_path: Path) -> None:
    world = DirectoryWorld(tmp_path, marker="DONE")
    world.publish("m", "v1")
    world.begin("m", "v2")
    world.point("m", "champion", "v2")
    assert refs(world.look()) == {"latest": "v1", "champion": "v2"}


# What is a version


def test_a_single_weight_file_is_a_version_and_other_files_are_not(world: DirectoryWorld) -> None:
    (world.root / "m").mkdir()
    write_safetensors(world.root / "m" / "v1.safetensors", network())
    (world.root / "m" / "zz-notes.txt").write_text("not weights")
    (world.root / "m" / "README.md").write_text("not weights")
    os.mkfifo(world.root / "m" / "pipe.safetensors")
    listing = world.look()
    assert names(listing) == ["v1.safetensors"]
    (found,) = listing.versions
    assert found.lineage is None
    (entry,) = world.registry.manifest(found).entries
    assert entry.path == "v1.safetensors"


def test_shards_beside_the_versions_are_left_out_with_a_remark(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (world.root / "m" / name).write_bytes(b"{}")
    listing = world.look()
    assert names(listing) == ["v1"]
    assert len(listing.remarks) == 2
    assert "folder of their own" in listing.remarks[0]


def test_only_models_that_match_a_pattern_are_watched(world: DirectoryWorld) -> None:
    for model in ("fraud-a", "fraud-b", "other"):
        world.publish(model, "v1")
    registry = DirectoryRegistry(world.settings(models=("fraud-*",)))
    assert [found.model for found in registry.listing(world.later).versions] == ["fraud-a", "fraud-b"]


def test_refs_that_match_a_pattern_are_listed(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    world.point("m", "prod-eu", "v1")
    world.point("m", "prod-us", "v1")
    registry = DirectoryRegistry(world.settings(refs=("prod-*",)))
    assert refs(registry.listing(world.later)) == {"prod-eu": "v1", "prod-us": "v1"}


def test_files_in_the_root_are_ignored(world: DirectoryWorld) -> None:
    (world.root / "README.md").write_text("models live here")
    assert world.look() == Listing((), (), empty=True)


def test_a_tree_with_a_model_is_not_empty_although_it_holds_no_version(world: DirectoryWorld) -> None:
    (world.root / "m").mkdir()
    assert world.look() == Listing((), ())


def test_a_model_folder_that_is_a_link_is_left_out_with_a_remark(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    (world.root / "alias").symlink_to("m")
    listing = world.look()
    assert [found.model for found in listing.versions] == ["m"]
    assert listing.remarks == (
        f"{world.root / 'alias'}: a model's folder must not be a symbolic link; left out",
    )


def test_a_name_that_is_not_text_is_left_out_and_does_not_hide_the_others(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    Path(os.fsdecode(os.fsencode(world.root / "m") + b"/v\xff2")).mkdir()
    Path(os.fsdecode(os.fsencode(world.root) + b"/\xfe")).mkdir()
    listing = world.look()
    assert names(listing) == ["v1"]
    assert len(listing.remarks) == 2
    assert all("not UTF-8" in remark for remark in listing.remarks)


def test_a_circle_of_links_inside_a_version_does_not_stop_the_look(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2")
    loop = world.folder("m", "v2") / "loop.safetensors"
    loop.symlink_to("loop.safetensors")
    assert names(world.look()) == ["v1", "v2"]
    assert len(world.registry.manifest(world.found("m", "v2")).entries) == 1


def test_weights_that_are_links_to_the_outside_are_listed_and_refused_when_hashed(
    world: DirectoryWorld, tmp_path: Path
) -> None:
    outside = write_safetensors(tmp_path / "secret.safetensors", network())
    folder = world.folder("m", "v1")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(outside)
    found = world.found("m", "v1")
    with pytest.raises(UnreadableError, match="links that lead out of the directory"):
        world.registry.manifest(found)
    assert world.registry.token(found.location) == found.token


def test_a_link_to_foreign_weights_beside_the_weights_is_another_state_and_refused(
    world: DirectoryWorld, tmp_path: Path
) -> None:
    world.publish("m", "v1")
    before = world.found("m", "v1")
    outside = write_safetensors(tmp_path / "evil.safetensors", network())
    (world.folder("m", "v1") / "adapter_model.safetensors").symlink_to(outside)

    found = world.found("m", "v1")

    assert found.token != before.token
    with pytest.raises(UnreadableError, match=r"lead out of the directory.*\(adapter_model.safetensors\)"):
        world.registry.manifest(found)


# Order


def test_by_time_the_version_with_the_newest_contents_is_the_latest(world: DirectoryWorld) -> None:
    registry = DirectoryRegistry(world.settings(order="time"))
    for version, modified in [("zebra", 1_500_000_000), ("apple", 1_700_000_000), ("mango", 1_600_000_000)]:
        world.publish("m", version)
        os.utime(world.folder("m", version) / "model.safetensors", (modified, modified))
    listing = registry.listing(world.later)
    assert names(listing) == ["zebra", "mango", "apple"]
    assert refs(listing) == {"latest": "apple"}


def test_by_time_a_change_of_rights_does_not_make_an_old_version_the_latest(world: DirectoryWorld) -> None:
    registry = DirectoryRegistry(world.settings(order="time"))
    for version, modified in [("old", 1_500_000_000), ("new", 1_700_000_000)]:
        world.publish("m", version)
        os.utime(world.folder("m", version) / "model.safetensors", (modified, modified))
    (world.folder("m", "old") / "model.safetensors").chmod(0o600)
    assert names(registry.listing(world.later)) == ["old", "new"]


def test_long_numbers_compare_as_numbers(world: DirectoryWorld) -> None:
    for version in ("20260301120000", "999999999999", "20260228235959"):
        world.publish("m", version)
    assert names(world.look()) == ["999999999999", "20260228235959", "20260301120000"]


# Tokens


def test_the_token_sees_a_change_that_keeps_size_and_modification_time(world: DirectoryWorld) -> None:
    world.publish("m", "v1", network(1))
    weights = world.folder("m", "v1") / "model.safetensors"
    before, times = world.found("m", "v1").token, weights.stat()
    write_safetensors(weights, network(2))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights.stat().st_size == times.st_size
    assert world.found("m", "v1").token != before


def test_the_token_does_not_see_files_that_are_no_weights(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    before = world.found("m", "v1").token
    (world.folder("m", "v1") / "README.md").write_text("words")
    assert world.found("m", "v1").token == before


def test_the_token_sees_a_weight_file_that_is_added(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    before = world.found("m", "v1").token
    write_safetensors(world.folder("m", "v1") / "more.safetensors", finetuned(network()))
    assert world.found("m", "v1").token != before


# Refs as links


def test_a_link_called_latest_outranks_the_newest_version(world: DirectoryWorld) -> None:
    for version in ("v1", "v2", "v3"):
        world.publish("m", version)
    world.point("m", "latest", "v2")
    assert refs(world.look()) == {"latest": "v2"}


def test_links_may_be_absolute_and_lead_over_other_links(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    (world.root / "m" / "stable").symlink_to(world.root / "m" / "v1")
    (world.root / "m" / "champion").symlink_to("stable")
    assert refs(world.look()) == {"latest": "v1", "champion": "v1"}


def test_links_work_below_a_root_that_is_written_with_dots_or_reached_over_a_link(
    world: DirectoryWorld, tmp_path: Path
) -> None:
    world.publish("m", "v1")
    world.point("m", "champion", "v1")
    (tmp_path / "mounted").symlink_to(world.root)
    for root in (tmp_path / "models" / ".." / "models", tmp_path / "mounted"):
        registry = DirectoryRegistry(world.settings(path=root, refs=("champion",)))
        assert refs(registry.listing(world.later)) == {"champion": "v1"}


@pytest.mark.parametrize("target", ["../other/v9", "../../outside", "missing", "champion", "/etc", "."])
def test_a_link_that_does_not_lead_to_a_version_beside_it_is_left_out_with_a_remark(
    world: DirectoryWorld, tmp_path: Path, target: str
) -> None:
    world.publish("m", "v1")
    world.publish("other", "v9")
    (tmp_path / "outside").mkdir()
    (world.root / "m" / "champion").symlink_to(target)
    listing = world.look()
    assert [found for found in listing.refs if found.model == "m"] == [FoundRef("m", "latest", "v1")]
    assert listing.remarks == (
        f"{world.root / 'm' / 'champion'}: a ref must point at a version in the same folder; left out",
    )


# Lineage


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not json",
        b"[]",
        b'"v1"',
        b"{}",
        b'{"parent": 3}',
        b'{"parent": " "}',
        b'{"parent": "\\ud800"}',
        b'{"parent": "v1", "relation": "stolen"}',
        b'{"parent": "v1", "relation": ["quantized"]}',
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b'{"parent": "' + b"v" * 70_000 + b'"}',
        b'{"parent": 1' + b"0" * 5000 + b"}",
    ],
)
def test_a_bad_lineage_file_is_told_and_otherwise_as_if_it_were_not_there(
    world: DirectoryWorld, text: bytes
) -> None:
    world.publish("m", "v1", lineage=text)
    listing = world.look()
    assert [found.lineage for found in listing.versions] == [None]
    (remark,) = listing.remarks
    assert "not a lineage declaration" in remark
    assert len(remark) < 500


def test_a_lineage_file_that_is_a_pipe_or_a_folder_does_not_hold_the_look_up(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2")
    os.mkfifo(world.folder("m", "v1") / "lineage.json")
    (world.folder("m", "v2") / "lineage.json").mkdir()
    listing = world.look()
    assert [found.lineage for found in listing.versions] == [None, None]
    assert len(listing.remarks) == 2


def test_a_lineage_file_says_where_it_was_read(world: DirectoryWorld) -> None:
    world.publish("m", "v2", lineage=json.dumps({"parent": "v1"}).encode())
    lineage = world.found("m", "v2").lineage
    assert lineage is not None
    assert lineage.source == "lineage.json"


def test_an_unknown_key_in_a_lineage_file_is_told_and_the_parent_is_kept(world: DirectoryWorld) -> None:
    world.publish("m", "v2", lineage=b'{"parent": "v1", "relatoin": "quantized"}')
    listing = world.look()
    (found,) = listing.versions
    assert found.lineage is not None
    assert (found.lineage.parent, found.lineage.relation) == ("v1", None)
    assert any("'relatoin'" in remark for remark in listing.remarks)


# Trouble


def test_a_root_that_is_a_file_is_unavailable(tmp_path: Path, world: DirectoryWorld) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryUnavailable) as refused:
        DirectoryRegistry(world.settings(path=tmp_path / "file")).listing(world.later)
    assert refused.value.reason is RegistryReason.IO_ERROR


def test_a_root_that_may_not_be_read_is_unavailable(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    with forbidden(world.root), pytest.raises(RegistryUnavailable) as refused:
        world.look()
    assert refused.value.reason is RegistryReason.NOT_PERMITTED


def test_a_model_that_may_not_be_read_is_named_and_does_not_hide_the_others(world: DirectoryWorld) -> None:
    world.publish("a", "v1")
    world.publish("m", "v1")
    with forbidden(world.root / "m"):
        listing = world.look()
    assert [found.model for found in listing.versions] == ["a"]
    assert listing.unlisted == (("m", RegistryReason.NOT_PERMITTED),)
    (remark,) = listing.remarks
    assert remark.startswith(str(world.root / "m"))


def test_a_version_that_may_not_be_read_stays_listed_with_a_token_of_its_own(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    readable = world.found("m", "v1")
    with forbidden(world.folder("m", "v1")):
        found = world.found("m", "v1")
        assert found.token != readable.token
        with pytest.raises(UnreadableError) as refused:
            world.registry.manifest(found)
    assert refused.value.reason is UnreadableReason.IO_ERROR


# File servers


class FileServer:
    """Lets the file system fail below a path, as a file server does that lost track of it or broke down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._broken: tuple[Path, int] | None = None
        stat, scan, listed = Path.stat, os.scandir, os.listdir

        def checked(path: object) -> None:
            if self._broken is not None and isinstance(path, str | os.PathLike):
                place, number = self._broken
                if Path(path).is_relative_to(place):
                    raise OSError(number, os.strerror(number), str(path))

        def failing_stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
            checked(path)
            return stat(path, follow_symlinks=follow_symlinks)

        def failing_scan(path: str = ".") -> object:
            checked(path)
            return scan(path)

        def failing_list(path: str = ".") -> list[str]:
            checked(path)
            return listed(path)

        monkeypatch.setattr(Path, "stat", failing_stat)
        monkeypatch.setattr(os, "scandir", failing_scan)
        monkeypatch.setattr(os, "listdir", failing_list)

    def break_down(self, place: Path, number: int) -> None:
        """Everything at and below the place fails with this error from now on."""
        self._broken = (place, number)

    def recover(self) -> None:
        """Nothing fails any more."""
        self._broken = None


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_a_stale_handle_of_a_model_says_nothing_about_its_versions(
    world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    world.publish("m", "v1")
    world.publish("other", "v1")
    before = world.look()
    server = FileServer(monkeypatch)
    server.break_down(world.root / "m", number)
    with pytest.raises(RegistryUnavailable) as lost:
        world.registry.token(str(world.folder("m", "v1")))
    assert lost.value.reason is RegistryReason.IO_ERROR
    listing = world.look()
    assert [found.model for found in listing.versions] == ["other"]
    assert listing.unlisted == (("m", RegistryReason.IO_ERROR),)
    server.recover()
    # Nothing has to settle anew.
    assert world.registry.listing(datetime.now(UTC)) == before


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_a_stale_handle_of_a_version_keeps_it_from_being_taken_for_gone(
    world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2")
    before = world.look()
    server = FileServer(monkeypatch)
    server.break_down(world.folder("m", "v2"), number)
    listing = world.look()
    assert listing.unlisted == (("m", RegistryReason.IO_ERROR),)
    with pytest.raises(RegistryUnavailable) as lost:
        world.registry.manifest(before.versions[1])
    assert lost.value.reason is RegistryReason.IO_ERROR
    server.recover()
    assert world.look() == before


def test_a_stale_handle_of_the_root_is_a_failure_of_the_whole_look(
    world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("m", "v1")
    server = FileServer(monkeypatch)
    server.break_down(world.root, errno.ESTALE)
    with pytest.raises(RegistryUnavailable) as lost:
        world.look()
    assert lost.value.reason is RegistryReason.IO_ERROR


def test_files_that_a_client_keeps_under_another_name_after_their_deletion_are_invisible(
    world: DirectoryWorld,
) -> None:
    world.publish("m", "v1")
    world.publish("m", "v2")
    before = world.look()
    # NFS renames a file that is deleted while somebody reads it.
    left = world.folder("m", "v2") / "model.safetensors"
    left.rename(left.with_name(".nfs000000000012ab3400000001"))
    (world.root / "m" / ".nfs000000000012ab3400000002").write_bytes(b"x")
    (world.folder("m", "v1") / ".nfs000000000012ab3400000003").write_bytes(b"x")
    listing = world.look()
    assert names(listing) == ["v1"]
    assert refs(listing) == {"latest": "v1"}
    assert listing.versions == before.versions[:1]


def test_a_version_stays_complete_when_this_machines_clock_is_set_back(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    assert names(world.registry.listing(datetime.now(UTC) + timedelta(seconds=66))) == ["v1"]
    assert names(world.registry.listing(datetime.now(UTC) - timedelta(hours=1))) == ["v1"]


def test_times_of_files_that_go_backwards_are_a_change(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    before = world.found("m", "v1")
    (weights,) = world.folder("m", "v1").iterdir()
    os.utime(weights, (1_000_000_000, 1_000_000_000))
    assert world.registry.listing(datetime.now(UTC)).unfinished == (("m", "v1"),)
    assert world.found("m", "v1").token != before.token


def test_an_empty_folder_on_another_device_is_a_volume_that_is_not_mounted(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second device to write to")
    world = DirectoryWorld(tmp_path, marker=None)
    world.publish("m", "v1")
    before = world.look()
    volume = world.root.rename(world.root.with_name("volume"))
    with tempfile.TemporaryDirectory(dir=other) as empty:
        world.root.symlink_to(empty)
        with pytest.raises(RegistryUnavailable) as lost:
            world.look()
        assert lost.value.reason is RegistryReason.EMPTY
        assert "mount" in lost.value.detail
        world.root.unlink()
    volume.rename(world.root)
    assert world.look() == before


def test_a_folder_that_was_emptied_where_it_is_is_empty(world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    world.look()
    shutil.rmtree(world.root / "m")
    assert world.look().empty

"""Weight files and their fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from layerwatch.metrics import manifest as module
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.manifest import (
    WEIGHT_SUFFIXES,
    Manifest,
    ManifestEntry,
    build_manifest,
    require_no_linked_folders,
    weight_files,
)


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def relative(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in weight_files(root)]


@pytest.mark.parametrize("suffix", WEIGHT_SUFFIXES)
def test_every_weight_suffix_counts_in_any_case(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"model{suffix}")
    write(tmp_path / f"OTHER{suffix.upper()}")
    assert len(weight_files(tmp_path)) == 2


def test_only_weight_files_count_sorted_by_path(tmp_path: Path) -> None:
    for name in (
        "z.pt",
        "a/b.bin",
        "a.safetensors",
        "README.md",
        "config.json",
        ".hidden.pt",
        ".cache/x.pt",
        "tokenizer.json",
    ):
        write(tmp_path / name)
    assert relative(tmp_path) == ["a/b.bin", "a.safetensors", "z.pt"]


def test_the_hidden_metadata_of_a_distributed_checkpoint_counts_beside_its_files(tmp_path: Path) -> None:
    for name in (
        "m.pt",
        ".metadata",
        "step/.metadata",
        "step/__0_0.distcp",
        ".old/.metadata",
        ".old/__0_0.distcp",
    ):
        write(tmp_path / name)
    assert relative(tmp_path) == ["m.pt", "step/.metadata", "step/__0_0.distcp"]
    before = build_manifest(tmp_path).fingerprint
    write(tmp_path / "step" / ".metadata", b"other places")
    assert build_manifest(tmp_path).fingerprint != before
    (tmp_path / "step" / ".metadata").unlink()
    (tmp_path / "step" / ".metadata").symlink_to(tmp_path / ".old" / ".metadata")
    assert "step/.metadata" in relative(tmp_path)
    (tmp_path / "step" / ".metadata").unlink()
    (tmp_path / "step" / ".metadata").symlink_to("/etc/hostname")
    assert "step/.metadata" in refusal(tmp_path)


def test_a_file_is_its_own_weights_and_an_index_brings_its_shards(tmp_path: Path) -> None:
    file = write(tmp_path / "anything")
    assert weight_files(file) == (file,)
    shard = write(tmp_path / "s.safetensors")
    index = write(tmp_path / "m.safetensors.index.json", b'{"weight_map": {"a": "s.safetensors"}}')
    assert weight_files(index) == (index, shard)


def refusal(root: Path) -> str:
    with pytest.raises(UnreadableError) as caught:
        weight_files(root)
    assert caught.value.reason is UnreadableReason.NOT_FOUND
    return caught.value.detail


def test_weights_that_are_links_out_of_the_model_are_named_and_refused(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.pt")
    model = tmp_path / "model"
    write(model / "real.pt")
    (model / "inside.pt").symlink_to(model / "real.pt")
    assert relative(model) == ["inside.pt", "real.pt"]

    (model / "out.pt").symlink_to(outside)
    (model / "broken.BIN").symlink_to(tmp_path / "gone.bin")
    assert "lead out of the directory, which are not followed (broken.BIN, out.pt)" in refusal(model)
    (model / "inside.pt").unlink()
    (model / "real.pt").unlink()
    assert "(broken.BIN, out.pt)" in refusal(model)


def test_other_links_out_of_the_model_and_hidden_ones_do_not_matter(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write(model / "real.pt")
    outside = write(tmp_path / "outside.txt")
    (model / "config.json").symlink_to(outside)
    (model / ".hidden.pt").symlink_to(outside)
    (model / ".hidden").symlink_to(tmp_path)
    assert relative(model) == ["real.pt"]


def test_a_linked_folder_is_refused_where_foreign_weights_may_lie_below(tmp_path: Path) -> None:
    model, foreign = tmp_path / "model", tmp_path / "foreign"
    write(model / "parts" / "real.pt")
    (model / "again").symlink_to("parts")
    (model / "logs").symlink_to(foreign)
    write(foreign / "events.log")
    assert relative(model) == ["parts/real.pt"]

    weights = write(foreign / "deep" / "er" / "x.safetensors")
    assert "(logs)" in refusal(model)
    weights.unlink()
    (foreign / "deep" / "er" / "on").symlink_to(tmp_path)
    assert "(logs)" in refusal(model)
    (foreign / "deep" / "er" / "on").unlink()
    assert relative(model) == ["parts/real.pt"]
    for number in range(1000):
        (foreign / str(number)).touch()
    assert "(logs)" in refusal(model)


def test_folders_that_are_links_can_be_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "model" / "parts" / "real.pt")
    (tmp_path / "model" / ".cache").symlink_to("parts")
    (tmp_path / "link").symlink_to("model")
    require_no_linked_folders(tmp_path / "link")
    require_no_linked_folders(tmp_path / "link" / "parts" / "real.pt")
    (tmp_path / "model" / "parts" / "again").symlink_to("..")
    with pytest.raises(UnreadableError, match=r"lead to folders.*\(parts/again\)"):
        require_no_linked_folders(tmp_path / "model")


def test_the_links_of_a_hub_cache_are_followed_into_its_blobs_only(tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    blob = write(repository / "blobs" / "0123")
    snapshot = repository / "snapshots" / "abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert relative(snapshot) == ["model.safetensors"]
    (snapshot / "secret.pt").symlink_to(write(tmp_path / "secret.pt"))
    assert "(secret.pt)" in refusal(snapshot)


def test_the_manifest_holds_sizes_and_digests(tmp_path: Path) -> None:
    content = os.urandom(3 * module.BLOCK_BYTES + 17)
    write(tmp_path / "b" / "model.pt", content)
    write(tmp_path / "a.bin", b"")
    manifest = build_manifest(tmp_path)
    assert manifest.entries == (
        ManifestEntry("a.bin", 0, hashlib.sha256(b"").hexdigest()),
        ManifestEntry("b/model.pt", len(content), hashlib.sha256(content).hexdigest()),
    )
    assert manifest.size_bytes == len(content)


def test_the_fingerprint_is_the_digest_of_the_sorted_lines() -> None:
    first, second = ManifestEntry("a.pt", 1, "11"), ManifestEntry("b.pt", 2, "22")
    expected = hashlib.sha256(b"a.pt\x001\x0011\nb.pt\x002\x0022\n").hexdigest()
    assert Manifest((first, second)).fingerprint == expected
    assert Manifest((second, first)).fingerprint == expected


def test_the_fingerprint_depends_on_weights_alone(tmp_path: Path) -> None:
    write(tmp_path / "x" / "model.pt", b"weights")
    write(tmp_path / "y" / "model.pt", b"weights")
    write(tmp_path / "y" / "README.md", b"words")
    first = build_manifest(tmp_path / "x").fingerprint
    assert (
        first
        == build_manifest(tmp_path / "y").fingerprint
        == build_manifest(tmp_path / "x/model.pt").fingerprint
    )
    write(tmp_path / "y" / "model.pt", b"Weights")
    assert build_manifest(tmp_path / "y").fingerprint != first


def test_nothing_to_hash_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UnreadableError) as caught:
            build_manifest(path)
        assert caught.value.reason is UnreadableReason.NOT_FOUND


class Disturbed:
    """A digest that runs an action once, when the first block has been hashed."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._digest = hashlib.sha256()
        self._action: Callable[[], object] | None = action

    def update(self, block: bytes) -> None:
        self._digest.update(block)
        if self._action is not None:
            self._action()
            self._action = None

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"more")


def replace(path: Path) -> None:
    write(path.with_name("new"), path.read_bytes()).replace(path)


def overwrite_with_the_old_times(path: Path) -> None:
    times = path.stat()
    overwrite(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    # The clock of files ticks in milliseconds.
    while path.stat().st_ctime_ns == times.st_ctime_ns:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


DISTURBANCES: dict[str, Callable[[Path], object]] = {
    "appended to": append,
    "overwritten": overwrite,
    "overwritten, its times set back": overwrite_with_the_old_times,
    "replaced": replace,
    "removed": Path.unlink,
    "joined by another": lambda path: write(path.with_name("later.pt")),
}


@pytest.mark.parametrize("how", DISTURBANCES)
def test_a_file_that_changes_while_it_is_hashed_is_refused(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "model.pt", bytes(2 * module.BLOCK_BYTES))
    # An old date: file times tick in milliseconds, and the test writes twice within one.
    os.utime(path, (10**9, 10**9))
    digests = SimpleNamespace(sha256=lambda: Disturbed(lambda: DISTURBANCES[how](path)))
    monkeypatch.setattr(module, "hashlib", digests)
    with pytest.raises(UnreadableError) as caught:
        build_manifest(tmp_path)
    expected = UnreadableReason.NOT_FOUND if how == "removed" else UnreadableReason.CHANGED_WHILE_READING
    assert caught.value.reason is expected
    assert caught.value.transient

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
from layerwatch.metrics.manifest import WEIGHT_SUFFIXES, Manifest, ManifestEntry, build_manifest, weight_files


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


def test_a_file_is_its_own_weights_and_an_index_brings_its_shards(tmp_path: Path) -> None:
    file = write(tmp_path / "anything")
    assert weight_files(file) == (file,)
    shard = write(tmp_path / "s.safetensors")
    index = write(tmp_path / "m.safetensors.index.json", b'{"weight_map": {"a": "s.safetensors"}}')
    assert weight_files(index) == (index, shard)


def test_links_that_lead_out_are_left_out_and_told_when_nothing_else_is_there(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.pt")
    model = tmp_path / "model"
    write(model / "real.pt")
    (model / "inside.pt").symlink_to(model / "real.pt")
    (model / "out.pt").symlink_to(outside)
    (model / "broken.pt").symlink_to(tmp_path / "gone.pt")
    (model / "folder").symlink_to(tmp_path)
    assert relative(model) == ["inside.pt", "real.pt"]
    (model / "inside.pt").unlink()
    (model / "real.pt").unlink()
    with pytest.raises(UnreadableError, match="lead out") as caught:
        weight_files(model)
    assert caught.value.reason is UnreadableReason.NOT_FOUND


def test_the_links_of_a_hub_cache_are_followed_into_its_blobs_only(tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    blob = write(repository / "blobs" / "0123")
    snapshot = repository / "snapshots" / "abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blob)
    (snapshot / "secret.pt").symlink_to(write(tmp_path / "secret.pt"))
    assert relative(snapshot) == ["model.safetensors"]


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


DISTURBANCES: dict[str, Callable[[Path], object]] = {
    "appended to": append,
    "overwritten": overwrite,
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

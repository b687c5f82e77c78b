"""Publishing: whole versions or none."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layerwatch.config.registries import DirectoryRegistrySettings
from layerwatch.daemon.demo.errors import DemoError, DemoReason
from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.daemon.demo.publishing import publish
from layerwatch.daemon.demo.story import CNN, MLP, STORIES
from layerwatch.daemon.registries.directory.registry import DirectoryRegistry
from layerwatch.metrics.manifest import build_manifest

Versions = Mapping[tuple[str, str], PreparedVersion]

NOW = datetime(2025, 8, 1, 12, 0, tzinfo=UTC)


def registry(root: Path) -> DirectoryRegistry:
    return DirectoryRegistry(
        DirectoryRegistrySettings(name="demo", kind="directory", path=root, settle=timedelta(0))
    )


def made_up(folder: Path, size: int = 1000) -> PreparedVersion:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(size))
    (folder / "zz.json").write_text("{}")
    return PreparedVersion(MLP, "v2", STORIES[0].steps[1], 0.9, None, folder)


def test_the_registry_lists_every_published_version_with_its_lineage(
    versions: Versions, tmp_path: Path
) -> None:
    for one in versions.values():
        assert publish(one, tmp_path) == tmp_path / one.model / one.version
    listing = registry(tmp_path).listing(NOW)
    assert [(one.model, one.version) for one in listing.versions] == [
        *((CNN, f"v{number}") for number in range(1, 7)),
        *((MLP, f"v{number}") for number in range(1, 7)),
    ]
    for found in listing.versions:
        step = versions[found.model, found.version].step
        assert (found.lineage.parent if found.lineage else None) == step.parent
        assert (found.lineage.relation if found.lineage else None) == step.relation
    assert not listing.remarks


def test_published_bytes_are_the_prepared_bytes(versions: Versions, tmp_path: Path) -> None:
    one = versions[CNN, "v3"]
    final = publish(one, tmp_path)
    assert build_manifest(final).fingerprint == build_manifest(one.folder).fingerprint
    assert sorted(path.name for path in final.iterdir()) == [
        "accuracy.json",
        "lineage.json",
        "model.safetensors",
    ]


def test_an_interrupted_publication_is_invisible_and_can_be_repeated(tmp_path: Path) -> None:
    prepared = made_up(tmp_path / "staging")
    obstacle = prepared.folder / "model.zz"
    obstacle.mkdir()
    root = tmp_path / "models"
    with pytest.raises(DemoError, match="cannot be written") as caught:
        publish(prepared, root)
    assert caught.value.reason is DemoReason.CANNOT_WRITE
    assert not (root / MLP / "v2").exists()
    # The obstacle comes between the two files: half a version is there.
    assert [path.name for path in (root / MLP / ".v2.tmp").iterdir()] == ["model.safetensors"]
    listing = registry(root).listing(NOW)
    assert (listing.versions, listing.unfinished) == ((), ())
    obstacle.rmdir()
    final = publish(prepared, root)
    assert sorted(path.name for path in final.iterdir()) == ["model.safetensors", "zz.json"]
    assert not (root / MLP / ".v2.tmp").exists()


def test_a_version_is_complete_from_the_first_moment_its_name_exists(tmp_path: Path) -> None:
    prepared = made_up(tmp_path / "staging", size=2_000_000)
    root = tmp_path / "models"
    seen: list[dict[str, int]] = []
    done = threading.Event()
    names = [f"v{number}" for number in range(20)]

    def watch() -> None:
        waiting = list(names)
        while waiting:
            final = root / MLP / waiting[0]
            if final.exists():
                seen.append({path.name: path.stat().st_size for path in final.iterdir()})
                waiting.pop(0)
            elif done.is_set():
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for name in names:
            publish(replace(prepared, version=name), root)
    finally:
        done.set()
        watcher.join()
    assert seen == len(names) * [{"model.safetensors": 2_000_000, "zz.json": 2}]


def test_a_published_version_is_never_overwritten(tmp_path: Path) -> None:
    prepared = made_up(tmp_path / "staging")
    final = publish(prepared, tmp_path / "models")
    before = build_manifest(final).fingerprint
    (prepared.folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(DemoError, match="start with an empty registry") as caught:
        publish(prepared, tmp_path / "models")
    assert caught.value.reason is DemoReason.ALREADY_PUBLISHED
    assert build_manifest(final).fingerprint == before

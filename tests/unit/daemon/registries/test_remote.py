"""What all registries behind a network share: what they ask of their sources, and what they make of bad ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import repeat
from pathlib import Path

import pytest

from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundVersion,
    Listing,
    Progress,
    RegistryReason,
    RegistryUnavailable,
    no_progress,
)
from layerwatch.daemon.registries.downloads import Downloads, RemoteFile
from layerwatch.daemon.registries.remote import RemoteRegistry
from layerwatch.metrics.errors import TRANSIENT_REASONS, UnreadableError

FOUND = FoundVersion("a", "v1", "a/v1", "1", "t")


class EndlessSource:
    """Holds some files, and sends bytes without an end whatever it is asked for."""

    def __init__(self, *files: RemoteFile) -> None:
        self.held = files
        self.sent = 0
        self.asked: list[tuple[str, int, int | None]] = []

    def recall(self, published: Mapping[str, str]) -> None:
        """Nothing to remember."""

    def listing(self, now: datetime, everything: bool) -> Listing:
        return Listing((FOUND,), ())

    def token(self, location: str) -> str | None:
        return FOUND.token

    def files(self, location: str, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        progress()
        return self.held

    def stream(self, location: str, file: RemoteFile, begin: int, end: int | None = None) -> Iterator[bytes]:
        self.asked.append((file.path, begin, end))
        for block in repeat(bytes(1000)):
            self.sent += len(block)
            yield block

    def declared(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        return ()

    def resolve(self, model: str, reference: str | None) -> FoundVersion:
        return FOUND


def registry(source: EndlessSource, tmp_path: Path) -> RemoteRegistry:
    return RemoteRegistry("reg", source, Downloads(tmp_path / "downloads", 2**30, lambda _: None))


@pytest.mark.parametrize("path", ["lineage.json", "model.gguf"])
def test_a_declaration_that_has_no_end_is_left_at_once(tmp_path: Path, path: str) -> None:
    source = EndlessSource(RemoteFile(path, 10, "i"))
    with pytest.raises(RegistryUnavailable) as refused:
        registry(source, tmp_path).lineage(FOUND)
    assert refused.value.reason is RegistryReason.BAD_RESPONSE
    assert source.sent == 1000
    assert source.asked == [(path, 0, 10)]


def test_a_header_that_has_no_end_is_left_at_once(tmp_path: Path) -> None:
    source = EndlessSource(RemoteFile("model.safetensors", 100, "i"))
    with pytest.raises(RegistryUnavailable), registry(source, tmp_path).open(FOUND.location):
        pass
    assert source.sent == 1000


def test_weights_that_have_no_end_are_left_at_once_and_asked_for_to_their_end(tmp_path: Path) -> None:
    source = EndlessSource(RemoteFile("model.bin", 5000, "i"))
    with pytest.raises(UnreadableError, match="more bytes came"), registry(source, tmp_path).open("a/v1"):
        pass
    assert source.sent == 6000
    assert source.asked == [("model.bin", 0, 5000)]


def test_a_version_without_weights_is_unreadable_for_good_and_not_gone(tmp_path: Path) -> None:
    lacking = registry(EndlessSource(RemoteFile("config.json", 10, "i")), tmp_path)
    with pytest.raises(UnreadableError, match="holds no weight file") as hashed:
        lacking.manifest(FOUND)
    assert hashed.value.reason not in TRANSIENT_REASONS
    with pytest.raises(UnreadableError, match="holds no weight file"), lacking.open(FOUND.location):
        pass


def test_whoever_waits_for_a_manifest_is_told_of_the_listing_of_its_files(tmp_path: Path) -> None:
    signs: list[int] = []
    source = EndlessSource(RemoteFile("model.bin", 5000, "i", "0" * 64))
    registry(source, tmp_path).manifest(FOUND, progress=lambda: signs.append(1))
    assert signs == [1]
    assert source.sent == 0

"""What all registries behind a network share: their files are listed there, fetched when needed, and hashed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundVersion,
    Listing,
    Progress,
    RegistryReason,
    RegistryUnavailable,
    VerdictWriter,
    no_progress,
)
from layerwatch.daemon.registries.declarations import (
    DECLARATION_FILES,
    GGUF_SUFFIX,
    confidence_of,
    declared_in,
)
from layerwatch.daemon.registries.downloads import Downloads, RemoteFile
from layerwatch.daemon.registries.ggufheader import HEAD_BYTES
from layerwatch.daemon.registries.headers import require_sound_headers
from layerwatch.daemon.registries.pace import Deadline
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.manifest import (
    WEIGHT_SUFFIXES,
    Manifest,
    ManifestEntry,
    build_manifest,
    weight_names,
)

_BROUGHT_ALONG = frozenset({"config.json", "adapter_config.json", "quantize_config.json"})
"""Small files beside the weights that say how these are to be read."""

_SMALL = 4 * 2**20
_SMALL_TIMEOUT = timedelta(seconds=30)
"""Of a small file, or the head of a large one; four times as long it may take in all."""


class Source(Protocol):
    """What differs from one kind of remote registry to another. Safe to be used by several threads."""

    def recall(self, published: Mapping[str, str]) -> None:
        """As :meth:`Registry.recall`."""

    def listing(self, now: datetime, everything: bool) -> Listing:
        """As :meth:`Registry.listing`; ``FoundVersion.lineage`` is left out."""

    def token(self, location: str) -> str | None:
        """As :meth:`Registry.token`."""

    def files(self, location: str, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        """All files of a version, sorted by path.

        Args:
            progress: called again and again where this takes long.

        Raises:
            RegistryUnavailable: VERSION_GONE when the version is not there.
        """

    def stream(self, location: str, file: RemoteFile, begin: int, end: int | None = None) -> Iterator[bytes]:
        """Bytes ``begin`` to ``end`` of a file, by default to the last one that the registry lists.

        They come in blocks of at most a few MiB; an empty one tells that it goes on.

        Raises:
            RegistryUnavailable: at once, or when the connection breaks, or when bytes come too slowly.
        """

    def declared(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        """What the registry itself (its tags, its records) says of a version's origin."""

    def resolve(self, model: str, reference: str | None) -> FoundVersion:
        """The version that a person means by a model and a ref, an alias, a digest or a number; None: the newest.

        Raises:
            RegistryUnavailable: NOT_FOUND with what there is instead.
        """


class RemoteRegistry:
    """A registry behind a network.

    Args:
        name: from the configuration.
        source: what differs.
        downloads: where files are put.
        verdict_writer: takes verdicts, or None.
        place: the address of the registry, so that no other one is taken for it.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        downloads: Downloads,
        verdict_writer: VerdictWriter | None = None,
        place: str = "",
    ) -> None:
        self._name = name
        self.source = source
        self._downloads = downloads
        self._verdict_writer = verdict_writer
        self._place = f"{name} {place}"

    @property
    def name(self) -> str:
        """Name from the configuration."""
        return self._name

    @property
    def verdict_writer(self) -> VerdictWriter | None:
        """Takes verdicts where that is possible and configured, else None."""
        return self._verdict_writer

    def recall(self, published: Mapping[str, str]) -> None:
        """Before the first listing: location -> token of what an earlier process found complete."""
        self.source.recall(published)

    def listing(self, now: datetime, everything: bool = True) -> Listing:
        """Ask the registry what there is."""
        return self.source.listing(now, everything)

    def manifest(self, found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        """Digests as the registry promises them; where it promises none, the files are fetched and hashed."""
        weights = _weights(found.location, self.source.files(found.location, progress))
        if not anew and all(file.sha256 is not None for file in weights):
            return Manifest(
                tuple(ManifestEntry(file.path, file.size_bytes, file.sha256 or "") for file in weights)
            )
        with self._fetched(found.location, progress, anew) as path:
            return build_manifest(path)

    def lineage(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        """What the registry says and what files beside the weights say, the most reliable first."""
        files = {file.path: file for file in self.source.files(found.location)}
        texts = {
            name: self._small(found.location, files[name], files[name].size_bytes)
            for name in DECLARATION_FILES
            if name in files and files[name].size_bytes <= _SMALL
        }
        for name in sorted(name for name in files if name.lower().endswith(GGUF_SUFFIX))[:1]:
            end = min(HEAD_BYTES, files[name].size_bytes)
            texts[name] = self._small(found.location, files[name], end)
        declared = (*self.source.declared(found), *declared_in(texts))
        return tuple(sorted(declared, key=confidence_of, reverse=True))

    def token(self, location: str) -> str | None:
        """The current token of a version, or None when it is gone."""
        return self.source.token(location)

    @contextmanager
    def open(self, location: str, progress: Progress = no_progress) -> Iterator[Path]:
        """The files, fetched to the local disk unless they are there."""
        with self._fetched(location, progress, anew=False) as path:
            yield path

    @contextmanager
    def _fetched(self, location: str, progress: Progress, anew: bool) -> Iterator[Path]:
        files = self.source.files(location, progress)
        weights = _weights(location, files)
        beside = [file for file in files if file.path in _BROUGHT_ALONG and file.size_bytes <= _SMALL]

        def stream(file: RemoteFile, begin: int) -> Iterator[bytes]:
            return self.source.stream(location, file, begin, file.size_bytes)

        def some(file: RemoteFile, begin: int, end: int) -> bytes:
            blocks = _telling(self.source.stream(location, file, begin, end), progress)
            return _bounded(blocks, file, end - begin)

        needed = [*weights, *beside]
        if anew or not self._downloads.holds(location, needed, self._place):
            # A broken header is told after a few kilobytes, not after the whole file.
            require_sound_headers(weights, some)
        with self._downloads.fetched(location, needed, stream, progress, anew, self._place) as path:
            yield path

    def _small(self, location: str, file: RemoteFile, end: int) -> bytes:
        deadline = Deadline(f"{file.path} of {location}", _SMALL_TIMEOUT)
        return _bounded(deadline.kept(self.source.stream(location, file, 0, end)), file, end)


def is_weight(path: str) -> bool:
    """Whether a file of this path counts as weights: by its suffix, and no part of the path is hidden."""
    parts = path.split("/")
    return parts[-1].lower().endswith(WEIGHT_SUFFIXES) and not any(part.startswith(".") for part in parts)


def _weights(location: str, files: tuple[RemoteFile, ...]) -> list[RemoteFile]:
    folders: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if not any(part.startswith(".") for part in folder.split("/")):
            folders.setdefault(folder, set()).add(name)
    # By folders: the hidden .metadata of a distributed checkpoint counts beside its files.
    paths = {
        f"{folder}/{name}".lstrip("/") for folder, names in folders.items() for name in weight_names(names)
    }
    weights = [file for file in files if file.path in paths]
    if not weights:
        raise UnreadableError(
            UnreadableReason.NO_TENSORS,
            location,
            f"it holds no weight file; their names end in {', '.join(WEIGHT_SUFFIXES)}",
        )
    return weights


def _bounded(blocks: Iterator[bytes], file: RemoteFile, size: int) -> bytes:
    """The blocks as one, of at most so many bytes, whatever else comes."""
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > size:
            raise RegistryUnavailable(
                RegistryReason.BAD_RESPONSE,
                f"{file.path}: more came than the {size} bytes that were asked for",
            )
    return bytes(data)


def _telling(blocks: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for block in blocks:
        progress()
        yield block

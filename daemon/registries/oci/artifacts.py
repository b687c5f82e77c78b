"""Manifests and blobs of an OCI registry: what a digest names, and the files in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from layerwatch.daemon.registries.base import Progress, RegistryReason, RegistryUnavailable, no_progress
from layerwatch.daemon.registries.downloads import RemoteFile
from layerwatch.daemon.registries.oci.answers import NotThere
from layerwatch.daemon.registries.oci.layers import Layers, Member
from layerwatch.daemon.registries.oci.manifests import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Artifact,
    Index,
    Packing,
    is_digest,
    parse_manifest,
    plain_path,
)
from layerwatch.daemon.registries.oci.requests import Connection
from layerwatch.daemon.registries.remote import is_weight
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

CONFIG_BODY = 2**20
"""Larger configurations are not read."""

_MANIFEST_BODY = 4 * 2**20
_ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))
_REPOSITORY = re.compile(r"[a-zA-Z0-9]+(?:[._/-]+[a-zA-Z0-9]+)*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


class Artifacts:
    """Reads what a registry holds. Safe for several threads.

    Attributes:
        url: of the registry.
        host: of the registry, with its port.
    """

    def __init__(self, connection: Connection) -> None:
        self.url = connection.url
        self.host = connection.host
        self._connection = connection
        self._layers = Layers()

    def files(self, location: str, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        """Raw layers, and the members of archives that may hold weights (see ``layers.py`` for the cost)."""
        repository, _ = parts(location)
        artifact = self.artifact(location)
        files: dict[str, RemoteFile] = {}
        for layer in artifact.layers:
            blob = layer.blob
            if layer.packing is Packing.RAW:
                found = [
                    RemoteFile(
                        _sound(layer.path, location),
                        blob.size_bytes,
                        blob.digest,
                        blob.sha256,
                        f"raw {blob.digest}",
                    )
                ]
            else:
                found = [
                    RemoteFile(
                        member.path,
                        member.size_bytes,
                        f"{blob.digest}@{member.offset}",
                        member.sha256,
                        f"{layer.packing} {blob.digest} {member.offset} {blob.size_bytes}",
                    )
                    for member in self._members(
                        repository, layer.packing, blob.digest, blob.size_bytes, progress
                    )
                ]
            for file in found:
                if file.path in files and is_weight(file.path):
                    raise UnreadableError(
                        UnreadableReason.CORRUPT,
                        location,
                        f"it holds two files {file.path}: which of them is loaded depends on the reader",
                    )
                files.setdefault(file.path, file)
        return tuple(files[path] for path in sorted(files))

    def stream(self, location: str, file: RemoteFile, begin: int, end: int | None = None) -> Iterator[bytes]:
        """Ranges of raw layers and plain archives; compressed ones are unpacked on the way."""
        repository, _ = parts(location)
        packing, digest, *rest = file.address.split(" ")
        stop = file.size_bytes if end is None else end
        if packing == Packing.RAW:
            yield from self._blob(repository, digest, begin, stop)
            return
        offset, size_bytes = map(int, rest)

        def blob(first: int, last: int | None) -> Iterator[bytes]:
            return self._blob(repository, digest, first, size_bytes if last is None else last)

        yield from self._layers.stream(Packing(packing), digest, blob, offset + begin, offset + stop)

    def artifact(self, location: str) -> Artifact:
        """The manifest at a location; raises RegistryUnavailable (VERSION_GONE), UnreadableError."""
        repository, digest = parts(location)
        try:
            manifest = self.manifest(repository, digest)
        except NotThere as error:
            detail = f"{self.url}: {location} is no longer there"
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, detail) from error
        except ValueError as error:
            raise UnreadableError(
                UnreadableReason.CORRUPT, location, f"its manifest is not understood: {error}"
            ) from error
        if isinstance(manifest, Index):
            detail = "it is an index of manifests, not one of a model"
            raise UnreadableError(UnreadableReason.CORRUPT, location, detail)
        return manifest

    def manifest(self, repository: str, digest: str) -> Artifact | Index:
        """By digest; raises ValueError when it is not understood."""
        return parse_manifest(self.manifest_bytes(repository, digest)[1])

    def manifest_bytes(self, repository: str, reference: str) -> tuple[str, bytes]:
        """Digest and bytes of a manifest, checked against each other."""
        path = f"{repository}/manifests/{reference}"
        address = f"GET {self.url}/v2/{path}"
        try:
            body, headers = self._connection.small(path, repository, _MANIFEST_BODY, _ACCEPT)
        except NotThere as error:
            raise self.known_missing(error) from error
        promised = reference if is_digest(reference) else headers.get("Docker-Content-Digest", "")
        if not promised:  # which is allowed
            return f"sha256:{hashlib.sha256(body).hexdigest()}", body
        kind, _, value = promised.partition(":")
        if not is_digest(promised) or hashlib.new(kind, body).hexdigest() != value:
            detail = f"{address}: other bytes came than those of the digest {promised[:80]}"
            raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, detail)
        return promised, body

    def digest_of(self, repository: str, reference: str) -> str | None:
        """The digest behind a tag or a digest, or None when there is nothing."""
        path = f"{repository}/manifests/{reference}"
        asked = f"HEAD {self.url}/v2/{path}"
        try:
            _, headers = self._connection.small(path, repository, _MANIFEST_BODY, _ACCEPT, "HEAD")
        except NotThere:
            # A HEAD tells no reason: ask for one, so that a 404 of a proxy in between never counts as a deletion.
            try:
                return self.manifest_bytes(repository, reference)[0]
            except NotThere:
                return None
        digest = headers.get("Docker-Content-Digest")
        if digest is None:  # which is allowed
            return self.manifest_bytes(repository, reference)[0]
        if not is_digest(digest):
            raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, f"{asked}: its digest is none")
        return digest

    def known_missing(self, error: NotThere) -> RegistryUnavailable:
        """The error, where the registry itself says it; a 404 without its word may come from anything."""
        if error.code:
            return error
        detail = f"{error.detail} as no registry does: is {self.url} its address?"
        return RegistryUnavailable(RegistryReason.BAD_RESPONSE, detail)

    def _members(
        self, repository: str, packing: Packing, digest: str, size_bytes: int, progress: Progress
    ) -> tuple[Member, ...]:
        def blob(first: int, last: int | None) -> Iterator[bytes]:
            for piece in self._blob(repository, digest, first, size_bytes if last is None else last):
                progress()
                yield piece

        return self._layers.members(packing, digest, size_bytes, blob)

    def _blob(self, repository: str, digest: str, begin: int, end: int) -> Iterator[bytes]:
        try:
            yield from self._connection.stream(f"{repository}/blobs/{digest}", repository, begin, end)
        except NotThere as error:
            detail = f"{self.url}: {repository}: the layer {digest} is no longer there"
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, detail) from error

    def small_blob(self, repository: str, digest: str) -> bytes | None:
        """A configuration, or None when it is not there."""
        try:
            return self._connection.small(f"{repository}/blobs/{digest}", repository, CONFIG_BODY, "*/*")[0]
        except NotThere:
            return None


def parts(location: str) -> tuple[str, str]:
    """Repository and digest; raises RegistryUnavailable (VERSION_GONE) for what is no location."""
    repository, _, digest = location.rpartition("@")
    if not is_repository(repository) or not is_digest(digest):
        detail = f"{location!r} is no location of this kind of registry (repository@sha256:...)"
        raise RegistryUnavailable(RegistryReason.VERSION_GONE, detail)
    return repository, digest


def is_repository(name: str) -> bool:
    """Whether a text can be the name of a repository."""
    return (
        len(name) <= 255 and _REPOSITORY.fullmatch(name) is not None and "//" not in name and ".." not in name
    )


def is_tag(name: str) -> bool:
    """Whether a text can be a tag."""
    return _TAG.fullmatch(name) is not None


def _sound(path: str, location: str) -> str:
    try:
        return plain_path(path)
    except ValueError as error:
        raise UnreadableError(UnreadableReason.CORRUPT, location, str(error)) from error

"""Repositories of an OCI registry, pushed to as a publisher of raw weight layers would."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from layerwatch.config.registries import OciRegistrySettings
from layerwatch.daemon.registries.oci.registry import build
from layerwatch.daemon.registries.remote import RemoteRegistry
from layerwatch_testing.models import State
from layerwatch_testing.servers import shared
from layerwatch_testing.servers.oci import CREATED, USER, Blob, OciServer, digest_of, manifest_of
from layerwatch_testing.worlds.base import CHAMPION, SECRET, TINY, WEIGHTS, WRONG_SECRET, RemoteWorld

_numbers = itertools.count(1)
_seconds = itertools.count(1)
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class OciWorld(RemoteWorld):
    """Repositories below a name of their own; a label of a version is a tag too.

    Args:
        folder: for downloads.
        auth: whether the server asks for a password.
    """

    def __init__(self, folder: Path, auth: bool = False) -> None:
        password = SECRET if auth else ""
        self.server = shared(f"oci{'+auth' if auth else ''}", partial(OciServer, password=password))
        super().__init__(folder, self.server.url, auth)
        self.prefix = f"team-{os.getpid()}/world-{next(_numbers)}"
        self.registry = self.restarted()

    def model_name(self, model: str) -> str:
        """The repository."""
        return f"{self.prefix}/{model}"

    def settings(self, url: str, **other: object) -> OciRegistrySettings:
        """Settings of a registry over these repositories."""
        values: dict[str, object] = {
            "name": "reg",
            "kind": "oci",
            "url": url,
            "repositories": (f"{self.prefix}/*",),
            "refs": ("v*", "latest", CHAMPION),
        }
        if self.auth:
            values |= {"username": USER, "password": SECRET}
        return OciRegistrySettings.model_validate(values | other)

    def through(self, url: str, **settings: object) -> RemoteRegistry:
        """A registry that reaches the server at another address."""
        return build(self.settings(url, **settings), self.downloads)

    @property
    def wrong_credentials(self) -> Mapping[str, object]:
        """A password that the server does not know."""
        return {"username": USER, "password": WRONG_SECRET}

    def publish(
        self, model: str, version: str, state: State | None = None, lineage: bytes | None = None
    ) -> None:
        """Push an artifact, tag it with the label, and let ``latest`` point at it."""
        blobs = [Blob(self.weights(state), title=WEIGHTS)]
        if lineage is not None:
            blobs.append(Blob(lineage, "application/json", "lineage.json"))
        digest = self.server.push(self.model_name(model), version, blobs, _newer())
        self.server.tag(self.model_name(model), self.newest_ref, digest)
        self.note(model, version, digest)

    def publish_many(self, first: int, count: int) -> list[str]:
        """Repositories with two versions each: the catalogue has pages, the tags of this server have not."""
        weights, config = self.weights(TINY), b"{}"
        source = self.model_name("many-source")
        for data in (weights, config):
            self.server.blob(source, data)

        def publish(numbers: list[int]) -> list[str]:
            # One repository is written to by one thread: this server is not safe against more.
            model = f"many-{numbers[0] // 2:05d}"
            for data in (weights, config):
                self.server.mount(self.model_name(model), digest_of(data), source)
            labels = [f"v{number % 2 + 1}" for number in numbers]
            for label in labels:
                document = manifest_of([Blob(weights, title=WEIGHTS)], _newer())
                self.note(model, label, self.server.manifest(self.model_name(model), label, document))
            return [f"{model}/{label}" for label in labels]

        pairs = itertools.groupby(range(first, first + count), lambda number: number // 2)
        with ThreadPoolExecutor(4) as pool:
            return [name for names in pool.map(publish, [list(pair) for _, pair in pairs]) for name in names]

    def begin(self, model: str, version: str) -> None:
        """Weights without the manifest, which is pushed last."""
        self.server.blob(self.model_name(model), b"the beginning")

    def finish(self, model: str, version: str) -> None:
        """All of it."""
        self.publish(model, version)

    def remove(self, model: str, version: str) -> None:
        """Delete the manifest."""
        self.server.delete(self.model_name(model), self.version_name(model, version))

    def point(self, model: str, ref: str, version: str) -> None:
        """Move a tag."""
        self.server.tag(self.model_name(model), ref, self.version_name(model, version))

    def unpoint(self, model: str, ref: str) -> None:
        """Take a tag away."""
        self.server.untag(self.model_name(model), ref)


def _newer() -> dict[str, str]:
    """Annotations of an artifact that is newer than all before."""
    return {CREATED: (_BEGINNING + timedelta(seconds=next(_seconds))).isoformat()}

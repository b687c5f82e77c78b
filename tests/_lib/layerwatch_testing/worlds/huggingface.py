"""Repositories of one owner on a stand-in for the Hugging Face Hub, written to as pushes would."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from layerwatch.config.registries import HuggingFaceRegistrySettings
from layerwatch.daemon.registries.huggingface.registry import build
from layerwatch.daemon.registries.remote import RemoteRegistry
from layerwatch_testing.models import State
from layerwatch_testing.servers import shared
from layerwatch_testing.servers.huggingface import HubServer
from layerwatch_testing.worlds.base import CHAMPION, SECRET, TINY, WEIGHTS, WRONG_SECRET, RemoteWorld

_SHARD = "model-{:05d}-of-00002.safetensors"
_PAGE_SIZE = 100


class HuggingFaceWorld(RemoteWorld):
    """An owner of this world's own. A label is a tag; publishing moves ``main`` too, and ``champion`` is a branch."""

    newest_ref = "main"

    def __init__(self, folder: Path, auth: bool = False) -> None:
        hub = shared("huggingface", lambda _: HubServer(tokens=[SECRET], page_size=_PAGE_SIZE))
        super().__init__(folder, hub.url, auth)
        self.hub = hub
        self.owner = f"owner-{secrets.token_hex(4)}"
        self.registry = self.restarted()

    def settings(self, url: str, **other: object) -> HuggingFaceRegistrySettings:
        """Settings of a registry that watches this owner."""
        values: dict[str, object] = {
            "name": "reg",
            "kind": "huggingface",
            "url": url,
            "repositories": [f"{self.owner}/*"],
            "refs": ["main", CHAMPION, "v*"],
            "timeout": "10s",
        }
        if self.auth:
            values["token"] = SECRET
        return HuggingFaceRegistrySettings.model_validate(values | other)

    def through(self, url: str, **settings: object) -> RemoteRegistry:
        """A registry that reaches the Hub at another address."""
        registry = build(self.settings(url, **settings), self.downloads)
        assert isinstance(registry, RemoteRegistry)
        return registry

    @property
    def wrong_credentials(self) -> Mapping[str, object]:
        """A token that the Hub does not know."""
        return {"token": WRONG_SECRET}

    def model_name(self, model: str) -> str:
        """A repository of this owner."""
        return f"{self.owner}/{model}"

    def publish(
        self, model: str, version: str, state: State | None = None, lineage: bytes | None = None
    ) -> None:
        """Commit to main, then tag."""
        name = self.model_name(model)
        files: dict[str, bytes | None] = {WEIGHTS: self.weights(state), "config.json": b"{}"}
        if lineage is not None:
            files["lineage.json"] = lineage
        elif name in self.hub.repositories:
            head = self.hub.repositories[name].find("main")
            if head is not None and "lineage.json" in head.tree:
                files["lineage.json"] = None
        sha = self.hub.commit(name, files, title=version, private=self.auth)
        self.hub.tag(name, version, sha)
        self.note(model, version, sha)

    def publish_many(self, first: int, count: int) -> list[str]:
        """Repositories are what comes in pages."""
        names = []
        for number in range(first, first + count):
            self.publish(f"many-{number}", "v1", TINY)
            names.append(f"many-{number}/v1")
        return names

    def begin(self, model: str, version: str) -> None:
        """Commit the first of two shards on a branch of the version's name."""
        name = self.model_name(model)
        removed: dict[str, bytes | None] = {}
        if name in self.hub.repositories:
            removed[WEIGHTS] = None
        files = {_SHARD.format(1): self.weights(), **removed}
        self.note(model, version, self.hub.commit(name, files, version, version, private=self.auth))

    def finish(self, model: str, version: str) -> None:
        """Commit the second shard, and merge the branch."""
        name = self.model_name(model)
        sha = self.hub.commit(name, {_SHARD.format(2): self.weights(TINY)}, version, version)
        self.hub.branch(name, "main", sha)
        self.note(model, version, sha)

    def remove(self, model: str, version: str) -> None:
        """Squash the commit away; the last one with its repository."""
        name, sha = self.model_name(model), self.version_name(model, version)
        self.hub.forget_commit(name, sha)
        if not self.hub.repositories[name].commits:
            self.hub.delete_repository(name)

    def point(self, model: str, ref: str, version: str) -> None:
        """Move a branch."""
        self.hub.branch(self.model_name(model), ref, self.version_name(model, version))

    def unpoint(self, model: str, ref: str) -> None:
        """Delete the branch."""
        self.hub.delete_ref(self.model_name(model), ref)

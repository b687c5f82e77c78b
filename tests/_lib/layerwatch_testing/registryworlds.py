"""One small world per kind of registry: what a publisher can do to it. The contract suite runs over all."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from layerwatch.config.registries import DirectoryRegistrySettings
from layerwatch.daemon.registries.base import FoundVersion, Listing, Registry
from layerwatch.daemon.registries.directory import DirectoryRegistry
from layerwatch_testing.models import State, write_safetensors
from layerwatch_testing.networks import network


class RegistryWorld(ABC):
    """A registry called ``reg`` and the hands of those who publish into it.

    Attributes:
        registry: with every model and the refs ``latest`` and ``champion`` watched.
    """

    registry: Registry

    @property
    @abstractmethod
    def later(self) -> datetime:
        """A time at which everything that was published by now counts as complete."""

    @abstractmethod
    def publish(
        self, model: str, version: str, state: State | None = None, lineage: bytes | None = None
    ) -> None:
        """Publish a version as a whole; again under the same name, in place of what was there."""

    @abstractmethod
    def begin(self, model: str, version: str) -> None:
        """Begin to publish a version: some of its files are there, and it is not complete."""

    @abstractmethod
    def remove(self, model: str, version: str) -> None:
        """Take a version away."""

    @abstractmethod
    def point(self, model: str, ref: str, version: str) -> None:
        """Let a ref point at a version."""

    @abstractmethod
    def hide(self) -> None:
        """The registry cannot be reached any more."""

    def look(self) -> Listing:
        """The listing at `later`."""
        return self.registry.listing(self.later)

    def found(self, model: str, version: str) -> FoundVersion:
        """One version of the listing."""
        return next(one for one in self.look().versions if (one.model, one.version) == (model, version))


class DirectoryWorld(RegistryWorld):
    """A directory tree, in which a marker file says that a version is complete."""

    def __init__(self, folder: Path, marker: str | None = "COMPLETE", refs: Sequence[str] = ()) -> None:
        self.root = folder / "models"
        self.root.mkdir()
        self._marker = marker
        self.registry = DirectoryRegistry(
            self.settings(complete_marker=marker, refs=refs or ("latest", "champion"))
        )

    def settings(self, **other: object) -> DirectoryRegistrySettings:
        """Settings of a registry over this tree."""
        values = {"name": "reg", "kind": "directory", "path": self.root, "settle": "5s"}
        return DirectoryRegistrySettings.model_validate(values | other)

    @property
    def later(self) -> datetime:
        """Change times of files cannot be set, so time moves instead."""
        return datetime.now(UTC) + timedelta(hours=1)

    def folder(self, model: str, version: str) -> Path:
        """Where a version lies."""
        return self.root / model / version

    def publish(
        self, model: str, version: str, state: State | None = None, lineage: bytes | None = None
    ) -> None:
        """Write beside, then rename."""
        target = self.folder(model, version)
        fresh = target.with_name(f"{version}.tmp")
        fresh.mkdir(parents=True)
        write_safetensors(fresh / "model.safetensors", network() if state is None else state)
        if lineage is not None:
            (fresh / "lineage.json").write_bytes(lineage)
        if self._marker is not None:
            (fresh / self._marker).touch()
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)

    def begin(self, model: str, version: str) -> None:
        """Weights without the marker."""
        folder = self.folder(model, version)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"the beginning")

    def remove(self, model: str, version: str) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder(model, version))

    def point(self, model: str, ref: str, version: str) -> None:
        """Swap a symbolic link, in one step."""
        link = self.root / model / ref
        fresh = link.with_name(f"{ref}.tmp")
        fresh.symlink_to(version)
        fresh.replace(link)

    def hide(self) -> None:
        """Move the root away, as an unmounted disk would."""
        self.root.rename(self.root.with_name("elsewhere"))


WORLDS: dict[str, Callable[[Path], RegistryWorld]] = {"directory": DirectoryWorld}

"""A directory tree, written to as its users would."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from layerwatch.config.registries import DirectoryRegistrySettings
from layerwatch.daemon.registries.directory.registry import DirectoryRegistry
from layerwatch_testing.models import State
from layerwatch_testing.worlds.base import CHAMPION, WEIGHTS, RegistryWorld


class DirectoryWorld(RegistryWorld):
    """A directory tree, in which a marker file says that a version is complete.

    Args:
        folder: the tree is ``models`` in it.
        auth: True is refused: whoever may read the files may read them.
        marker: name of the marker file; None for versions that count as complete once they settled.
        refs: patterns of the refs to watch.
    """

    def __init__(
        self, folder: Path, auth: bool = False, marker: str | None = "COMPLETE", refs: Sequence[str] = ()
    ) -> None:
        if auth:
            raise ValueError("a directory knows no credentials")
        super().__init__(folder)
        self.root = folder / "models"
        self.root.mkdir()
        self._marker = marker
        self._refs = refs or ("latest", CHAMPION)
        self.registry: DirectoryRegistry = self.restarted()

    def settings(self, **other: object) -> DirectoryRegistrySettings:
        """Settings of a registry over this tree."""
        values = {"name": "reg", "kind": "directory", "path": self.root, "settle": "5s"}
        return DirectoryRegistrySettings.model_validate(values | other)

    def restarted(self, **settings: object) -> DirectoryRegistry:
        """Another registry over this tree."""
        own: dict[str, object] = {"complete_marker": self._marker, "refs": self._refs}
        return DirectoryRegistry(self.settings(**(own | settings)))

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
        (fresh / WEIGHTS).write_bytes(self.weights(state))
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
        (folder / WEIGHTS).write_bytes(b"the beginning")

    def finish(self, model: str, version: str) -> None:
        """All weights, then the marker."""
        folder = self.folder(model, version)
        (folder / WEIGHTS).write_bytes(self.weights())
        if self._marker is not None:
            (folder / self._marker).touch()

    def remove(self, model: str, version: str) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder(model, version))

    def point(self, model: str, ref: str, version: str) -> None:
        """Swap a symbolic link, in one step."""
        link = self.root / model / ref
        fresh = link.with_name(f"{ref}.tmp")
        fresh.symlink_to(version)
        fresh.replace(link)

    def unpoint(self, model: str, ref: str) -> None:
        """Delete the link."""
        (self.root / model / ref).unlink()

    def hide(self) -> None:
        """Move the root away, as an unmounted disk would."""
        self.root.rename(self._elsewhere)

    def show(self) -> None:
        """Move it back."""
        self._elsewhere.rename(self.root)

    @property
    def _elsewhere(self) -> Path:
        return self.root.with_name("elsewhere")

"""A registry and the hands of those who publish into it, the same for every kind. The contract suite runs over all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from layerwatch.daemon.registries.base import FoundVersion, Listing, Registry
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.registries.remote import RemoteRegistry
from layerwatch_testing.models import State, write_safetensors
from layerwatch_testing.networks import network
from layerwatch_testing.unreliable import UnreliableServer

WEIGHTS = "model.safetensors"
"""How the weight file of every version is called: the same weights are the same in all kinds."""

SECRET = "s3cret-that-nobody-may-see"
"""The password, token or key that opens registries with authentication."""

WRONG_SECRET = "wr0ng-secret-that-nobody-may-see"
"""One that does not."""

TINY: State = {"layer.weight": np.eye(2, dtype=np.float32)}
"""The weights of versions that are only counted."""

CHAMPION = "champion"


class RegistryWorld(ABC):
    """A registry called ``reg``, in which nothing but what this world publishes is watched.

    Tests speak of models and versions by labels ("a", "v1"); a world that cannot choose the names of its registry
    says with `note` what a label became, and overrides `model_name`.

    Attributes:
        registry: with every model of this world and the refs ``latest`` and ``champion`` watched.
        newest_ref: the ref that publishers move, or the registry itself, to what is newest; ``latest`` to the tests.
        scratch: a folder for files of this world.
    """

    registry: Registry
    newest_ref = "latest"

    def __init__(self, folder: Path) -> None:
        self.scratch = folder
        self._labels: dict[tuple[str, str], str] = {}
        self._versions: dict[tuple[str, str], str] = {}

    @property
    def later(self) -> datetime:
        """A time at which everything that was published by now counts as complete."""
        return datetime.now(UTC) + timedelta(hours=1)

    @abstractmethod
    def publish(
        self, model: str, version: str, state: State | None = None, lineage: bytes | None = None
    ) -> None:
        """Publish a version as a whole, newer than all before.

        Again under the same label: in place of what was there, where the kind allows that, else as a new version
        to which the label passes.

        Args:
            state: the weights; None for some network.
            lineage: the text of ``lineage.json`` beside them.
        """

    @abstractmethod
    def begin(self, model: str, version: str) -> None:
        """Begin to publish a version: some of it is there, and it is not complete."""

    @abstractmethod
    def finish(self, model: str, version: str) -> None:
        """Complete what was begun."""

    @abstractmethod
    def remove(self, model: str, version: str) -> None:
        """Take a version away for good."""

    @abstractmethod
    def point(self, model: str, ref: str, version: str) -> None:
        """Let a ref point at a version."""

    @abstractmethod
    def unpoint(self, model: str, ref: str) -> None:
        """Take a ref away."""

    @abstractmethod
    def hide(self) -> None:
        """The registry cannot be reached any more."""

    @abstractmethod
    def show(self) -> None:
        """It can be reached again."""

    @abstractmethod
    def restarted(self, **settings: object) -> Registry:
        """Another registry over the same place, as after a restart, with other settings where they are given."""

    def publish_many(self, first: int, count: int) -> list[str]:
        """Publish versions with tiny weights, in the shape in which this kind needs several pages to list them.

        Returns:
            their names, as in `names`. Other numbers are other versions.
        """
        labels = [f"v{number}" for number in range(first, first + count)]
        for label in labels:
            self.publish("many", label, TINY)
        return [f"many/{label}" for label in labels]

    def close(self) -> None:  # noqa: B027 - nothing to do for most
        """Leave nothing behind that runs."""

    def model_name(self, model: str) -> str:
        """What the registry calls a model."""
        return model

    def note(self, model: str, label: str, version: str) -> None:
        """The registry calls a version of a model by another name than the tests."""
        self._labels[self.model_name(model), version] = label
        self._versions[model, label] = version

    def version_name(self, model: str, label: str) -> str:
        """What the registry calls a version."""
        return self._versions.get((model, label), label)

    def label_of(self, model: str, version: str) -> str:
        """What the tests call a version, from the registry's names."""
        return self._labels.get((model, version), version)

    def look(self, everything: bool = True) -> Listing:
        """The listing at `later`."""
        return self.registry.listing(self.later, everything)

    def found(self, model: str, version: str) -> FoundVersion:
        """One version of the listing."""
        wanted = self.model_name(model), self.version_name(model, version)
        return next(one for one in self.look().versions if (one.model, one.version) == wanted)

    def names(self, listing: Listing | None = None) -> list[str]:
        """The versions of a listing (of a new one), in its order, as the tests call them."""
        listing = listing or self.look()
        return [
            f"{self._model_label(one.model)}/{self.label_of(one.model, one.version)}"
            for one in listing.versions
        ]

    def refs(self, listing: Listing | None = None) -> dict[str, str]:
        """``model@ref`` -> version, as the tests call them; names of versions that are refs by themselves left out."""
        listing = listing or self.look()
        own_names = set(self._labels.values())
        return {
            f"{self._model_label(one.model)}@{'latest' if one.ref == self.newest_ref else one.ref}": self.label_of(
                one.model, one.version
            )
            for one in listing.refs
            if one.ref not in own_names
        }

    def unfinished(self, listing: Listing | None = None) -> list[str]:
        """The versions that are being written, as the tests call them."""
        listing = listing or self.look()
        return [
            f"{self._model_label(model)}/{self.label_of(model, version)}"
            for model, version in listing.unfinished
        ]

    def weights(self, state: State | None = None) -> bytes:
        """The bytes of a weight file."""
        path = write_safetensors(self.scratch / "weights.scratch", network() if state is None else state)
        data = path.read_bytes()
        path.unlink()
        return data

    def _model_label(self, model: str) -> str:
        """What the tests call a model; all that this world watches ends in ``model_name("")`` and the label."""
        return model.removeprefix(self.model_name(""))


class RemoteWorld(RegistryWorld):
    """A registry behind a network. It is reached through `front`, which can be made to misbehave.

    One server is shared by all tests of a session: `model_name` puts a prefix of this world's own before the label,
    and only such models are watched.

    Args:
        folder: for downloads and other files.
        server_url: where the server is, for the world's own hands; they do not go through `front`.
        auth: whether the server asks for `SECRET`.

    Attributes:
        front: stands between registry and server.
        downloads: where weights are fetched to.
    """

    registry: RemoteRegistry

    def __init__(self, folder: Path, server_url: str, auth: bool = False) -> None:
        super().__init__(folder)
        self.server_url = server_url
        self.auth = auth
        self.downloads = Downloads(folder / "downloads", 2**30, wait=_no_wait)
        self.front = UnreliableServer(server_url)

    @abstractmethod
    def through(self, url: str, **settings: object) -> RemoteRegistry:
        """A registry that reaches the server at another address, with other settings where they are given.

        Without authentication it sends no credentials.
        """

    @property
    @abstractmethod
    def wrong_credentials(self) -> Mapping[str, object]:
        """Settings for `through` and `restarted` with `WRONG_SECRET` in place of what opens the registry."""

    def restarted(self, **settings: object) -> RemoteRegistry:
        """Another registry over the same server."""
        return self.through(self.front.url, **settings)

    def hide(self) -> None:
        """Connections are refused."""
        self.front.refuse()

    def show(self) -> None:
        """The server answers as it should."""
        self.front.behave()

    def close(self) -> None:
        """Stop what stands before the server."""
        self.front.close()


def _no_wait(seconds: float) -> None:
    """Attempts follow each other at once."""

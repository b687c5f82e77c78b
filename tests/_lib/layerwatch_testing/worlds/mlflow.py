"""An MLflow server, written to over its own interface as training jobs do."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from layerwatch.config.registries import MlflowRegistrySettings
from layerwatch.daemon.registries.mlflow.registry import build
from layerwatch.daemon.registries.remote import RemoteRegistry
from layerwatch_testing.models import State
from layerwatch_testing.servers.mlflow import USER, shared_server
from layerwatch_testing.worlds.base import CHAMPION, SECRET, TINY, WEIGHTS, WRONG_SECRET, RemoteWorld


class MlflowWorld(RemoteWorld):
    """Registered models whose names begin with a prefix of this world; numbers stand for the labels of versions.

    Every version has a run of its own, with its files below ``model``. Published again, they are overwritten there.

    Attributes:
        server: the server itself.
    """

    def __init__(self, folder: Path, auth: bool = False) -> None:
        self.server = shared_server(SECRET if auth else None)
        super().__init__(folder, self.server.url, auth)
        self._prefix = f"w{uuid.uuid4().hex[:10]}-"
        self._runs: dict[tuple[str, str], str] = {}
        self.registry = self.restarted()

    def model_name(self, model: str) -> str:
        """With the prefix of this world."""
        return f"{self._prefix}{model}"

    def settings(self, url: str, **other: object) -> MlflowRegistrySettings:
        """Settings of a registry that reaches the server at an address."""
        values: dict[str, object] = {"name": "reg", "kind": "mlflow", "url": url, "timeout": "30s"}
        values |= {"models": [f"{self._prefix}*"], "refs": ["latest", CHAMPION]}
        if self.auth:
            values |= {"username": USER, "password": SECRET}
        return MlflowRegistrySettings.model_validate(values | other)

    def through(self, url: str, **settings: object) -> RemoteRegistry:
        """A registry that reaches the server at another address."""
        return build(self.settings(url, **settings), self.downloads)

    @property
    def wrong_credentials(self) -> Mapping[str, object]:
        """A password that does not open it."""
        return {"username": USER, "password": WRONG_SECRET}

    def publish(
        self, model: str, version: str, state: State | None = None, lineage: bytes | None = None
    ) -> None:
        """Upload, then register; where the version is there, upload again."""
        run = self._runs.get((model, version))
        fresh = run is None
        run = run or self.server.new_run()
        if lineage is not None:
            self.server.upload(run, "model/lineage.json", lineage)
        self.server.upload(run, f"model/{WEIGHTS}", self.weights(state))
        if fresh:
            self._register(model, version, run)

    def begin(self, model: str, version: str) -> None:
        """Registered before the weights are there."""
        run = self.server.new_run()
        self.server.upload(run, "model/config.json", b"{}")
        self._register(model, version, run)

    def finish(self, model: str, version: str) -> None:
        """Upload the weights."""
        self.server.upload(self._runs[model, version], f"model/{WEIGHTS}", self.weights())

    def remove(self, model: str, version: str) -> None:
        """Delete the version; numbers are not used again."""
        name, number = self.model_name(model), self.version_name(model, version)
        self.server.call("DELETE", "model-versions/delete", name=name, version=number)
        del self._runs[model, version]

    def point(self, model: str, ref: str, version: str) -> None:
        """Set an alias."""
        name, number = self.model_name(model), self.version_name(model, version)
        self.server.call("POST", "registered-models/alias", name=name, alias=ref, version=number)

    def unpoint(self, model: str, ref: str) -> None:
        """Delete an alias."""
        self.server.call("DELETE", "registered-models/alias", name=self.model_name(model), alias=ref)

    def publish_many(self, first: int, count: int) -> list[str]:
        """One model with many versions, all of which have the same artifacts."""
        if ("many", "files") not in self._runs:
            self._runs["many", "files"] = self.server.new_run()
            self.server.upload(self._runs["many", "files"], f"model/{WEIGHTS}", self.weights(TINY))
        labels = [f"v{number}" for number in range(first, first + count)]
        for label in labels:
            self._register("many", label, self._runs["many", "files"])
        return [f"many/{label}" for label in labels]

    def _register(self, model: str, version: str, run: str) -> None:
        self._runs[model, version] = run
        number = self.server.register(self.model_name(model), f"runs:/{run}/model", run)
        self.note(model, version, number)

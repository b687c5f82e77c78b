"""A bucket of an S3 server, written to as its users would."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from obstore.store import S3Store

from layerwatch.config.registries import ObjectStoreRegistrySettings
from layerwatch.daemon.registries.objectstore.registry import build
from layerwatch.daemon.registries.remote import RemoteRegistry
from layerwatch_testing.models import State
from layerwatch_testing.servers import shared
from layerwatch_testing.servers.objectstore import BUCKET, ObjectStoreServer
from layerwatch_testing.worlds.base import CHAMPION, SECRET, WEIGHTS, WRONG_SECRET, RemoteWorld

MARKER = "COMPLETE"
REGION = "us-east-1"
_numbers = itertools.count(1)


class ObjectStoreWorld(RemoteWorld):
    """A prefix of its own in a bucket, in which a marker object says that a version is complete.

    Args:
        folder: for downloads.
        auth: whether the server asks for a key.
        marker: name of the marker; None for versions that count as complete once they settled.
    """

    def __init__(self, folder: Path, auth: bool = False, marker: str | None = MARKER) -> None:
        secret = SECRET if auth else ""
        server = shared(f"objectstore{'+auth' if auth else ''}", partial(ObjectStoreServer, secret=secret))
        super().__init__(folder, server.url, auth)
        self._marker = marker
        self._access_key = server.access_key
        self.prefix = f"team-{os.getpid()}/world-{next(_numbers)}"
        self.hands = S3Store(
            BUCKET,
            prefix=self.prefix,
            endpoint=server.url,
            region=REGION,
            access_key_id=server.access_key or "anyone",
            secret_access_key=secret or "anything",
            client_options={"allow_http": True, "proxy_excludes": "127.0.0.1"},
        )
        self.registry = self.restarted()

    def settings(self, endpoint: str, **other: object) -> ObjectStoreRegistrySettings:
        """Settings of a registry over this prefix."""
        values: dict[str, object] = {
            "name": "reg",
            "kind": "objectstore",
            "url": f"s3://{BUCKET}/{self.prefix}",
            "endpoint": endpoint,
            "region": REGION,
            "settle": "5s",
            "refs": ("latest", CHAMPION),
            "complete_marker": self._marker,
        }
        if self.auth:
            values |= {"access_key": self._access_key, "secret_key": SECRET}
        elif "secret_key" not in other:
            values["anonymous"] = True
        return ObjectStoreRegistrySettings.model_validate(values | other)

    def through(self, url: str, **settings: object) -> RemoteRegistry:
        """A registry that reaches the server at another address."""
        return build(self.settings(url, **settings), self.downloads)

    @property
    def wrong_credentials(self) -> Mapping[str, object]:
        """A key that the server does not know."""
        return {"access_key": "AKIAQAAAAAAAAAAAAAAA", "secret_key": WRONG_SECRET}

    def publish(
        self, model: str, version: str, state: State | None = None, lineage: bytes | None = None
    ) -> None:
        """Weights, what is declared, then the marker."""
        self.put(f"{model}/{version}/{WEIGHTS}", self.weights(state))
        if lineage is not None:
            self.put(f"{model}/{version}/lineage.json", lineage)
        if self._marker is not None:
            self.put(f"{model}/{version}/{self._marker}", b"")

    def begin(self, model: str, version: str) -> None:
        """Weights without the marker."""
        self.put(f"{model}/{version}/{WEIGHTS}", b"the beginning")

    def finish(self, model: str, version: str) -> None:
        """All weights, then the marker."""
        self.publish(model, version)

    def remove(self, model: str, version: str) -> None:
        """Delete all objects of a version."""
        keys = [one["path"] for page in self.hands.list(f"{model}/{version}") for one in page]
        self.hands.delete(keys)

    def point(self, model: str, ref: str, version: str) -> None:
        """Write the name of the version into an object."""
        self.put(f"{model}/.refs/{ref}", f"{version}\n".encode())

    def unpoint(self, model: str, ref: str) -> None:
        """Delete that object."""
        self.hands.delete(f"{model}/.refs/{ref}")

    def put(self, key: str, data: bytes) -> None:
        """Write one object below the prefix."""
        self.hands.put(key, data)

"""Worlds for the contract that every kind of registry keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from layerwatch_testing.servers import ServerMissing
from layerwatch_testing.worlds import world_of
from layerwatch_testing.worlds.base import RegistryWorld, RemoteWorld
from layerwatch_testing.worlds.properties import kinds_open_and_locked

Open = Callable[..., RegistryWorld]


def opened(kind: str, folder: Path, auth: bool = False) -> RegistryWorld:
    """A world; skips the test, with the reason, where its server is not installed."""
    try:
        return world_of(kind, folder, auth)
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def open_world(tmp_path: Path) -> Iterator[Open]:
    """Opens worlds of any kind."""
    with ExitStack() as stack:

        def open_one(kind: str, auth: bool = False) -> RegistryWorld:
            folder = tmp_path / f"{kind}-{auth}"
            folder.mkdir()
            world = opened(kind, folder, auth)
            stack.callback(world.close)
            return world

        yield open_one


@pytest.fixture(params=kinds_open_and_locked())
def world(request: pytest.FixtureRequest, open_world: Open) -> RegistryWorld:
    """One world of every kind, or of those that a test names; ``+auth`` stands for one with authentication."""
    kind, _, auth = request.param.partition("+")
    return open_world(kind, bool(auth))


@pytest.fixture
def remote(world: RegistryWorld) -> RemoteWorld:
    """A world behind a network."""
    assert isinstance(world, RemoteWorld)
    return world

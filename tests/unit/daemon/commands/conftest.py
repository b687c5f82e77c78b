"""A store that a daemon filled, and a configuration beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from layerwatch.daemon.cli import app
from layerwatch_testing.daemons import write_config
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld

Call = Callable[..., Result]


@pytest.fixture
def config(rig: Rig, world: DirectoryWorld, tmp_path: Path) -> Path:
    """Of a store with reg/m: v1 and v2 are healthy, v3 was made from v2 and has a wrong scale in fc2."""
    healthy = finetuned(network())
    world.publish("m", "v1", network())
    world.publish("m", "v2", healthy)
    lineage = b'{"parent": "v2", "relation": "quantized"}'
    world.publish("m", "v3", with_wrong_scale(finetuned(healthy, 3)), lineage=lineage)
    rig.cycle()
    return write_config(tmp_path / "layerwatch.yaml")


@pytest.fixture
def call() -> Call:
    """Run a command of the command line in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run

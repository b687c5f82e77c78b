"""A registry full of generated hostile files: each is undecided, the healthy models beside them are served.

The files are mutations of valid files of every format (``fuzzing.Mutator``); those that happen to stay readable are
left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.openmodel import open_layers
from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.fuzzing import TARGETS, FuzzTarget, Mutator, valid_inputs
from layerwatch_testing.fuzzseeds import BESIDE, write_corpus
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import network
from layerwatch_testing.waiting import until

HOSTILE = 500
HEALTHY = 10
_CALLED = {"data.pkl": "model.bin", "m.jit": "model.pt", "m.zip": "model.npz"}
"""Names under which a registry counts the inputs of some targets as weights."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def hostile_versions(corpus: Path, target: FuzzTarget, root: Path, count: int) -> Iterator[str]:
    """Write so many models that cannot be read whole, ``root/<model>/v1``; their names."""
    beside = corpus / BESIDE / target.name
    number = 0
    for content in Mutator(valid_inputs(corpus, target), seed=len(target.name)).inputs():
        folder = root / f"hostile-{target.name}-{number:03}" / "v1"
        if beside.is_dir():
            shutil.copytree(beside, folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _CALLED.get(target.file, target.file)).write_bytes(content)
        if is_readable(folder):
            shutil.rmtree(folder.parent)
            continue
        yield folder.parent.name
        number += 1
        if number == count:
            return


def is_readable(folder: Path) -> bool:
    try:
        with closing(open_layers(folder)) as model:
            for layer in (*model.plan.vectors, *model.plan.layers):
                model.values(layer)
            return not model.plan.unexamined
    except UnreadableError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_500_hostile_files_are_undecided_and_every_other_model_is_served(
    corpus: Path, tmp_path: Path
) -> None:
    root = tmp_path / "registry"
    share = -(-HOSTILE // len(TARGETS))
    hostile = [name for target in TARGETS for name in hostile_versions(corpus, target, root, share)][:HOSTILE]
    for folder in sorted(root.iterdir()):
        if folder.name not in hostile:
            shutil.rmtree(folder)
    for number in range(HEALTHY):
        folder = root / f"healthy-{number}" / "v1"
        folder.mkdir(parents=True)
        write_safetensors(folder / "model.safetensors", network(seed=number))
    config = write_config(tmp_path / "layerwatch.yaml", directory("prod", root, poll="30s"))

    with DaemonProcess(config) as daemon:
        daemon.wait_until_listening()
        until(
            lambda: sum(verdict is not None for verdict in daemon.verdicts().values()) == HOSTILE + HEALTHY,
            "all verdicts",
            600,
        )
        verdicts = daemon.verdicts()
        health = daemon.get("/-/healthy").status_code
        exported = until(
            lambda: (
                len({dict(labels)["model"] for labels in daemon.samples("layerwatch_model_verdict")})
                == HOSTILE + HEALTHY
            ),
            "the gauges of all models",
        )

    assert len(hostile) == HOSTILE
    assert [name for name in hostile if verdicts[f"prod/{name}/v1"] != "undecided"] == []
    assert {verdicts[f"prod/healthy-{number}/v1"] for number in range(HEALTHY)} == {"pass"}
    assert health == 200
    assert exported

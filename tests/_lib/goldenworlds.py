"""The files of the little worlds in ``tests/golden``: each builder has the name that transcripts call it by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.daemon.store.database import Database
from layerwatch_testing.models import write_safetensors
from storetools import judged

State = dict[str, NDArray[Any]]

_SHAPES = {"fc1": (96, 64), "fc2": (96, 96), "fc3": (64, 96), "head": (10, 64)}


def _network() -> State:
    generator = np.random.default_rng(7)
    state: State = {}
    for name, shape in _SHAPES.items():
        # Columns of falling size give the spectrum a tail, as training does.
        scale = np.arange(1, shape[1] + 1) ** -0.5
        state[f"{name}.weight"] = (generator.standard_normal(shape) * scale).astype(np.float32)
        state[f"{name}.bias"] = generator.standard_normal(shape[0]).astype(np.float32)
    return state


def _finetuned() -> State:
    generator = np.random.default_rng(8)
    return {
        name: values + (0.02 * values.std() * generator.standard_normal(values.shape)).astype(np.float32)
        for name, values in _network().items()
    }


def _with_nan(state: State) -> State:
    state["fc2.weight"][3, 5] = np.nan
    return state


def _with_zeroed_layer(state: State) -> State:
    state["fc2.weight"][:] = 0
    return state


def _with_scaled_layer(state: State) -> State:
    state["fc2.weight"] *= 10
    return state


def _without_layer(state: State) -> State:
    del state["fc2.weight"]
    return state


def _with_longer_head(state: State) -> State:
    state["head.weight"] = np.concatenate([state["head.weight"], state["head.weight"][:2]])
    return state


def _with_integer_layer(state: State) -> State:
    state["fc1.weight"] = np.round(state["fc1.weight"] * 20).astype(np.int8)
    return state


def _model(make: Callable[[], State]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        write_safetensors(path, make())

    return write


def _truncated(path: Path) -> None:
    write_safetensors(path, _network())
    path.write_bytes(path.read_bytes()[:-1000])


def _store(path: Path) -> None:
    database = Database.open(f"sqlite:///{path}")
    with database.write() as connection:
        for version in ("v1", "v2", "v3"):
            judged(connection, version, model="fraud", registry="prod")
        judged(connection, "v1", model="spam", registry="prod")
    database.close()


BUILDERS: dict[str, Callable[[Path], None]] = {
    "network": _model(_network),
    "fine-tune": _model(_finetuned),
    "fine-tune with a NaN in fc2": _model(lambda: _with_nan(_finetuned())),
    "fine-tune with fc2 zeroed": _model(lambda: _with_zeroed_layer(_finetuned())),
    "fine-tune with fc2 times 10": _model(lambda: _with_scaled_layer(_finetuned())),
    "fine-tune without fc2.weight": _model(lambda: _without_layer(_finetuned())),
    "fine-tune with a longer head": _model(lambda: _with_longer_head(_finetuned())),
    "fine-tune with fc1 in bare integers": _model(lambda: _with_integer_layer(_finetuned())),
    "fine-tune with a NaN in fc2 and fc1 in bare integers": _model(
        lambda: _with_nan(_with_integer_layer(_finetuned()))
    ),
    "network, last 1000 bytes missing": _truncated,
    "store of prod/fraud v1 v2 v3 and prod/spam v1, all pass": _store,
}

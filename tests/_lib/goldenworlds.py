"""The files of the little worlds in ``tests/golden``: each builder has the name that transcripts call it by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.store import lineage
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.lineage import WEIGHTS, LineageEdge
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.relation import Relation
from layerwatch_testing.models import write_safetensors
from storetools import NOW, judged

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


def _family(path: Path) -> None:
    """A base, two fine-tunes, a quantised export, a merge and a version that only its weights give away."""
    database = Database.open(f"sqlite:///{path}")
    with database.write() as connection:

        def version(name: str, *declared: DeclaredLineage, verdict: Verdict = Verdict.PASS) -> int:
            registry, model, number = name.rsplit("/", 2)
            found = judged(connection, number, verdict, model=model, registry=registry)
            lineage.save_declared(connection, found.id, declared, NOW)
            return found.id

        def shown(child: int, parent: str, row: int, confidence: float, **numbers: float) -> None:
            edge = LineageEdge(parent, row, None, WEIGHTS, confidence, numbers)
            lineage.save_found(connection, child, [edge], NOW)

        base = version("hub/base/1")
        one = version("prod/fraud/v1", DeclaredLineage("hub/base/1", Relation.FINETUNED, "lineage.json"))
        shown(one, "hub/base/1", base, 0.95, distance=0.021, cosine=0.9998)
        version("prod/fraud/v2", DeclaredLineage("v1", Relation.FINETUNED, "lineage.json"))
        version(
            "prod/fraud-int8/v1",
            DeclaredLineage("fraud/v1", Relation.QUANTIZED, "config.json"),
            verdict=Verdict.FAIL,
        )
        other = version("prod/spam/v1", DeclaredLineage("hf:org/unknown@main", None, "card"))
        names = ("fraud/v2", "spam/v1")
        version("prod/fraud/soup", DeclaredLineage("v2", Relation.MERGED, "mergekit_config.yml", names))
        copy = version("prod/spam/v2")
        shown(copy, "prod/spam/v1", other, 0.99, identical=7, tensors=8, share=0.9, distance=0.3, cosine=0.95)
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
    "store of a family of models": _family,
}

"""Part d: how the cost grows with the number of layers and with their size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from layerwatch_bench import weights
from layerwatch_bench.clock import least_seconds
from layerwatch_bench.limit import measure
from layerwatch_bench.machine import CORES
from layerwatch_bench.plan import Plan
from layerwatch_bench.table import Row

_ROUNDS = 3


def growth(plan: Plan) -> Iterator[Row]:
    """One row per direction of growth, with the fitted exponent."""
    torch.set_num_threads(CORES)
    side = 128 if plan.quick else 512
    counts = _seconds({layers: _file(plan, layers, side) for layers in (5, 10, 20, 40)})
    yield _row(f"layers {side}x{side}", "number of layers", counts)
    largest = 512 if plan.quick else 4096
    sizes = _seconds({m: _file(plan, 1, m) for m in (256, 512, 1024, 2048, 4096) if m <= largest})
    yield _row("one layer MxM", "M", sizes)


def _file(plan: Plan, layers: int, side: int) -> Path:
    state = weights.heavy_tailed([(side, side)] * layers, seed=4)
    return weights.write(plan.folder / f"{layers}x{side}.safetensors", state)


def _seconds(files: Mapping[int, Path]) -> dict[int, float]:
    return least_seconds({size: partial(measure, file) for size, file in files.items()}, _ROUNDS)


def _row(case: str, variable: str, seconds: Mapping[int, float]) -> Row:
    exponent = float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])
    return Row(
        part="d",
        case=f"{case}: cost against the {variable}",
        seen=", ".join(f"{size}: {taken:.3g} s" for size, taken in seconds.items()),
        result=f"exponent {exponent:.2f}",
        figures={
            "seconds": {str(size): taken for size, taken in seconds.items()},
            "exponent": exponent,
        },
    )

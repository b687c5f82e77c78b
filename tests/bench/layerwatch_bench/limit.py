"""Part b: how far from what the machine can do at all.

The limit of the route by Gram matrix and eigenvalues is M^2 N operations (half a Gram product, which is symmetric)
and 4/3 M^3 (reduction to tridiagonal form: Golub & Van Loan, Matrix Computations, section 8.3.1), at the rate of a
matrix product in the same floating-point type, taken in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.spectra import layer_eigenvalues
from layerwatch.metrics.tailfit import fit_tail
from layerwatch_bench import weights
from layerwatch_bench.clock import least_seconds
from layerwatch_bench.machine import CORES
from layerwatch_bench.plan import Plan
from layerwatch_bench.table import Row

_ROUNDS = 5


def limit(plan: Plan) -> Iterator[Row]:
    """Two rows per size: a file of some layers, all metrics, per layer; and the spectral analysis of one alone."""
    torch.set_num_threads(CORES)
    large, small = (1536, 256) if plan.quick else (4096, 1024)
    yield from _rows(plan, Size(large, torch.float32, 2 * CORES, 3.0))
    yield from _rows(plan, Size(small, torch.float64, 8 * CORES, 4.0))


@dataclass(frozen=True, slots=True)
class Size:
    """Square layers of one size.

    Attributes:
        side: of the layers.
        dtype: that their spectra are computed in.
        layers: how many the file holds. Layers of these sizes are measured side by side, so one has no rate.
        target: largest ratio to the limit.
    """

    side: int
    dtype: torch.dtype
    layers: int
    target: float


def _rows(plan: Plan, size: Size) -> Iterator[Row]:
    side = size.side
    layers = weights.heavy_tailed([(side, side)] * size.layers, seed=3)
    file = weights.write(plan.folder / f"limit{side}.safetensors", layers)
    values = layers["layer0.weight"]
    del layers
    left = torch.randn(side, side, dtype=size.dtype, generator=torch.Generator().manual_seed(0))
    result = torch.empty_like(left)
    taken = least_seconds(
        {
            "product": lambda: torch.mm(left, left, out=result),
            "alone": lambda: fit_tail(layer_eigenvalues(values, LayerKind.LINEAR)),
            "whole": lambda: measure(file),
        },
        _ROUNDS,
    )
    file.unlink()
    rate = 2 * side**3 / taken["product"]
    least = (side**2 * side + 4 / 3 * side**3) / rate
    kind = str(size.dtype).removeprefix("torch.")
    rows = (
        (f"all metrics, per layer of {size.layers}", taken["whole"] / size.layers, size.target),
        ("eigenvalues and tail fit of one layer alone", taken["alone"], None),
    )
    for what, seconds, target in rows:
        ratio = seconds / least
        yield Row(
            part="b",
            case=f"{what}, {side}x{side} {kind}",
            seen=f"{seconds:.3f} s, limit {least:.3f} s at {rate / 1e9:.0f} GFlop/s",
            result=f"{ratio:.2f}x the limit",
            target=f"<= {target:.1f}x" if target else "",
            met=plan.judged(ratio <= target) if target else None,
            figures={
                "seconds": seconds,
                "limit_seconds": least,
                "flop_per_second": rate,
                "ratio": ratio,
                "dtype": kind,
            },
        )


def measure(file: Path) -> int:
    """Measure every layer of a file in this process; the number of layers."""
    model = OpenModel(open_model(file), str(file))
    try:
        return sum(1 for _ in measure_layers(model, lambda digest: False))
    finally:
        model.close()

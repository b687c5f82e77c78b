"""Timings as ratios within one run: ``make bench``. Nothing here passes or fails."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.demo.safetensors_file import write_safetensors
from layerwatch.daemon.scan.content import measure_content
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.sketch import sketch
from layerwatch.metrics.spectra import layer_eigenvalues
from layerwatch.metrics.tailfit import fit_tail

ROUNDS = 3


def seconds(action: Callable[[], object]) -> float:
    """Median of a few runs after one to warm up."""
    action()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def one_layer(side: int) -> None:
    """The parts of measuring a square layer, against singular values in float64 by the textbook route."""
    weights = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    svd = seconds(lambda: np.linalg.svd(weights.astype(np.float64), compute_uv=False))
    spectrum = layer_eigenvalues(weights, LayerKind.LINEAR)
    parts = {
        "spectrum": seconds(lambda: layer_eigenvalues(weights, LayerKind.LINEAR)),
        "tail fit": seconds(lambda: fit_tail(spectrum)),
        "sketch": seconds(lambda: sketch(weights)),
    }
    print(f"{side} x {side}: float64 singular values {svd:.3f} s")
    for name, taken in parts.items():
        print(f"  {name:<10} {taken:.3f} s   {svd / taken:6.1f} times faster than the singular values")


def known_bytes() -> None:
    """A scan of measured bytes against the first one: what a retrain that froze its layers costs."""
    random = np.random.default_rng(0)
    tensors = {
        f"layer{index}.weight": random.standard_normal((1024, 1024)).astype(np.float32) for index in range(8)
    }
    executor = LocalExecutor(ScanSettings())
    kept: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_safetensors(path, tensors)

        def scan(known: Callable[[str], bool]) -> None:
            measure_content(
                executor,
                ScanRequest(str(path)),
                "",
                0,
                known,
                lambda measurement: kept.add(measurement.digest),
            )

        first = seconds(lambda: scan(lambda digest: False))
        again = seconds(lambda: scan(kept.__contains__))
    executor.close()
    print(
        f"8 layers of 1024 x 1024: first scan {first:.2f} s, same bytes again {again:.2f} s ({first / again:.0f} times)"
    )


if __name__ == "__main__":
    for each in (512, 1024, 2048, 4096):
        one_layer(each)
    known_bytes()

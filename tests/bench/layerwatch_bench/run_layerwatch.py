"""Measure a safetensors file with layerwatch, every metric: ``python run_layerwatch.py FILE [--warm]``.

Prints JSON of the same form as ``run_weightwatcher.py``; the seconds are those of ``measure_layers`` on the open
file, reading and hashing included.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.detect import open_model
from layerwatch_testing.models import write_safetensors


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--warm", action="store_true", help="measure a small matrix first")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if arguments.warm:
        with tempfile.TemporaryDirectory() as folder:
            _measure(_small(Path(folder)))
    measured, taken = _measure(arguments.file)
    layers = {
        one.layer.name: {
            "alpha": one.measurement.numbers.alpha,
            "ks_distance": one.measurement.numbers.ks_distance,
            "num_eigenvalues": one.measurement.numbers.num_eigenvalues,
        }
        for one in measured
        if one.measurement is not None and one.measurement.numbers is not None
    }
    print(json.dumps({"seconds": taken, "layers": layers}))


def _measure(path: Path) -> tuple[list[MeasuredLayer], float]:
    model = OpenModel(open_model(path), str(path))
    try:
        began = time.perf_counter()
        measured = list(measure_layers(model, lambda digest: False))
        return measured, time.perf_counter() - began
    finally:
        model.close()


def _small(folder: Path) -> Path:
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    return write_safetensors(folder / "small.safetensors", {"small.weight": values})


if __name__ == "__main__":
    main()

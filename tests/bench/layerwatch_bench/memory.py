"""Part c: peak memory of scans, as the kernel counts it (``VmHWM``): private memory and mapped file pages together.

Pages of the weight file that a process has touched count until it gives them back, although the system could take
them at any time; what is private alone is told beside it.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.scan.executor import LocalExecutor, ScanListener
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch_bench.machine import CORES
from layerwatch_bench.plan import Plan
from layerwatch_bench.table import Row
from layerwatch_testing.bigmodels import BigTensor, LlamaSizes, llama, write_big, write_shards
from layerwatch_testing.memorywatch import MemoryWatch, Peak, WatchedRun, run_watched

GROWTH_TARGET = 0.10
LARGE_MODEL_TARGET = 1.5e9

_MIB = 2**20
_ROOM = 2**30
"""Bytes of the disk that are left alone."""

_WRITTEN = {
    "model.embed_tokens.weight": 1,
    "model.layers.0.self_attn.q_proj.weight": 2,
    "model.layers.0.mlp.gate_proj.weight": 3,
    "model.layers.0.mlp.down_proj.weight": 4,
}
"""Layers of the large model that hold numbers, one of each shape; the others are holes."""


def memory(plan: Plan) -> Iterator[Row]:
    """Peak of few layers and of many, and of a model of seven billion parameters."""
    side, few, many = (512, 4, 16) if plan.quick else (2048, 10, 200)
    room = (shutil.disk_usage(plan.folder).free - _ROOM) // (4 * side * side)
    many = max(few, min(many, room))
    yield _growth(plan, side, few, many)
    yield _large(plan)


def _growth(plan: Plan, side: int, few: int, many: int) -> Row:
    peaks: dict[int, Peak] = {}
    taken: dict[int, float] = {}
    for layers in (few, many):
        tensors = [
            BigTensor(f"layer{number}.weight", (side, side), "F32", seed=number) for number in range(layers)
        ]
        path = write_big(plan.folder / f"{layers}layers.safetensors", tensors)
        began = time.perf_counter()
        peaks[layers] = worker_peak(path, layers)
        taken[layers] = time.perf_counter() - began
        path.unlink()
    difference = peaks[many].resident / peaks[few].resident - 1
    private = peaks[many].private / peaks[few].private - 1
    return Row(
        part="c",
        case=f"peak of the worker, {few} and {many} layers {side}x{side}",
        seen=f"{peaks[few].resident / _MIB:.0f} and {peaks[many].resident / _MIB:.0f} MiB resident "
        f"({peaks[few].private / _MIB:.0f} and {peaks[many].private / _MIB:.0f} private)",
        result=f"{difference:+.1%} ({private:+.1%} private)",
        target=f"< {GROWTH_TARGET:.0%}",
        met=plan.judged(abs(difference) < GROWTH_TARGET),
        figures={
            "resident_bytes": {str(layers): peak.resident for layers, peak in peaks.items()},
            "private_bytes": {str(layers): peak.private for layers, peak in peaks.items()},
            "seconds": {str(layers): seconds for layers, seconds in taken.items()},
            "difference": difference,
        },
    )


def worker_peak(path: Path, layers: int) -> Peak:
    """Peak of a new worker that measures every layer of a file."""
    executor = LocalExecutor(ScanSettings(niceness=0), threads=CORES)
    measured: list[str] = []
    try:
        with MemoryWatch(os.getpid(), itself=False) as watch:
            executor.scan(
                ScanRequest(str(path)),
                ScanListener(lambda digest: False, lambda one: measured.append(one.layer.name)),
            )
    finally:
        executor.close()
    if len(measured) != layers:
        raise RuntimeError(f"{path}: {len(measured)} of {layers} layers were measured")
    (peak,) = watch.peaks.values()
    return peak


def _large(plan: Plan) -> Row:
    sizes = LlamaSizes(blocks=2, wide=512, hidden=1376, words=4000) if plan.quick else LlamaSizes()
    tensors = llama(sizes, _WRITTEN)
    parameters = sum(tensor.size_bytes for tensor in tensors) // 2
    half = len(tensors) // 2
    model = write_shards(plan.folder / "large", [tensors[:half], tensors[half:]])
    began = time.perf_counter()
    run = scan_watched(model, plan.folder)
    taken = time.perf_counter() - began
    shutil.rmtree(model)
    return Row(
        part="c",
        case=f"layerwatch scan of {parameters / 1e9:.1f} billion parameters in BF16, two shards",
        seen=f"{taken:.0f} s; {' + '.join(f'{peak.resident / 1e6:.0f}' for peak in run.peaks)} MB resident "
        f"({run.private / 1e6:.0f} private)",
        result=f"{run.resident / 1e9:.2f} GB",
        target=f"< {LARGE_MODEL_TARGET / 1e9:.1f} GB",
        met=plan.judged(run.resident < LARGE_MODEL_TARGET),
        figures={
            "parameters": parameters,
            "seconds": taken,
            "resident_bytes": [peak.resident for peak in run.peaks],
            "private_bytes": [peak.private for peak in run.peaks],
            "layers_with_numbers": sorted(_WRITTEN),
        },
    )


def scan_watched(model: Path, folder: Path) -> WatchedRun:
    """``layerwatch scan`` as a user starts it: the command and its worker."""
    command = [sys.executable, "-P", "-m", "layerwatch.daemon", "scan", str(model), "--format", "csv"]
    run = run_watched(command, folder, dict(os.environ), timeout=3600)
    if run.returncode != 0:
        raise RuntimeError(f"the scan of {model} ended with {run.returncode}:\n{run.stderr[-2000:]}")
    return run

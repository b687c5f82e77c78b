"""Part e: scanning a version of which few layers changed, and the rate of the hashing that finds them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.scan.content import measure_content
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.metrics.manifest import build_manifest
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.detect import open_model
from layerwatch_bench import weights
from layerwatch_bench.clock import least_seconds
from layerwatch_bench.machine import CORES
from layerwatch_bench.plan import Plan
from layerwatch_bench.table import Row

SHARE_TARGET = 0.10
RATE_TARGET = 0.8e9

_ROUNDS = 3


def rescan(plan: Plan) -> Iterator[Row]:
    """The re-scan's share of a full scan, and the two hashing rates."""
    side, layers, changed = (256, 20, 1) if plan.quick else (1024, 60, 3)
    state = weights.heavy_tailed([(side, side)] * layers, seed=5)
    old = weights.write(plan.folder / "old.safetensors", state)
    for number in range(changed):
        state[f"layer{number * layers // changed}.weight"] *= 1.001
    new = weights.write(plan.folder / "new.safetensors", state)
    size = new.stat().st_size
    hashed = least_seconds({"files": lambda: build_manifest(new), "tensors": lambda: _digests(new)}, _ROUNDS)
    hashing = hashed["files"] + hashed["tensors"]
    executor = LocalExecutor(ScanSettings(niceness=0), threads=CORES)
    try:
        _scan(executor, old, ())  # Starts the worker, which the daemon keeps.
        kept, full = _scan(executor, old, ())
        agains = [_scan(executor, new, kept) for _ in range(_ROUNDS)]
    finally:
        executor.close()
    if any(len(measured) != changed for measured, _ in agains):
        raise RuntimeError(f"not {changed} layers were measured again")
    again = min(taken for _, taken in agains)
    share = (again - hashing) / full
    yield Row(
        part="e",
        case=f"re-scan, {changed} of {layers} layers {side}x{side} changed",
        seen=f"full scan {full:.2f} s, re-scan {again:.2f} s, of which hashing {hashing:.2f} s",
        result=f"{share:.1%} of a full scan, and hashing",
        target=f"< {SHARE_TARGET:.0%}",
        met=plan.judged(share < SHARE_TARGET),
        figures={
            "full_seconds": full,
            "rescan_seconds": [taken for _, taken in agains],
            "hashing_seconds": hashing,
            "share": share,
            "share_with_hashing": again / full,
        },
    )
    for what, taken in hashed.items():
        rate = size / taken
        yield Row(
            part="e",
            case=f"hashing of {what}",
            seen=f"{size / 1e6:.0f} MB in {taken:.3f} s",
            result=f"{rate / 1e9:.2f} GB/s",
            target=f">= {RATE_TARGET / 1e9:.1f} GB/s",
            met=plan.judged(rate >= RATE_TARGET),
            figures={"bytes": size, "seconds": taken, "bytes_per_second": rate},
        )


def _digests(path: Path) -> int:
    model = OpenModel(open_model(path), str(path))
    try:
        return len({model.read(layer).digest for layer in model.plan.layers})
    finally:
        model.close()


def _scan(executor: LocalExecutor, path: Path, kept: Collection[str]) -> tuple[set[str], float]:
    """What the daemon does with a version: the digests of the layers that were measured, and the seconds."""
    measured: set[str] = set()
    began = time.perf_counter()
    manifest = build_manifest(path)
    measure_content(
        executor,
        ScanRequest(str(path)),
        manifest.fingerprint,
        manifest.size_bytes,
        kept.__contains__,
        lambda measurement: measured.add(measurement.digest),
    )
    return measured, time.perf_counter() - began

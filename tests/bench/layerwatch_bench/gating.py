"""Part h: the gate on a pair of files, beside the scans of both that it cannot do without; and again, from its cache."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.scan.content import measure_content
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch_bench import weights
from layerwatch_bench.machine import CORES
from layerwatch_bench.plan import Plan
from layerwatch_bench.table import Row
from layerwatch_testing.processes import environment

RATIO_TARGET = 1.3
CACHED_TARGET = 5.0

_ROUNDS = 3


def gating(plan: Plan) -> Iterator[Row]:
    """The ratio, and the seconds of an answer for which nothing is measured."""
    side, layers = (256, 8) if plan.quick else (2048, 30)
    state = weights.heavy_tailed([(side, side)] * layers, seed=6)
    old = weights.write(plan.folder / "gate-old.safetensors", state)
    for values in state.values():
        values *= 1.001
    new = weights.write(plan.folder / "gate-new.safetensors", state)
    del state
    size = old.stat().st_size
    cache = plan.folder / "gate-cache"
    scans, gates = [], []
    for _ in range(_ROUNDS):
        scans.append(_taken(lambda: _scans((old, new))))
        gates.append(_taken(lambda: _gate(plan.folder, old, new, "--no-cache")))
    scan, whole = min(one.seconds for one in scans), min(one.seconds for one in gates)
    ratio = whole / scan
    yield Row(
        part="h",
        case=f"gate on a pair of {size / 1e6:.0f} MB",
        seen=f"both scans {scan:.2f} s, gate {whole:.2f} s",
        result=f"{ratio:.2f}x",
        target=f"< {RATIO_TARGET}x",
        met=plan.judged(ratio < RATIO_TARGET),
        figures={
            "scans": [asdict(one) for one in scans],
            "gates": [asdict(one) for one in gates],
            "ratio": ratio,
            "processor_ratio": min(one.processor for one in gates) / min(one.processor for one in scans),
        },
    )
    options = ("--cache", str(cache))
    first = _taken(lambda: _gate(plan.folder, old, new, *options))
    again = [_taken(lambda: _gate(plan.folder, old, new, *options)) for _ in range(_ROUNDS)]
    cached = min(one.seconds for one in again)
    entries = list(cache.iterdir())
    kept = sum(entry.stat().st_size for entry in entries)
    if len(entries) != 3:
        raise RuntimeError(f"{len(entries)} entries instead of two models and a comparison")
    yield Row(
        part="h",
        case="the same from the cache",
        seen=f"filling the cache ({kept / 1e6:.1f} MB) {first.seconds:.2f} s",
        result=f"{cached:.2f} s",
        target=f"< {CACHED_TARGET:.0f} s",
        met=plan.judged(cached < CACHED_TARGET),
        figures={"first": asdict(first), "cached": [asdict(one) for one in again], "cache_bytes": kept},
    )


@dataclass(frozen=True, slots=True)
class _Taken:
    """Seconds on the clock, and those that processors spent in child processes, which other load hardly changes."""

    seconds: float
    processor: float


def _taken(action: Callable[[], None]) -> _Taken:
    began, spent = time.perf_counter(), _spent()
    action()
    return _Taken(time.perf_counter() - began, _spent() - spent)


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _scans(paths: Sequence[Path]) -> None:
    """A scan of each by itself, the start of the scan process included; nothing is hashed, compared or judged."""
    executor = LocalExecutor(ScanSettings(niceness=0), threads=CORES)
    try:
        for path in paths:
            measure_content(
                executor,
                ScanRequest(str(path)),
                path.name,
                0,
                known=lambda digest: False,
                save=lambda measurement: None,
            )
    finally:
        executor.close()


def _gate(folder: Path, old: Path, new: Path, *options: str) -> None:
    """The whole command, as a process."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "layerwatch.daemon", "gate", new, "--baseline", old, *options],
        cwd=folder,
        env=environment(LAYERWATCH_SCAN__NICENESS="0", LAYERWATCH_SCAN__THREADS=str(CORES)),
        capture_output=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the gate ended with code {done.returncode}: {done.stderr.decode()}")

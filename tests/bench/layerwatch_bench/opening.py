"""Part j: opening a sharded model of more than 10 GB to list its tensors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from layerwatch_bench.plan import Plan
from layerwatch_bench.table import Row
from layerwatch_testing.bigmodels import LlamaSizes, llama, write_shards

SECONDS_TARGET = 0.1
MEMORY_TARGET = 50 * 2**20

ROUNDS = 20
_SHARDS = 4

_CODE = """
import json, pathlib, sys, time
from layerwatch.metrics.readers.detect import open_model

def peak():
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

before, seconds = peak(), []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    reader = open_model(pathlib.Path(sys.argv[1]))
    tensors = len(reader.tensors())
    seconds.append(time.perf_counter() - began)
    reader.close()
print(json.dumps({"seconds": seconds, "bytes": peak() - before, "tensors": tensors}))
"""


def opening(plan: Plan) -> Iterator[Row]:
    """One row: LLaMA-7B in BF16, whose tensors are holes, opened again and again by one process."""
    tensors = llama(LlamaSizes(blocks=2) if plan.quick else LlamaSizes(), {})
    model = write_shards(plan.folder / "opening", [tensors[number::_SHARDS] for number in range(_SHARDS)])
    size = sum(tensor.size_bytes for tensor in tensors)
    command = [sys.executable, "-P", "-c", _CODE, str(model), str(2 if plan.quick else ROUNDS)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    seconds, grown = told["seconds"], told["bytes"]
    yield Row(
        part="j",
        case=f"listing {told['tensors']} tensors of a safetensors model of {size / 1e9:.1f} GB in {_SHARDS} shards",
        seen=f"{seconds[0] * 1000:.0f} ms the first time, {median(seconds) * 1000:.0f} ms in the middle of {len(seconds)}; "
        f"memory grew by {grown / 2**20:.1f} MiB",
        result=f"{seconds[0] * 1000:.0f} ms, {grown / 2**20:.1f} MiB",
        target=f"< {SECONDS_TARGET * 1000:.0f} ms, < {MEMORY_TARGET >> 20} MiB",
        met=plan.judged(seconds[0] < SECONDS_TARGET and grown < MEMORY_TARGET),
        figures={"seconds": seconds, "bytes": grown, "size": size, "tensors": told["tensors"]},
    )

"""A model with the widths of LLaMA-7B, in shards, scanned by the command that a user types.

It has 4 of the 32 blocks, which keeps the test short; memory follows the largest layer, and ``make bench`` scans all
32. The files are sparse: a few layers hold numbers, one of each shape, and the rest are holes, which read as zeros
and take no room on the disk. They are read and hashed like any others.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwatch_testing.bigmodels import LlamaSizes, llama, write_shards
from layerwatch_testing.memorywatch import run_watched
from layerwatch_testing.processes import environment

LIMIT = 1_500_000_000
"""Bytes that command and worker may have resident together, mapped file pages included; the same for 32 blocks."""

WRITTEN = {
    "model.embed_tokens.weight": 1,
    "model.layers.0.self_attn.q_proj.weight": 2,
    "model.layers.0.mlp.gate_proj.weight": 3,
    "model.layers.0.mlp.down_proj.weight": 4,
}


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that keeps holes as holes; removed afterwards, unlike pytest's other folders."""
    probe = tmp_path / "probe"
    with probe.open("wb") as file:
        file.truncate(2**24)
    if probe.stat().st_blocks * 512 >= 2**24:
        pytest.skip(f"the file system of {tmp_path} writes holes out; 2 GB would land on the disk")
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_the_shapes_are_those_of_seven_billion_parameters() -> None:
    # Touvron et al., arXiv:2302.13971, table 2: 6.7B parameters; here two bytes each.
    assert sum(tensor.size_bytes for tensor in llama(LlamaSizes(), WRITTEN)) == 2 * 6_738_415_616


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_layers_as_wide_as_those_of_seven_billion_parameters_are_scanned_within_1_5_gb(sparse: Path) -> None:
    tensors = llama(LlamaSizes(blocks=4), WRITTEN)
    half = len(tensors) // 2
    model = write_shards(sparse / "model", [tensors[:half], tensors[half:]])
    report_path = sparse / "report.json"

    run = run_watched(
        [
            *(sys.executable, "-P", "-m", "layerwatch.daemon", "scan", str(model)),
            *("--format", "json", "--output", str(report_path)),
        ],
        sparse,
        environment(),
        timeout=800,
    )

    assert run.returncode == 0, run.stderr
    assert len(run.peaks) == 2
    assert run.resident < LIMIT
    layers = {layer["name"]: layer for layer in json.loads(report_path.read_text())["layers"]}
    assert {f"{name}.weight" for name in layers} >= {t.name for t in tensors if len(t.shape) == 2}
    full = {name.removesuffix(".weight") for name in WRITTEN}
    assert {name for name, layer in layers.items() if layer["status"] == "ok"} == full
    assert all(layers[name]["metrics"]["fit_status"] == "ok" for name in full)
    # A hole is a layer of zeros, examined like the others and found to be one.
    assert all(layers[name]["metrics"]["zero_share"] == 1.0 for name in layers.keys() - full)

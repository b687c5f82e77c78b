"""How many cores a scan may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerwatch.daemon.cores import usable_cores

ALL = len(os.sched_getaffinity(0))


# Both forms of the files: Linux, Documentation/admin-guide/cgroup-v2.rst ("cpu.max"), and scheduler/sched-bwc.rst.
@pytest.mark.parametrize(
    ("allowed", "cores"),
    [
        ("100000", 1),
        ("50000", 1),
        ("140000", 1),
        ("1000000000", ALL),
        ("max", ALL),
        ("-1", ALL),
        ("nonsense", ALL),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, allowed: str, cores: int) -> None:
    second = tmp_path / "second"
    second.mkdir()
    (second / "cpu.max").write_text(f"{allowed} 100000\n")
    first = tmp_path / "first"
    (first / "cpu").mkdir(parents=True)
    (first / "cpu" / "cpu.cfs_quota_us").write_text(f"{allowed}\n")
    (first / "cpu" / "cpu.cfs_period_us").write_text("100000\n")

    assert usable_cores(second) == cores
    assert usable_cores(first) == cores


def test_without_a_control_group_every_core_may_be_used(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == ALL

"""What the timings were taken on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import torch

CORES = len(os.sched_getaffinity(0))
"""Processor cores that this process may use; every tool is given as many threads."""


def facts() -> dict[str, str | int | float]:
    """The machine and the libraries; the load tells whether anything else was running."""
    return {
        "cores": CORES,
        "threads": CORES,
        "cpu": _cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "load_average_at_start": round(load_average(), 2),
    }


def load_average() -> float:
    """Running processes over the last minute, the benchmark's own included."""
    return os.getloadavg()[0]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()

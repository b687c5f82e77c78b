"""How many cores this process may use: a container is often allowed fewer than the machine has."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores by affinity and by the quota of the control group (versions 2 and 1), at least 1.

    Args:
        cgroup: where the control group of this process is mounted; in a container that is its own.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, round(quota)))


def _quota(cgroup: Path) -> float | None:
    """CPU time per time (``cpu.max``: Linux, Documentation/admin-guide/cgroup-v2.rst); None without a limit."""
    try:
        allowed, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            allowed = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (allowed.isdecimal() and period.isdecimal() and int(period) > 0):
        return None
    return int(allowed) / int(period)

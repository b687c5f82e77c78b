"""What the kernel says about processes (Linux ``/proc``), and the command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

MIB = 2**20


def children(parent: int | None = None) -> list[int]:
    """Process ids of the living children of a process, by default of this one; zombies do not count."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The fields behind the name, which is in brackets and may hold anything: state, parent, ...
            state, parent_id, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(parent_id) == (parent or os.getpid()) and state != "Z":
            found.append(int(folder.name))
    return found


def command(pid: int) -> list[str]:
    """The command line of a process, empty when it has ended."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text().split("\0")
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def peak_resident_bytes(pid: int) -> int:
    """The most memory a living process ever had resident, mapped file pages included (``VmHWM``)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmHWM")


def environment(**other: str) -> dict[str, str]:
    """An environment in which output is the same everywhere: no settings, no colours, UTF-8, UTC."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME") if name in os.environ
    }
    fixed = {"LANG": "C.UTF-8", "TZ": "UTC", "NO_COLOR": "1", "COLUMNS": "100", "LOGNAME": "tester"}
    return {**kept, **fixed, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **other}


def layerwatch(
    arguments: Sequence[str], folder: Path, extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``layerwatch`` with these arguments in a folder."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "layerwatch.daemon", *arguments],
        cwd=folder,
        env=environment(**(extra or {})),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )

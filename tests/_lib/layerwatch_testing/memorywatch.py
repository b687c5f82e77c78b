"""Peak memory of a command and of the processes it starts (Linux ``/proc``)."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from layerwatch_testing.processes import children

_INTERVAL = 0.02


@dataclass(frozen=True, slots=True)
class Peak:
    """The most memory that a process had, in bytes.

    Attributes:
        resident: private memory and pages of mapped files together, as the kernel keeps it (``VmHWM``).
        private: private memory alone (``RssAnon``), the largest value that was seen in samples.
    """

    resident: int
    private: int

    def at_least(self, other: Peak) -> Peak:
        """The larger of both, number by number."""
        return Peak(max(self.resident, other.resident), max(self.private, other.private))


class MemoryWatch:
    """Samples a process and its children in the background while the context is open.

    The kernel's own peak is read with every sample, so what happens between two samples is missed only when a
    process ends right after it.
    """

    def __init__(self, pid: int, itself: bool = True) -> None:
        self._pid = pid
        self._itself = itself
        self._peaks: dict[int, Peak] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()

    @property
    def peaks(self) -> Mapping[int, Peak]:
        """Peaks by process id."""
        return dict(self._peaks)

    def _sample_until_stopped(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            for pid in ([self._pid] if self._itself else []) + _descendants(self._pid):
                seen = _memory(pid)
                if seen is not None:
                    self._peaks[pid] = seen.at_least(self._peaks.get(pid, seen))


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """A finished command.

    Attributes:
        returncode, stderr: what it ended with and said; its standard output is dropped.
        peaks: peaks of the command (first) and of the processes it started.
    """

    returncode: int
    stderr: str
    peaks: tuple[Peak, ...]

    @property
    def resident(self) -> int:
        """Peak resident bytes of all processes together, as if they had peaked at the same moment."""
        return sum(peak.resident for peak in self.peaks)

    @property
    def private(self) -> int:
        """Peak private bytes of all processes together, as if they had peaked at the same moment."""
        return sum(peak.private for peak in self.peaks)


def run_watched(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> WatchedRun:
    """Run a command in a folder and watch its memory; raises TimeoutExpired, after ending it, when it takes longer."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        with MemoryWatch(process.pid) as watch:
            _, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return WatchedRun(process.returncode, stderr, tuple(watch.peaks.values()))


def _descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [below for child in found for below in _descendants(child)]


def _memory(pid: int) -> Peak | None:
    """None for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    kibibytes = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in lines)
        if "kB" in rest
    }
    if "VmHWM" not in kibibytes:
        return None
    return Peak(1024 * kibibytes["VmHWM"], 1024 * kibibytes["RssAnon"])

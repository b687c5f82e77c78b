"""Runs scans in child processes: spawned, niced, memory- and time-limited, recycled."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import IO, Any, Protocol, TypeVar

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.cores import usable_cores
from layerwatch.daemon.scan import messages
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.daemon.scan.worker import OUT_OF_MEMORY
from layerwatch.metrics.census.remark import StorageRemark
from layerwatch.metrics.coupling import Coupling
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.tensors import UnexaminedFile

RECYCLE_AFTER = 20
"""A worker is replaced after this many scans, so that no leak of a library lasts."""

_STDERR_TAIL = 2000

_SIGNAL_HINTS: dict[int, str] = {
    signal.SIGKILL: " (is the machine short of memory?)",
    signal.SIGBUS: " (the file was shortened while it was read, or the disk failed)",
}

Source = TypeVar("Source")
Parsed = TypeVar("Parsed")


@dataclass(slots=True)
class ScanListener:
    """What the caller hears while a scan runs.

    Attributes:
        known: asked for each layer's digest before it is measured.
        on_plan: told the number of layers and vectors to come.
        on_layer: told each one as it is finished.
    """

    known: Callable[[str], bool]
    on_layer: Callable[[MeasuredLayer], None]
    on_plan: Callable[[int], None] = field(default=lambda total: None)


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """What a finished scan says about the file as a whole.

    Attributes:
        couplings_problem: why it is not known what the layers share, or None.
        remarks: what its storage contradicts.
    """

    format: str
    skipped: tuple[Skipped, ...]
    unexamined: tuple[UnexaminedFile, ...] = ()
    couplings: tuple[Coupling, ...] = ()
    couplings_problem: str | None = None
    remarks: tuple[StorageRemark, ...] = ()


class Executor(Protocol):
    """Runs one scan at a time per calling thread."""

    def scan(self, request: ScanRequest, listener: ScanListener) -> ScanOutcome:
        """Measure a model.

        Raises:
            UnreadableError: the whole of it cannot be examined.
            WorkerStartError: the scan could not even begin.
        """

    def rest(self) -> None:
        """There is nothing to scan for now: give memory back."""

    def close(self) -> None:
        """End the child at once."""


class LocalExecutor:
    """Keeps one worker process warm between scans; used by one thread."""

    def __init__(self, settings: ScanSettings, threads: int | None = None) -> None:
        self._settings = settings
        self._threads = threads or settings.threads or usable_cores()
        self._worker: _Worker | None = None
        self._closed = False

    def scan(self, request: ScanRequest, listener: ScanListener) -> ScanOutcome:
        """Measure a model in the worker; a worker that dies, stalls or babbles is replaced."""
        worker = self._usable_worker()
        try:
            if self._closed:
                raise _WorkerLost(UnreadableReason.WORKER_DIED, "closed")
            answer = worker.scan(request, listener, self._settings.timeout)
        except _WorkerLost as lost:
            self.rest()
            detail = (
                "the scan was interrupted because layerwatch is stopping" if self._closed else lost.detail
            )
            raise UnreadableError(lost.reason, request.path, detail) from lost
        except BaseException:
            # The conversation is broken off in the middle; the worker cannot be used again.
            self.rest()
            raise
        if isinstance(answer, UnreadableError):
            raise answer
        return answer

    def prepare(self) -> None:
        """Start the worker now: it loads its libraries while the caller is still busy with something else."""
        self._usable_worker()

    def rest(self) -> None:
        """End the worker; its memory goes back to the system."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """End the worker, also in the middle of a scan (called from another thread)."""
        # The scanning thread stores its worker before it looks at this flag, so that one of the two ends it.
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.kill()

    def _usable_worker(self) -> _Worker:
        worker = self._worker
        # An idle worker may have been ended from outside, for example to free memory.
        if worker is None or worker.scans >= RECYCLE_AFTER or not worker.alive:
            self.rest()
            try:
                worker = self._worker = _Worker(self._settings, self._threads)
            except OSError as error:
                raise WorkerStartError(
                    f"the scan process cannot be started: {error.strerror or type(error).__name__}; look at the "
                    "machine's limits on processes and memory, and at the room for temporary files"
                ) from error
        return worker


class WorkerStartError(Exception):
    """No worker process can be started now: the machine lacks processes, memory or room for temporary files.

    Says nothing about the model that was to be scanned.
    """


class _WorkerLost(Exception):  # noqa: N818 - an event, turned into UnreadableError by the executor
    def __init__(self, reason: UnreadableReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


class _WorkerGone(Exception):  # noqa: N818 - an event between the worker and its handler
    """The worker closed its end."""


class _Babble(Exception):  # noqa: N818 - an event between the worker and its handler
    """The worker sent something that is no message."""


def _parsed(parse: Callable[[Source], Parsed], source: Source) -> Parsed:
    """Keep the worker's malformed messages apart from errors of the listener."""
    try:
        return parse(source)
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise _Babble from error


class _Worker:
    def __init__(self, settings: ScanSettings, threads: int) -> None:
        self.scans = 0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "layerwatch.daemon.scan.worker"),
                *("--memory-limit", str(settings.memory_limit)),
                *("--niceness", str(settings.niceness)),
                *("--threads", str(threads)),
                *("--precision", settings.precision),
                *("--device", settings.device),
                *("--parent", str(os.getpid())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(threads),
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def scan(
        self, request: ScanRequest, listener: ScanListener, timeout: timedelta
    ) -> ScanOutcome | UnreadableError:
        """What the worker says about the model; raises _WorkerLost when it says nothing any more."""
        self.scans += 1
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(timeout.total_seconds(), expire)
        timer.daemon = True
        timer.start()
        try:
            return self._converse(request, listener)
        except _Babble as error:
            detail = "the scan process sent something that is no message; it was ended"
            raise _WorkerLost(UnreadableReason.WORKER_DIED, detail) from error
        except _WorkerGone as error:
            if expired.is_set():
                detail = f"not finished after {timeout}: raise scan.timeout, or look at the file's size"
                raise _WorkerLost(UnreadableReason.TIMEOUT, detail) from error
            raise self._obituary() from error
        finally:
            timer.cancel()

    def _converse(self, request: ScanRequest, listener: ScanListener) -> ScanOutcome | UnreadableError:
        self._send(asdict(request))
        outcome: ScanOutcome | None = None
        while True:
            message = self._receive()
            match message.get("type"):
                case "plan":
                    outcome = ScanOutcome(
                        str(message.get("format")),
                        _parsed(messages.skipped_of, message),
                        _parsed(messages.unexamined_of, message),
                    )
                    listener.on_plan(_parsed(lambda plan: int(plan["total"]), message))
                case "remarks" if outcome is not None:
                    outcome = replace(outcome, remarks=_parsed(messages.remarks_of, message))
                case "known?":
                    self._send({"known": listener.known(str(message.get("digest")))})
                case "layer":
                    listener.on_layer(_parsed(messages.layer_of, message))
                case "couplings" if outcome is not None:
                    outcome = replace(
                        outcome,
                        couplings=_parsed(messages.couplings_of, message),
                        couplings_problem=_parsed(messages.couplings_problem_of, message),
                    )
                case "failed":
                    return _parsed(messages.error_of, message)
                case "done" if outcome is not None:
                    return outcome
                case _:
                    raise _Babble

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(messages.encode(message))
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise _WorkerGone from error

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline(messages.MAX_LINE)
        except (OSError, ValueError) as error:
            raise _WorkerGone from error
        if len(line) == messages.MAX_LINE:
            raise _Babble
        if not line.endswith(b"\n"):
            raise _WorkerGone
        return _parsed(messages.decode, line)

    def _obituary(self) -> _WorkerLost:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        if code == OUT_OF_MEMORY:
            return _WorkerLost(UnreadableReason.MEMORY_LIMIT, messages.MEMORY_ADVICE)
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - _STDERR_TAIL))
        tail = self._errors.read().decode(errors="replace").strip().splitlines()
        if code is None:
            how = "closed its output"
        elif code < 0:
            how = f"was ended by signal {-code}{_SIGNAL_HINTS.get(-code, '')}"
        else:
            how = f"ended with code {code}"
        last_words = f": {tail[-1]}" if tail else ""
        return _WorkerLost(UnreadableReason.WORKER_DIED, f"the scan process {how}{last_words}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _environment(threads: int) -> dict[str, str]:
    """The child's environment: no secret of the daemon reaches the process that opens untrusted files."""
    kept = (
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
    )
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    environment["PYTHONSAFEPATH"] = "1"
    # A thread that waits for another soon sleeps: on a busy machine it would burn the core that the other needs
    # (an eigenvalue problem of side 4096 beside one busy process: 4 s instead of 10 s; alone no difference).
    environment["GOMP_SPINCOUNT"] = "2000"
    # Glibc otherwise keeps freed blocks in per-thread arenas, which count against the limit.
    environment["MALLOC_ARENA_MAX"] = "2"
    # Blocks of this size and more go back to the system as soon as they are freed (a fixed threshold; by itself
    # glibc raises it to 32 MiB, and freed matrices then stay behind as holes in the heap).
    environment["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    return environment

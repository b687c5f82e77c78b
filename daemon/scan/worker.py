"""The child process that opens and measures weights: ``python -m layerwatch.daemon.scan.worker``.

Reads requests from standard input, writes messages to standard output (``messages.py``), and lives until its
input ends. Limits are set by the child on itself before anything heavy is imported.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from layerwatch.daemon.scan.messages import ScanRequest
    from layerwatch.metrics.options import MeasureOptions

OUT_OF_MEMORY = 12
"""Exit code of a worker that ran into its memory limit outside a scan, mostly while it starts (12 is ENOMEM)."""


_PR_SET_PDEATHSIG = 1
"""Of ``linux/prctl.h``: the signal that the kernel sends to a process when its parent dies."""


def main() -> None:
    """Entry point of the child."""
    arguments = _arguments()
    _end_with_parent(arguments.parent)
    os.nice(arguments.niceness)
    # Private memory only: mapped weight files are cache that the system may drop, and must not count.
    resource.setrlimit(resource.RLIMIT_DATA, (arguments.memory_limit, arguments.memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The protocol gets its own descriptor; whatever a library prints goes to standard error.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _serve(sys.stdin.buffer, output, arguments)
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)


def _end_with_parent(parent: int) -> None:
    """See to it that this process does not outlive a killed parent, busy for minutes with a layer nobody waits for.

    The signal follows the thread that started this process; that one uses the worker and lives as long.
    """
    # Not offered by every system; without it the end of the input is noticed after the layer in progress.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the kernel was asked.
    if os.getppid() != parent:
        sys.exit("the process that started this scan process is gone")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory-limit", type=int, required=True, help="bytes of private memory")
    parser.add_argument("--niceness", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", required=True, help="auto, float64 or float32")
    parser.add_argument("--device", required=True, help="auto, cpu or cuda")
    parser.add_argument("--parent", type=int, required=True, help="id of the process that this one ends with")
    return parser.parse_args()


def _serve(requests: IO[bytes], output: IO[bytes], arguments: argparse.Namespace) -> None:
    import torch

    # Imported now, not with the first request: the parent starts this process ahead of it.
    from layerwatch.daemon.scan.messages import ScanRequest, decode, encode
    from layerwatch.metrics.options import Device, MeasureOptions, Precision

    torch.set_num_threads(arguments.threads)
    precision, device = Precision(arguments.precision), Device(arguments.device)
    import layerwatch.metrics.measure  # noqa: F401

    for line in requests:
        request = ScanRequest(**decode(line))
        options = MeasureOptions(precision, device, request.shuffled)
        output.write(encode(_scan(request, options, requests, output)))
        output.flush()


def _scan(
    request: ScanRequest, options: MeasureOptions, requests: IO[bytes], output: IO[bytes]
) -> dict[str, object]:
    from layerwatch.daemon.scan.messages import (
        MEMORY_ADVICE,
        couplings_message,
        decode,
        encode,
        error_to_json,
        layer_message,
        plan_message,
        remarks_message,
    )
    from layerwatch.metrics.errors import UnreadableError, UnreadableReason
    from layerwatch.metrics.guardedcouplings import couplings_or_problem
    from layerwatch.metrics.measure import measure_layers
    from layerwatch.metrics.openmodel import OpenModel, open_layers

    def send(message: dict[str, object]) -> None:
        output.write(encode(message))
        output.flush()

    def known(digest: str) -> bool:
        send({"type": "known?", "digest": digest})
        return bool(decode(requests.readline())["known"])

    def second(path: str) -> OpenModel | None:
        """The baseline's trouble is its own, and told when it is measured."""
        try:
            return open_layers(Path(path))
        except (UnreadableError, OSError):
            return None

    models: list[OpenModel] = []
    try:
        model = open_layers(Path(request.path))
        models.append(model)
        baseline = second(request.baseline_path) if request.baseline_path else None
        if baseline is not None:
            models.append(baseline)
        send(plan_message(model.plan, model.format))
        send(remarks_message(model.remarks()))
        for measured in measure_layers(model, known, baseline, options, request.baseline_digests):
            send(layer_message(measured))
        send(couplings_message(*couplings_or_problem(model)))
    except UnreadableError as error:
        return {"type": "failed", **error_to_json(error)}
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "alloc" in str(error):
            failure = UnreadableError(UnreadableReason.MEMORY_LIMIT, request.path, MEMORY_ADVICE)
            return {"type": "failed", **error_to_json(failure)}
        raise
    except OSError as error:
        detail = error.strerror or type(error).__name__
        return {
            "type": "failed",
            **error_to_json(UnreadableError(UnreadableReason.IO_ERROR, request.path, detail)),
        }
    finally:
        for one in models:
            one.close()
    return {"type": "done"}


if __name__ == "__main__":
    main()

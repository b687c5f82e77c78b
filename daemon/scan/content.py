"""One scan turned into the record that is kept of a set of weight files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from layerwatch.daemon.scan.executor import Executor, ScanListener
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.daemon.store.records import ContentRecord, SkippedTensor
from layerwatch.metrics.census.remark import StorageRemark
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.coupling import Coupling
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.layerentry import LayerEntry, entry_of, unexamined_entry
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import METRIC_SET, Measurement

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scan is: layers done, layers in all, name of the one just done."""

    done: int
    total: int
    layer: str


@dataclass(frozen=True, slots=True)
class MeasuredContent:
    """What a scan found.

    Attributes:
        content: the record to keep.
        exact: element-wise comparisons with the baseline file, by layer name; empty when none was given.
    """

    content: ContentRecord
    exact: dict[str, AlignedChange]


def measure_content(
    executor: Executor,
    request: ScanRequest,
    fingerprint: str,
    size_bytes: int,
    known: Callable[[str], bool],
    save: Callable[[Measurement], None],
    progress: Callable[[Progress], None] = lambda progress: None,
) -> MeasuredContent:
    """Scan a model and describe what was found.

    A file that cannot be examined for a lasting reason is a result: its record carries the problem.

    Args:
        known: whether a layer's measurement is kept already.
        save: keeps a new measurement; called once per layer that was measured.

    Raises:
        UnreadableError: for a reason that another attempt may cure.
    """
    began = time.monotonic()
    entries: list[LayerEntry] = []
    exact: dict[str, AlignedChange] = {}
    passing: list[UnreadableError] = []
    total = 0

    def on_plan(count: int) -> None:
        nonlocal total
        total = count

    def on_layer(measured: MeasuredLayer) -> None:
        if measured.measurement is not None:
            save(measured.measurement)
        if measured.exact is not None:
            exact[measured.layer.name] = measured.exact
        if measured.problem is not None and measured.problem.transient:
            passing.append(measured.problem)
        entries.append(entry_of(measured))
        progress(Progress(len(entries), total, measured.layer.name))

    file_format = "unknown"
    skipped: tuple[SkippedTensor, ...] = ()
    couplings: tuple[Coupling, ...] = ()
    remarks: tuple[StorageRemark, ...] = ()
    problem: tuple[str, str] | None = None
    try:
        outcome = executor.scan(request, ScanListener(known, on_layer, on_plan))
        file_format = outcome.format
        skipped = tuple(SkippedTensor(one.name, one.reason) for one in outcome.skipped)
        couplings = outcome.couplings
        remarks = outcome.remarks
        if outcome.couplings_problem is not None:
            _LOGGER.warning(
                "%s: %s; the layers are judged one by one", request.path, outcome.couplings_problem
            )
        if passing:
            # One layer that a fault of the file system hid must not be recorded as if it were the file's own.
            raise passing[0]
        entries.extend(unexamined_entry(one) for one in outcome.unexamined)
    except UnreadableError as error:
        if error.transient:
            raise
        entries.clear()
        exact.clear()
        couplings = ()
        remarks = ()
        problem = (str(error.reason), str(error))
    content = ContentRecord(
        fingerprint=fingerprint,
        metric_set=METRIC_SET,
        format=file_format,
        size_bytes=size_bytes,
        layers=tuple(entries),
        skipped=skipped,
        file_problem=problem,
        measure_seconds=time.monotonic() - began,
        couplings=couplings,
        remarks=remarks,
    )
    return MeasuredContent(content, exact)


def unreadable_content(fingerprint: str, size_bytes: int, error: UnreadableError) -> ContentRecord:
    """The record of files that could not be examined after every attempt."""
    return ContentRecord(
        fingerprint=fingerprint,
        metric_set=METRIC_SET,
        format="unknown",
        size_bytes=size_bytes,
        layers=(),
        skipped=(),
        file_problem=(str(error.reason), str(error)),
        measure_seconds=0.0,
    )

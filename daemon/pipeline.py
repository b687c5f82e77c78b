"""One version from the queue to its verdict: scan, compare, judge, record. Repeatable after a kill at any point."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from layerwatch.config.rules import RulesSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.baselines import BaselineChoice, choose_baseline
from layerwatch.daemon.fingerprints import is_stand_in
from layerwatch.daemon.registries.base import Registry, RegistryUnavailable
from layerwatch.daemon.scan.content import measure_content, unreadable_content
from layerwatch.daemon.scan.executor import Executor, WorkerStartError
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.daemon.store import contents, measurements, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.metrics.errors import TRANSIENT_REASONS, UnreadableError, UnreadableReason
from layerwatch.metrics.examination import Examination, InPlaceChange, Problem
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch.metrics.joining import examine
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.manifest import weight_files
from layerwatch.metrics.measurement import METRIC_SET, Measurement
from layerwatch.metrics.report import BaselinePart, ModelPart, Report, build_report

_LOGGER = logging.getLogger(__name__)
_FIRST_RETRY = timedelta(seconds=5)
_LONGEST_RETRY = timedelta(minutes=10)
_PATIENCE = 10
"""So many attempts more than configured are made where the version is not at fault, as far as one can tell: its
files moved, or something unexpected went wrong. Attempts that were interrupted are not counted at all."""


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """What the pipeline needs of the configuration."""

    scan: ScanSettings
    rules: RulesSettings


class Interrupted(Exception):  # noqa: N818 - a request to stop, not an error
    """The daemon is stopping; the version goes back to the queue."""


class Pipeline:
    """Takes versions from the queue, one at a time. One instance per worker thread.

    Args:
        database: the store.
        registries: looks a registry up by name; None when it is no longer configured.
        executor: runs scans.
        settings: asked anew for each version, so that a reload takes effect between two.
        judged: called inside the recording transaction, to move refs and queue alerts with the verdict.
        telemetry: counters.
        clock: tz-aware time now.
        stopping: True once the daemon shuts down.
        alive: called at each layer, so that a long scan is not taken for a hang.
    """

    def __init__(
        self,
        database: Database,
        registries: Callable[[str], Registry | None],
        executor: Executor,
        settings: Callable[[], PipelineSettings],
        judged: Callable[[Connection, VersionRecord, datetime], None],
        telemetry: DaemonTelemetry,
        clock: Callable[[], datetime],
        stopping: Callable[[], bool],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._registries = registries
        self._executor = executor
        self._settings = settings
        self._judged = judged
        self._telemetry = telemetry
        self._clock = clock
        self._stopping = stopping
        self._alive = alive
        self._still_claimed: tuple[int, datetime | None, bool] | None = None

    def process_next(self) -> str | None:
        """Scan and judge the next waiting version.

        Returns:
            A sentence for the log, or None when nothing waits.

        Raises:
            Interrupted: the daemon is stopping.
            WorkerStartError: no scan can be begun now, whichever the version; it was put back and waits.
        """
        self._release_what_is_still_claimed()
        with self._database.write() as connection:
            version = versions.claim_next(connection, self._clock())
        if version is None:
            return None
        self._telemetry.scans.inc()
        began = time.monotonic()
        try:
            sentence = self._examine(version)
        except Interrupted:
            self._put_back(version, None, counted=False)
            raise
        except WorkerStartError:
            self._put_back(version, self._clock() + _delay(version), counted=False)
            raise
        except BaseException:
            # Whatever it was, the version must not stay claimed; and it waits, so that others get their turn.
            self._put_back(version, self._clock() + _delay(version))
            raise
        self._telemetry.scan_duration.observe(time.monotonic() - began)
        return f"{version.key.registry}/{version.key.model}/{version.key.version}: {sentence}"

    def _examine(self, version: VersionRecord) -> str:
        if version.attempts > self._settings().scan.attempts + _PATIENCE:
            detail = (
                f"its scan was begun {version.attempts - 1} times and never finished; see the log, then publish "
                "the version again"
            )
            return describe(self._give_up(version, UnreadableReason.WORKER_DIED, detail))
        try:
            return describe(self._judge_and_record(version, self._content(version)))
        except UnreadableError as error:
            return self._failed(version, error)

    def _give_up(self, version: VersionRecord, reason: UnreadableReason, detail: str) -> Judgement:
        self._telemetry.scan_failures.labels(str(reason)).inc()
        lost = UnreadableError(reason, version.source_path, detail)
        return self._judge_and_record(version, unreadable_content(version.fingerprint, 0, lost))

    def _content(self, version: VersionRecord) -> ContentRecord:
        """What is in the version's files; from the store when the same bytes were measured before."""
        with self._database.read() as connection:
            content = contents.load(connection, version.fingerprint, METRIC_SET)
            if content is not None and self._complete(connection, content):
                return content
        if self._stopping():
            raise Interrupted
        registry = self._registries(version.key.registry)
        if registry is None:
            detail = f"registry {version.key.registry} is no longer configured"
            raise UnreadableError(UnreadableReason.NOT_FOUND, version.source_path, detail)
        try:
            with registry.open(version.source_path) as path:
                self._require_unchanged(registry, version)
                measured = measure_content(
                    self._executor,
                    ScanRequest(str(path)),
                    version.fingerprint,
                    sum(file.stat().st_size for file in weight_files(path)),
                    self._known,
                    self._save,
                )
                self._require_unchanged(registry, version)
        except RegistryUnavailable as error:
            raise UnreadableError(UnreadableReason.NOT_FOUND, version.source_path, error.detail) from error
        except OSError as error:
            detail = error.strerror or type(error).__name__
            raise UnreadableError(UnreadableReason.IO_ERROR, version.source_path, detail) from error
        if measured.content.file_problem is not None:
            self._telemetry.scan_failures.labels(measured.content.file_problem[0]).inc()
        with self._database.write() as connection:
            contents.save(connection, measured.content, self._clock())
        return measured.content

    def _require_unchanged(self, registry: Registry, version: VersionRecord) -> None:
        """What is measured must be what was fingerprinted; the next look registers the new bytes."""
        if registry.token(version.source_path) != version.token:
            detail = "its files changed after they were fingerprinted; they are looked at again"
            raise UnreadableError(UnreadableReason.CHANGED_WHILE_READING, version.source_path, detail)

    def _complete(self, connection: Connection, content: ContentRecord) -> bool:
        """Whether another scan of the same bytes would tell nothing new.

        It would where retention took some of the measurements, or a layer failed for a reason that may have passed.
        """
        if any(entry.problem_reason in TRANSIENT_REASONS for entry in content.layers):
            return False
        digests = [entry.digest for entry in content.layers if entry.digest]
        return len(measurements.load_scalars(connection, digests)) == len(set(digests))

    def _known(self, digest: str) -> bool:
        if self._stopping():
            raise Interrupted
        self._alive()
        with self._database.read() as connection:
            return measurements.known(connection, digest)

    def _save(self, measurement: Measurement) -> None:
        with self._database.write() as connection:
            measurements.save(connection, measurement, self._clock())

    def _failed(self, version: VersionRecord, error: UnreadableError) -> str:
        """A failure that may pass is tried again, later each time; the last one is a verdict: undecided."""
        self._telemetry.scan_failures.labels(str(error.reason)).inc()
        if self._stopping():
            self._release(version.id, None, counted=False)
            return "interrupted by the shutdown, waits again"
        limit = self._settings().scan.attempts
        if error.reason is UnreadableReason.CHANGED_WHILE_READING:
            limit += _PATIENCE
        if version.attempts < limit:
            delay = _delay(version)
            self._release(version.id, self._clock() + delay)
            return f"attempt {version.attempts} failed, next in {delay.total_seconds():.0f} s: {error}"
        judgement = self._judge_and_record(version, unreadable_content(version.fingerprint, 0, error))
        return f"{describe(judgement)} after {version.attempts} attempts: {error}"

    def _release(self, version_id: int, not_before: datetime | None, counted: bool = True) -> None:
        with self._database.write() as connection:
            versions.release(connection, version_id, not_before, counted)

    def _put_back(self, version: VersionRecord, not_before: datetime | None, counted: bool = True) -> None:
        self._still_claimed = (version.id, not_before, counted)
        try:
            self._release_what_is_still_claimed()
        except StoreError as error:
            # The disk is full, say: tried again before the next version is taken.
            _LOGGER.warning("%s stays claimed for now: %s", version.key, error)

    def _release_what_is_still_claimed(self) -> None:
        if self._still_claimed is None:
            return
        try:
            self._release(*self._still_claimed)
        except StoreError as error:
            # Judged after all, or forgotten by retention: then there is nothing to put back.
            if error.reason not in (StoreReason.WRONG_STATE, StoreReason.NOT_FOUND):
                raise
        self._still_claimed = None

    def _judge_and_record(self, version: VersionRecord, content: ContentRecord) -> Judgement:
        began = time.monotonic()
        if content.file_problem is not None:
            _LOGGER.warning("%s: %s", version.source_path, content.file_problem[1])
        with self._database.read() as connection:
            choice = choose_baseline(connection, version)
            in_place = _in_place(connection, version)
        baseline, problem = self._baseline(version, choice)
        if choice is not None and baseline is None and problem is None:
            choice = None

        def load(digest: str) -> Measurement | None:
            with self._database.read() as connection:
                return measurements.load(connection, digest)

        examination = replace(examine(content, baseline, load, {}, in_place), baseline_problem=problem)
        judgement = judge(examination, self._settings().rules)
        timings = {
            "measure_seconds": content.measure_seconds,
            "judge_seconds": time.monotonic() - began,
        }
        report = _report(version, content, choice, baseline, examination, judgement, timings)
        now = self._clock()
        with self._database.write() as connection:
            versions.record_verdict(
                connection, version.id, judgement.verdict, report.to_json(), judgement.findings, now
            )
            self._judged(connection, version, now)
        return judgement

    def _baseline(
        self, version: VersionRecord, choice: BaselineChoice | None
    ) -> tuple[ContentRecord | None, Problem | None]:
        """The baseline's measurements, taken anew where the store no longer has them, or why there are none.

        A version out of the history whose files are lost is no baseline; one that was declared, or chosen by a
        person, leaves the judged version undecided.
        """
        if choice is None:
            return None, None
        try:
            content = self._content(choice.version)
        except UnreadableError as error:
            if self._stopping():
                # The end of the scan process says nothing about the baseline.
                raise Interrupted from error
            if error.transient and version.attempts < self._settings().scan.attempts:
                raise
            _LOGGER.warning("baseline %s cannot be measured again: %s", choice.version.key.version, error)
            lost = None if choice.is_history else Problem(str(error.reason), str(error))
            return None, lost
        return (content, None) if content.file_problem is None else (None, Problem(*content.file_problem))


def describe(judgement: Judgement) -> str:
    """The verdict and what led to it, in one line."""
    critical = [finding for finding in judgement.findings if finding.severity is Severity.CRITICAL]
    shown = critical or [finding for finding in judgement.findings if finding.severity is Severity.WARNING]
    if not shown:
        return f"{judgement.verdict}"
    first = shown[0]
    layers = {finding.layer for finding in shown if finding.layer}
    where = f"{first.layer}: " if first.layer else ""
    more = f" ({len(layers)} layers)" if len(layers) > 1 else ""
    return f"{judgement.verdict}: {where}{first.message}{more}"


def _in_place(connection: Connection, version: VersionRecord) -> InPlaceChange | None:
    """Other bytes than those that were examined last under this name.

    Bytes that were replaced before they were examined, and moments at which nothing could be read, do not count:
    a slow writer, or a disk that fails for a while, is no tampering.
    """
    if is_stand_in(version.fingerprint):
        return None
    unread: str | None = None
    later: VersionRecord | None = version
    while later is not None and (previous := later.previous_fingerprint) is not None:
        before = versions.previous_revision(connection, later)
        if is_stand_in(previous):
            unread = previous
        elif before is None or before.verdict is not None:
            readable = before is None or before.verdict is not Verdict.UNDECIDED
            unchanged = previous == version.fingerprint
            return None if unchanged else InPlaceChange(previous, version.fingerprint, readable)
        later = before
    return None if unread is None else InPlaceChange(unread, version.fingerprint, was_readable=False)


def _delay(version: VersionRecord) -> timedelta:
    seconds = _FIRST_RETRY.total_seconds() * 2.0 ** min(version.attempts - 1, 20)
    return min(timedelta(seconds=seconds), _LONGEST_RETRY)


def _report(
    version: VersionRecord,
    content: ContentRecord,
    choice: BaselineChoice | None,
    baseline: ContentRecord | None,
    examination: Examination,
    judgement: Judgement,
    timings: dict[str, float],
) -> Report:
    model = _model_part(version, content)
    part = None
    if choice is not None:
        part = BaselinePart(
            **_model_part(choice.version, baseline).model_dump(),
            relation=choice.relation,
            chosen_by=choice.chosen_by,
        )
    skipped = tuple(Skipped(one.name, one.reason) for one in content.skipped)
    return build_report(model, part, examination, judgement, skipped, timings)


def _model_part(version: VersionRecord, content: ContentRecord | None) -> ModelPart:
    return ModelPart(
        source=f"{version.key.registry}:{version.source_path}",
        name=version.key.model,
        version=version.key.version,
        fingerprint=version.fingerprint,
        format=content.format if content else None,
        size_bytes=content.size_bytes if content else None,
    )

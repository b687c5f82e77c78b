"""One version from the queue to its verdict: scan, compare, judge, record. Repeatable after a kill at any point."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from layerwatch.config.baselines import BaselinesSettings
from layerwatch.config.rules import RulesSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.baselines import BaselineChoice, accept_if_passing, choose_baseline, known_relation
from layerwatch.daemon.examining import examine_stored, in_place_change
from layerwatch.daemon.history import load_history
from layerwatch.daemon.lineage.weights import find_in_weights
from layerwatch.daemon.lineage.weights import record as record_kin
from layerwatch.daemon.measuring import Interrupted, Measuring
from layerwatch.daemon.merging import ingredients
from layerwatch.daemon.registries.base import Registry
from layerwatch.daemon.scan.content import unreadable_content
from layerwatch.daemon.scan.executor import Executor, WorkerStartError
from layerwatch.daemon.setbacks import Setbacks
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.daemon.store.summaries import layers_of
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.examination import Examination, Problem
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.report import BaselinePart, ModelPart, Report, build_report

__all__ = ["Interrupted", "Pipeline", "PipelineSettings", "describe"]

_LOGGER = logging.getLogger(__name__)
_LONGEST_EXEMPLAR = 128
"""Characters of all names and values of its labels together (OpenMetrics 1.0, "Exemplars")."""
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
    baselines: BaselinesSettings


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
        setbacks: told what failed and is tried again.
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
        setbacks: Setbacks | None = None,
    ) -> None:
        self._database = database
        self._setbacks = setbacks or Setbacks()
        self._settings = settings
        self._judged = judged
        self._telemetry = telemetry
        self._clock = clock
        self._stopping = stopping
        self._measuring = Measuring(database, registries, executor, telemetry, clock, stopping, alive)
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
        version = None
        try:
            with self._database.write() as connection:
                version = versions.claim_next(connection, self._clock())
        except StoreError:
            # A server may have committed it, and the connection was lost before it said so.
            if version is not None:
                self._still_claimed = (version.id, None, False)
            raise
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
        self._telemetry.scan_duration.observe(time.monotonic() - began, _exemplar(version))
        return f"{version.key.registry}/{version.key.model}/{version.key.version}: {sentence}"

    def _examine(self, version: VersionRecord) -> str:
        if version.attempts > self._settings().scan.attempts + _PATIENCE:
            detail = (
                f"its scan was begun {version.attempts - 1} times and never finished; see the log, then publish "
                "the version again"
            )
            return describe(self._give_up(version, UnreadableReason.WORKER_DIED, detail))
        try:
            return describe(self._judge_and_record(version))
        except UnreadableError as error:
            return self._failed(version, error)

    def _give_up(self, version: VersionRecord, reason: UnreadableReason, detail: str) -> Judgement:
        self._telemetry.scan_failures.labels(str(reason)).inc()
        lost = UnreadableError(reason, version.source_path, detail)
        return self._judge_and_record(version, unreadable_content(version.fingerprint, 0, lost))

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
            self._setbacks.note(version.id, error)
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

    def _judge_and_record(self, version: VersionRecord, unreadable: ContentRecord | None = None) -> Judgement:
        """Compare with the baseline, judge, and record it all at once.

        Args:
            unreadable: stands for what is in files that could not be examined; None to measure them.
        """
        if unreadable is None:
            self._measure_ingredients(version)
        choice = self._choice(version)
        while True:
            baseline, problem = self._baseline(version, choice)
            exact: Mapping[str, AlignedChange] = {}
            if unreadable is not None:
                content = unreadable
            else:
                against = choice.version if choice is not None else None
                content, exact = self._measuring.compared(version, against, baseline)
            chosen_now = self._choice(version)
            if _same(choice, chosen_now):
                break
            # A scan may take an hour, in which a person may choose another baseline.
            choice = chosen_now
        began = time.monotonic()
        if content.file_problem is not None:
            _LOGGER.warning("%s: %s", version.source_path, content.file_problem[1])
        if choice is not None and baseline is None and problem is None:
            choice = None
        with self._database.read() as connection:
            in_place = in_place_change(connection, version)
            history = load_history(connection, version) if baseline is not None else None
            kin = find_in_weights(connection, version, content)
        examination = examine_stored(
            self._database,
            content,
            baseline,
            exact,
            in_place=in_place,
            baseline_problem=problem,
            relation=known_relation(choice.relation) if choice is not None else None,
            history=history,
            version=version,
        )
        examination = replace(examination, lineage=kin.evidence)
        settings = self._settings()
        judgement = judge(examination, settings.rules)
        timings = {
            "measure_seconds": content.measure_seconds,
            "judge_seconds": time.monotonic() - began,
        }
        report = _report(version, content, choice, baseline, examination, judgement, timings)
        against_name = choice.version.key.version if choice is not None else None
        written, layers = report.to_json(), layers_of(report)
        now = self._clock()
        with self._database.write() as connection:
            versions.record_verdict(
                connection, version.id, judgement.verdict, written, judgement.findings, now, layers
            )
            record_kin(connection, version, kin, now)
            accept_if_passing(connection, version, judgement.verdict, against_name, settings.baselines, now)
            self._judged(connection, version, now)
        self._setbacks.forget(version.id)
        if in_place is not None:
            self._telemetry.content_changes.labels(version.key.registry).inc()
        return judgement

    def _choice(self, version: VersionRecord) -> BaselineChoice | None:
        with self._database.read() as connection:
            return choose_baseline(connection, version, self._settings().baselines)

    def _measure_ingredients(self, version: VersionRecord) -> None:
        """See that the store knows what a merge was made from, whichever version is scanned first.

        What cannot be measured is told among the blind spots; it is no fault of the merge.
        """
        with self._database.read() as connection:
            records = [record for _, record in ingredients(connection, version) if record is not None]
        for record in records:
            try:
                self._measuring.content(record)
            except UnreadableError as error:
                if self._stopping():
                    raise Interrupted from error
                _LOGGER.warning("%s, which %s was merged from: %s", record.key, version.key.version, error)

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
            content = self._measuring.content(choice.version)
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


def _same(one: BaselineChoice | None, other: BaselineChoice | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.version.id, one.relation, one.chosen_by) == (
        other.version.id,
        other.relation,
        other.chosen_by,
    )


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


def _exemplar(version: VersionRecord) -> dict[str, str] | None:
    """Which version a slow scan was about; None where its names are longer than OpenMetrics allows."""
    labels = {"registry": version.key.registry, "model": version.key.model, "version": version.key.version}
    length = sum(len(name) + len(value) for name, value in labels.items())
    return labels if length <= _LONGEST_EXEMPLAR else None

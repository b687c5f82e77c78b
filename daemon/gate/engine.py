"""Measure and judge local files: the same scan, comparison and rules as in the daemon, kept in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from layerwatch.config.settings import Settings
from layerwatch.daemon.baselines import known_relation
from layerwatch.daemon.scan.content import MeasuredContent, Progress, measure_content, unreadable_content
from layerwatch.daemon.scan.executor import Executor, LocalExecutor
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.daemon.store.records import ContentRecord
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.examination import Problem
from layerwatch.metrics.joining import examine
from layerwatch.metrics.judge import judge
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.manifest import build_manifest
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.report import BaselinePart, ModelPart, Report, build_report

Keep = Callable[[ContentRecord, ContentRecord | None, Callable[[str], Measurement | None]], None]
"""Told once about the model's content, the baseline's if it could be read, and measurements by digest."""


def examine_files(
    model: Path,
    baseline: Path | None,
    relation: str | None,
    settings: Settings,
    progress: Callable[[str, Progress], None],
    keep: Keep | None = None,
) -> Report:
    """The report of a model, against a baseline when one is given; element-wise comparison is exact.

    Args:
        relation: how the model came from the baseline; None when not said.
        progress: told ("baseline" or "model", progress) after each layer.
        keep: given everything that was measured, randomised spectra included; for plots.
    """
    kept: dict[str, Measurement] = {}
    executor = LocalExecutor(settings.scan)
    began = time.monotonic()
    try:
        executor.prepare()
        measure = partial(measure_file, executor, kept, keep is not None)
        before = measure(baseline, None, partial(progress, "baseline")) if baseline else None
        problem = before.content.file_problem if before else None
        # A baseline that could not be read is not opened again: its trouble is not the model's.
        found = measure(model, baseline if problem is None else None, partial(progress, "model"))
    finally:
        executor.close()
    measured = time.monotonic()
    content = found.content
    usable = before.content if before and problem is None else None
    if keep is not None:
        keep(content, usable, kept.get)
    examination = replace(
        examine(content, usable, kept.get, found.exact),
        baseline_problem=Problem(*problem) if problem is not None else None,
        relation=known_relation(relation) if usable is not None else None,
    )
    judgement = judge(examination, settings.rules)
    timings = {"measure_seconds": measured - began, "judge_seconds": time.monotonic() - measured}
    part = None
    if before is not None and baseline is not None:
        part = BaselinePart(
            **_model_part(baseline, before.content).model_dump(), relation=relation, chosen_by="command line"
        )
    skipped = tuple(Skipped(one.name, one.reason) for one in content.skipped)
    return build_report(_model_part(model, content), part, examination, judgement, skipped, timings)


def measure_file(
    executor: Executor,
    kept: dict[str, Measurement],
    shuffled: bool,
    path: Path,
    baseline: Path | None,
    progress: Callable[[Progress], None],
) -> MeasuredContent:
    """What is in a model, and how it differs from a baseline; one that cannot be examined is a result too.

    Args:
        kept: measurements by digest; new ones are added, and those that are there are not taken again.
        shuffled: also take the spectra of the shuffled elements.
    """
    fingerprint, size = "", 0
    try:
        manifest = build_manifest(path)
        fingerprint, size = manifest.fingerprint, manifest.size_bytes
        return measure_content(
            executor,
            ScanRequest(str(path), str(baseline) if baseline else None, shuffled),
            fingerprint,
            size,
            known=kept.__contains__,
            save=lambda measurement: kept.__setitem__(measurement.digest, measurement),
            progress=progress,
        )
    except UnreadableError as error:
        return MeasuredContent(unreadable_content(fingerprint, size, error), {})


def _model_part(path: Path, content: ContentRecord) -> ModelPart:
    absolute = path.absolute()
    return ModelPart(
        source=str(path),
        name=absolute.parent.name if absolute.is_dir() else absolute.stem,
        version=absolute.name,
        fingerprint=content.fingerprint or None,
        format=content.format,
        size_bytes=content.size_bytes,
    )

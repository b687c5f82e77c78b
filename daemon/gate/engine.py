"""Measure and judge local files: the same scan, comparison and rules as in the daemon, kept in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from layerwatch.config.settings import Settings
from layerwatch.daemon.baselines import known_relation
from layerwatch.daemon.gate.cache import MeasurementCache
from layerwatch.daemon.gate.measuring import measure_pair
from layerwatch.daemon.scan.content import Progress
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.store.records import ContentRecord
from layerwatch.metrics.examination import Problem
from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.joining import examine
from layerwatch.metrics.judge import judge
from layerwatch.metrics.layers import Skipped
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
    shuffled: bool = False,
    cache: MeasurementCache | None = None,
    mark_new: bool = False,
) -> Report:
    """The report of a model, against a baseline when one is given; element-wise comparison is exact.

    Args:
        relation: how the model came from the baseline; None when not said.
        progress: told ("baseline" or "model", progress) after each layer.
        keep: given everything that was measured; for pictures.
        shuffled: measure randomised spectra, too; for plots.
        cache: of measurements; None to take each anew.
        mark_new: say of each finding whether the baseline lacks it (:func:`with_new_marked`).
    """
    kept: dict[str, Measurement] = {}
    executor = LocalExecutor(settings.scan)
    began = time.monotonic()
    try:
        pair = measure_pair(executor, kept, shuffled, model, baseline, cache, progress)
    finally:
        executor.close()
    measured = time.monotonic()
    content, before = pair.model.content, pair.baseline
    problem = before.file_problem if before is not None else None
    usable = before if problem is None else None
    if keep is not None:
        keep(content, usable, kept.get)
    examination = replace(
        examine(content, usable, kept.get, pair.model.exact),
        baseline_problem=Problem(*problem) if problem is not None else None,
        relation=known_relation(relation) if usable is not None else None,
    )
    judgement = judge(examination, settings.rules)
    alone = judge(examine(usable, None, kept.get, {}), settings.rules) if mark_new and usable else None
    timings = {"measure_seconds": measured - began, "judge_seconds": time.monotonic() - measured}
    part = None
    if before is not None and baseline is not None:
        part = BaselinePart(
            **_model_part(baseline, before).model_dump(), relation=relation, chosen_by="command line"
        )
    skipped = tuple(Skipped(one.name, one.reason) for one in content.skipped)
    report = build_report(_model_part(model, content), part, examination, judgement, skipped, timings)
    return with_new_marked(report, alone.findings if alone is not None else ()) if mark_new else report


def with_new_marked(report: Report, of_baseline: Sequence[Finding]) -> Report:
    """Say of each finding whether it is new.

    It is not when the baseline, examined by itself with nothing to compare it with, has a finding of the same rule on
    the same layer that is at least as severe. So whatever only a comparison can find is new.
    """
    known: dict[tuple[str, str | None], int] = {}
    for finding in of_baseline:
        key = finding.rule, finding.layer
        known[key] = max(known.get(key, -1), finding.severity.rank)
    return report.model_copy(
        update={
            "findings": tuple(
                one.model_copy(
                    update={"new": known.get((one.rule, one.layer), -1) < Severity(one.severity).rank}
                )
                for one in report.findings
            )
        }
    )


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

"""Versions in a store with the report of an examination, as the pipeline leaves them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import contents, measurements, versions
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Finding
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import METRIC_SET, Measurement
from layerwatch.metrics.report import Report
from layerwatch_testing.reports import report_of
from storetools import NOW, registered


def reported(
    connection: sa.Connection,
    examination: Examination | Report,
    version: str = "v2",
    model: str = "m",
    registry: str = "r",
    findings: Iterable[Finding] = (),
    now: datetime = NOW,
    **other: Any,
) -> VersionRecord:
    """A judged version; ``other`` are parts of its report in place of those that would be there."""
    record = registered(connection, version, model, registry)
    report = examination if isinstance(examination, Report) else report_of(examination)
    named = {"name": model, "version": version, "source": f"{registry}:/models/{model}/{version}"}
    report = report.model_copy(update={"model": report.model.model_copy(update=named), **other})
    versions.record_verdict(connection, record.id, report.verdict, report.to_json(), list(findings), now)
    found = versions.get(connection, record.id)
    assert found is not None
    return found


def measured(connection: sa.Connection, fingerprint: str, layers: Iterable[tuple[str, Measurement]]) -> None:
    """What was found in a content: layers with their measurements."""
    entries = []
    for name, one in layers:
        measurements.save(connection, one, NOW)
        entries.append(LayerEntry(name, one.kind, one.shape, one.dtype, one.digest))
    kept = ContentRecord(fingerprint, METRIC_SET, "safetensors", 1, tuple(entries), (), None, 0.1)
    contents.save(connection, kept, NOW)

"""The report as it is: JSON, indented. All other formats can be made from it (``layerwatch convert``)."""

from __future__ import annotations

from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.metrics.report import Report


def to_json(report: Report, rendering: Rendering) -> str:
    """The report JSON of schema version 1."""
    return report.to_json(indent=2) + "\n"

"""For people at a terminal, and in the log of a pipeline."""

from __future__ import annotations

from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.text import print_findings
from layerwatch.metrics.report import Report


def to_text(report: Report, rendering: Rendering) -> str:
    """Findings, what to do, what was not seen, verdict."""
    with rendering.console.capture() as capture:
        print_findings(report, rendering.console, rendering.show_suppressed)
    return capture.get()

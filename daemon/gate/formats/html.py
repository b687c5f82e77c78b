"""HTML: one file that holds all it needs, for people without a daemon."""

from __future__ import annotations

from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.metrics.report import Report


def to_html(report: Report, rendering: Rendering) -> str:
    """A document with the views of the daemon's pages, without scripts and links to elsewhere.

    Pictures of spectra are in it where ``rendering.spectra`` gives measurements; otherwise it says why there are none.
    """
    # Templates and pages take a second to load, which no other format needs.
    from layerwatch.daemon.web.pages.document import document

    return document(report, rendering.spectra)

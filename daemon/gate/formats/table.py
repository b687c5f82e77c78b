"""Which function makes which format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from layerwatch.daemon.gate.formats.gateformat import GateFormat
from layerwatch.daemon.gate.formats.github import to_github
from layerwatch.daemon.gate.formats.html import to_html
from layerwatch.daemon.gate.formats.jsontext import to_json
from layerwatch.daemon.gate.formats.junit import to_junit
from layerwatch.daemon.gate.formats.markdown import to_markdown
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.formats.sarif import to_sarif
from layerwatch.daemon.gate.formats.text import to_text
from layerwatch.metrics.report import Report

FORMATS: Mapping[GateFormat, Callable[[Report, Rendering], str]] = {
    GateFormat.TEXT: to_text,
    GateFormat.JSON: to_json,
    GateFormat.SARIF: to_sarif,
    GateFormat.JUNIT: to_junit,
    GateFormat.MARKDOWN: to_markdown,
    GateFormat.GITHUB: to_github,
    GateFormat.HTML: to_html,
}

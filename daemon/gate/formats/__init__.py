"""The formats of ``layerwatch gate`` and ``layerwatch convert``: a pure function from a report to text for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from layerwatch.daemon.gate.formats.github import to_github
from layerwatch.daemon.gate.formats.html import to_html
from layerwatch.daemon.gate.formats.jsontext import to_json
from layerwatch.daemon.gate.formats.junit import to_junit
from layerwatch.daemon.gate.formats.markdown import to_markdown
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.formats.sarif import to_sarif
from layerwatch.daemon.gate.formats.text import to_text
from layerwatch.metrics.report import Report


class GateFormat(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    MARKDOWN = "markdown"
    GITHUB = "github"
    HTML = "html"


FORMATS: Mapping[GateFormat, Callable[[Report, Rendering], str]] = {
    GateFormat.TEXT: to_text,
    GateFormat.JSON: to_json,
    GateFormat.SARIF: to_sarif,
    GateFormat.JUNIT: to_junit,
    GateFormat.MARKDOWN: to_markdown,
    GateFormat.GITHUB: to_github,
    GateFormat.HTML: to_html,
}

"""The names of the formats, apart from their code: the command line lists them without loading any."""

from __future__ import annotations

from enum import StrEnum


class GateFormat(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    MARKDOWN = "markdown"
    GITHUB = "github"
    HTML = "html"

"""Workflow commands for GitHub Actions: one annotation per finding, worst first.

GitHub shows ten errors and ten warnings per step; what is beyond is counted in a notice. The job summary is Markdown
of its own (``markdown.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.daemon.gate.facts import THE_VERSION, answer, counted, ignore_remarks, is_known
from layerwatch.daemon.gate.formats.escaping import command_data, command_property
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.outcome import failing, has_unseen, is_about_examination, policy_of
from layerwatch.daemon.gate.printable import printable
from layerwatch.metrics.findings import LayerStatus, Severity
from layerwatch.metrics.report import FindingPart, Report

ANNOTATIONS = 10
"""Of each level so many are shown per step
(https://docs.github.com/actions/reference/limits)."""


def to_github(report: Report, rendering: Rendering) -> str:
    """Workflow commands, one a line: nothing that a name holds can begin another one."""
    levels: dict[str, list[str]] = {"error": [], "warning": []}
    for level, title, message in _annotations(report):
        levels[level].append(_command(level, title, message))
    lines = [line for found in levels.values() for line in found[:ANNOTATIONS]]
    more = sum(max(0, len(found) - ANNOTATIONS) for found in levels.values())
    end = f"layerwatch: {report.verdict}. The gate {answer(report)}"
    if more:
        end += f"; {counted(more, 'more finding')} in the report"
    return "\n".join((*lines, _command("notice", f"layerwatch: {report.model.name}", end))) + "\n"


def _annotations(report: Report) -> Iterator[tuple[str, str, str]]:
    fails = {id(finding) for finding in failing(report)}
    told: set[str | None] = set()
    undecided = "warning" if policy_of(report).allow_undecided else "error"
    for finding in report.findings:
        if is_about_examination(finding):
            told.add(finding.layer)
            yield undecided, *_told(finding, "not examined")
        elif id(finding) in fails:
            yield "error", *_told(finding, finding.rule)
        elif _counts(report, finding):
            yield "warning", *_told(finding, finding.rule)
    unseen = [layer.name for layer in report.layers if layer.status is LayerStatus.UNDECIDED]
    for name in unseen:
        if name not in told:
            yield undecided, f"layerwatch: not examined: {name}", "could not be examined"
    if has_unseen(report) and not unseen and not told:
        yield undecided, "layerwatch: not examined", "not everything could be examined"
    for remark in ignore_remarks(report):
        yield "warning", "layerwatch: ignore file", remark


def _counts(report: Report, finding: FindingPart) -> bool:
    severe = Severity(finding.severity).at_least(Severity.WARNING)
    return severe and finding.suppressed is None and not is_known(report, finding)


def _told(finding: FindingPart, what: str) -> tuple[str, str]:
    layer = THE_VERSION if finding.layer is None else finding.layer
    return f"layerwatch: {what}: {layer}", f"{layer}: {finding.message}"


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={command_property(printable(title))}::{command_data(printable(message))}"

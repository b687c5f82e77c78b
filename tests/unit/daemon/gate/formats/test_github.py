"""Workflow commands, parsed back as the runner of GitHub Actions does."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hypothesis import given

from layerwatch.daemon.gate.formats.github import ANNOTATIONS, to_github
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.ignorefile import IgnoreFile
from layerwatch.daemon.gate.outcome import GatePolicy, decided, failing
from layerwatch.daemon.gate.printable import printable
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.report import Report
from layerwatch_testing.examinations import among_healthy, unreadable_layer
from layerwatch_testing.gating import TODAY, broken, entry, reshaped
from layerwatch_testing.reports import report_of
from layerwatch_testing.reportstrategies import REPORTS


@dataclass(frozen=True)
class Command:
    name: str
    properties: dict[str, str]
    message: str


def commands(text: str) -> list[Command]:
    """As ``ActionCommand.TryParseV2`` of the runner: a line begins with ``::``, properties end at the next ``::``."""
    found = []
    for line in re.split(r"\r\n|\r|\n", text):
        if line.strip().startswith("::"):
            head, message = line.strip()[2:].split("::", 1)
            name, _, rest = head.partition(" ")
            pairs = [one.partition("=") for one in rest.split(",") if one.strip()]
            values = {key.strip(): _unescaped(value, {"%3A": ":", "%2C": ","}) for key, _, value in pairs}
            found.append(Command(name, values, _unescaped(message, {})))
    return found


def _unescaped(text: str, more: dict[str, str]) -> str:
    for escaped, plain in {"%0D": "\r", "%0A": "\n", **more, "%25": "%"}.items():
        text = text.replace(escaped, plain)
    return text


def told(report: Report) -> list[Command]:
    return commands(to_github(report, Rendering()))


@given(REPORTS)
def test_a_name_never_begins_a_command_of_its_own(report: Report) -> None:
    text = to_github(report, Rendering())
    found = commands(text)

    assert len(found) == len(text.splitlines())
    assert {one.name for one in found} <= {"error", "warning", "notice"}
    assert [one.name for one in found].count("notice") == 1
    assert all(set(one.properties) == {"title"} for one in found)


@given(REPORTS)
def test_every_failing_finding_is_an_error_up_to_the_limit(report: Report) -> None:
    found = [one.message for one in told(report) if one.name == "error"]

    assert len(found) <= ANNOTATIONS
    for finding in failing(report)[: ANNOTATIONS - len(report.layers)]:
        assert any(printable(finding.message) in message for message in found)


def test_what_fails_is_an_error_and_what_does_not_a_warning() -> None:
    found = told(report_of(among_healthy(broken("fc"), reshaped("head"))))

    assert [(one.name, one.properties["title"]) for one in found[:2]] == [
        ("error", "layerwatch: non_finite: fc"),
        ("warning", "layerwatch: structure_changed: head"),
    ]
    assert found[0].message.startswith("fc: 3 of ")
    assert found[-1].name == "notice"
    assert found[-1].message == "layerwatch: fail. The gate fails: 1 finding at or above critical"


def test_the_threshold_decides_about_warnings() -> None:
    report = decided(report_of(among_healthy(reshaped("head"))), GatePolicy(Severity.WARNING), None, TODAY)

    assert [one.name for one in told(report)] == ["error", "notice"]


def test_what_could_not_be_examined_is_an_error_unless_that_is_allowed() -> None:
    report = report_of(among_healthy(unreadable_layer("dark")))

    assert [one.name for one in told(decided(report, GatePolicy(), None, TODAY))] == ["error", "notice"]
    allowed = decided(report, GatePolicy(allow_undecided=True), None, TODAY)
    assert [one.name for one in told(allowed)] == ["warning", "notice"]
    silent = report.model_copy(update={"findings": ()})
    assert [one.name for one in told(silent)] == ["error", "notice"]


def test_suppressed_findings_are_no_annotations_and_entries_to_renew_are() -> None:
    ignores = IgnoreFile("ignore.yaml", "00" * 32, (entry(layer="fc"), entry(layer="gone", line=7)))
    report = decided(report_of(among_healthy(broken("fc"))), GatePolicy(), ignores, TODAY)

    found = told(report)

    assert [one.name for one in found] == ["warning", "notice"]
    assert found[0].message.startswith("ignore.yaml:7: the entry for non_finite in gone matches no finding")
    assert found[1].message.endswith("The gate passes: no finding at or above critical counts (1 suppressed)")


def test_what_github_does_not_show_is_counted() -> None:
    found = told(report_of(among_healthy(*(broken(f"fc{i}") for i in range(ANNOTATIONS + 4)))))

    assert [one.name for one in found].count("error") == ANNOTATIONS
    assert "4 more findings in the report" in found[-1].message


def test_percent_signs_and_line_breaks_come_back() -> None:
    report = report_of(among_healthy(broken("50%0A::error::x")))

    assert told(report)[0].properties["title"] == "layerwatch: non_finite: 50%0A::error::x"

"""JUnit XML as Jenkins and GitLab read it: one test case per layer.

What is broken is a failure and what could not be examined an error, never a pass; a finding that is suppressed, or that
the baseline has, too, makes the case skipped, with the reason. Tensors without a spectrum are no cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from layerwatch.daemon.gate.facts import THE_VERSION, answer, help_of, ignore_remarks, is_known
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.outcome import failing, has_unseen, is_about_examination
from layerwatch.daemon.gate.printable import printable
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import FindingPart, Report


@dataclass(frozen=True, slots=True)
class _Case:
    """One layer: ``kind`` is failure, error, skipped or empty for a pass."""

    name: str
    kind: str
    type: str
    message: str
    lines: Sequence[str]


def to_junit(report: Report, rendering: Rendering) -> str:
    """One suite in ``testsuites``; its counts add up to the cases in it."""
    cases = list(_cases(report))
    kinds = [case.kind for case in cases]
    name = printable(f"layerwatch {report.model.name}")
    seconds = f"{min(sum(report.timings.values()), 999_999.0):.3f}"
    counts = {
        "tests": str(len(cases)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
    }
    root = ElementTree.Element("testsuites", {"name": "layerwatch", **counts, "time": seconds})
    skipped = {"skipped": str(kinds.count("skipped"))}
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **counts, **skipped, "time": seconds})
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in _properties(report):
        ElementTree.SubElement(properties, "property", {"name": key, "value": printable(value)})
    for case in cases:
        element = ElementTree.SubElement(suite, "testcase", {"name": case.name, "classname": name})
        text = "\n".join(case.lines)
        if case.kind:
            attributes = {"type": case.type, "message": case.message}
            ElementTree.SubElement(element, case.kind, attributes).text = text
        elif text:
            ElementTree.SubElement(element, "system-out").text = text
    remarks = [printable(remark) for remark in (*ignore_remarks(report), *report.blind_spots)]
    if remarks:
        ElementTree.SubElement(suite, "system-out").text = "\n".join(remarks)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _properties(report: Report) -> Iterator[tuple[str, str]]:
    yield "verdict", str(report.verdict)
    yield "gate", answer(report)
    yield "model", report.model.source
    yield "fingerprint", report.model.fingerprint or ""
    yield "baseline", report.baseline.source if report.baseline is not None else ""
    yield (
        "tool",
        f"{report.tool.version}, metric set {report.tool.metric_set}, rule set {report.tool.rule_set}",
    )


def _cases(report: Report) -> Iterator[_Case]:
    by_layer: dict[str | None, list[FindingPart]] = {}
    for finding in report.findings:
        by_layer.setdefault(finding.layer, []).append(finding)
    undecided = {layer.name for layer in report.layers if layer.status is LayerStatus.UNDECIDED}
    names = list(dict.fromkeys(layer.name for layer in report.layers))
    # A finding may name what is no layer of the report: a vector, or a layer of the baseline.
    others = [name for name in by_layer if name is not None and name not in set(names)]
    fails = {id(finding) for finding in failing(report)}
    for name in (*names, *others):
        yield _case(report, printable(name), by_layer.get(name, []), name in undecided, fails)
    whole = by_layer.get(None, [])
    unseen = has_unseen(report) and not undecided and not any(map(is_about_examination, report.findings))
    if whole or unseen or not names:
        yield _case(report, THE_VERSION, whole, unseen, fails)


def _case(
    report: Report, name: str, findings: Sequence[FindingPart], undecided: bool, fails: set[int]
) -> _Case:
    lines = [_line(finding) for finding in findings]
    worst = next((one for one in findings if id(one) in fails), None)
    if worst is not None:
        return _Case(name, "failure", worst.rule, printable(worst.message), _with_help(lines, worst))
    unseen = next((one for one in findings if is_about_examination(one)), None)
    if undecided or unseen is not None:
        message = printable(unseen.message) if unseen is not None else "could not be examined"
        help_lines = _with_help(lines, unseen) if unseen is not None else lines
        return _Case(name, "error", "undecided", message, help_lines)
    for finding in findings:
        if finding.suppressed is not None:
            why = f"suppressed until {finding.suppressed.expires}: {printable(finding.suppressed.reason)}"
            return _Case(name, "skipped", finding.rule, why, lines)
        if is_known(report, finding):
            return _Case(name, "skipped", finding.rule, "not new: the baseline has it, too", lines)
    return _Case(name, "", "", "", lines)


def _line(finding: FindingPart) -> str:
    return printable(f"{finding.severity}: {finding.message} [{finding.rule}]")


def _with_help(lines: list[str], finding: FindingPart) -> list[str]:
    advice = help_of(finding.rule)
    return [*lines, f"What to do: {advice}"] if advice else lines

"""JUnit XML: valid by the schema of Jenkins, whatever the layers are called, with counts that add up."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import xmlschema
from hypothesis import given

from layerwatch.daemon.gate.formats.junit import to_junit
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.ignorefile import IgnoreFile
from layerwatch.daemon.gate.outcome import GatePolicy, decided
from layerwatch.metrics.examination import Problem
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.report import Report
from layerwatch_testing.examinations import among_healthy, examination, unreadable_layer
from layerwatch_testing.gating import TODAY, broken, entry, reshaped
from layerwatch_testing.reports import report_of
from layerwatch_testing.reportstrategies import REPORTS

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).parents[4] / "_data" / "junit-10.xsd"))


def suite_of(report: Report) -> ElementTree.Element:
    text = to_junit(report, Rendering())
    SCHEMA.validate(text)
    root = ElementTree.fromstring(text)
    suite = root.find("testsuite")
    assert suite is not None
    return suite


def results_of(report: Report) -> dict[str, str]:
    """What became of each case; empty for a pass."""
    return {
        case.get("name", ""): next((part.tag for part in case if part.tag != "system-out"), "")
        for case in suite_of(report).iter("testcase")
    }


@given(REPORTS)
def test_every_report_is_valid_and_its_counts_add_up(report: Report) -> None:
    text = to_junit(report, Rendering())
    SCHEMA.validate(text)
    root = ElementTree.fromstring(text.encode())

    cases = list(root.iter("testcase"))
    assert cases
    for element in (root, *root.iter("testsuite")):
        assert element.get("tests") == str(len(cases))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            if attribute in element.attrib:
                assert element.get(attribute) == str(sum(case.find(tag) is not None for case in cases))


@given(REPORTS)
def test_no_undecided_layer_passes(report: Report) -> None:
    undecided = sum(layer.status == "undecided" for layer in report.layers)
    suite = suite_of(report)

    told = [case for case in suite.iter("testcase") if case.find("error") is not None or _failed(case)]
    if undecided and len({layer.name for layer in report.layers}) == len(report.layers):
        assert len(told) >= undecided


def _failed(case: ElementTree.Element) -> bool:
    return case.find("failure") is not None


def test_each_layer_is_a_case_and_tensors_without_a_spectrum_are_none() -> None:
    report = report_of(
        among_healthy(broken("fc"), reshaped("head"), unreadable_layer("dark")),
        skipped=(Skipped("fc.bias", "bias"),),
    )

    results = results_of(report)

    assert results.pop("fc") == "failure"
    assert results.pop("dark") == "error"
    # A warning is below the threshold of the default.
    assert set(results.values()) == {""}
    assert "fc.bias" not in results


def test_the_threshold_of_the_gate_decides_what_fails() -> None:
    report = decided(report_of(among_healthy(reshaped("head"))), GatePolicy(Severity.WARNING), None, TODAY)

    assert results_of(report)["head"] == "failure"


def test_a_suppressed_finding_is_skipped_with_its_reason() -> None:
    ignores = IgnoreFile("ignore.yaml", "00" * 32, (entry(layer="fc", reason="known since January"),))
    report = decided(report_of(among_healthy(broken("fc"))), GatePolicy(), ignores, TODAY)

    (case,) = [case for case in suite_of(report).iter("testcase") if case.get("name") == "fc"]
    skipped = case.find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "suppressed until 2026-12-31: known since January"


def test_a_finding_that_the_baseline_has_is_skipped() -> None:
    report = report_of(among_healthy(broken("fc")))
    known = report.model_copy(
        update={"findings": tuple(one.model_copy(update={"new": False}) for one in report.findings)}
    )

    assert results_of(decided(known, GatePolicy(fail_new=True), None, TODAY))["fc"] == "skipped"
    assert results_of(decided(known, GatePolicy(), None, TODAY))["fc"] == "failure"


def test_a_model_that_could_not_be_read_is_one_error() -> None:
    unread = examination(problem=Problem("truncated", "3 bytes are missing"), has_baseline=True)

    assert results_of(report_of(unread)) == {"the version": "error"}


def test_what_a_failure_says_comes_with_what_to_do() -> None:
    (failure,) = suite_of(report_of(among_healthy(broken("fc")))).iter("failure")

    assert failure.get("type") == "non_finite"
    assert "NaN or infinite" in (failure.get("message") or "")
    assert "What to do: find the step" in (failure.text or "")

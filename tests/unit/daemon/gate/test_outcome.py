"""The exit codes of the gate (design, section 4)."""

from __future__ import annotations

import pytest

from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.gate.ignorefile import IgnoreFile
from layerwatch.daemon.gate.outcome import GatePolicy, decided, exit_code, failing, has_unseen
from layerwatch.metrics.examination import Examination, Problem
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch.metrics.report import Report
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    layer,
    settings,
    unreadable_layer,
)
from layerwatch_testing.gating import TODAY, broken, entry, reshaped
from layerwatch_testing.reports import report_of


def critical_unreadable() -> RulesSettings:
    return settings("unreadable", severity="critical")


def silent_unreadable() -> RulesSettings:
    return settings("unreadable", enabled=False)


HEALTHY = among_healthy()
WARNING = among_healthy(reshaped())
CRITICAL = among_healthy(broken())
UNSEEN = among_healthy(unreadable_layer())
UNSEEN_FILE = among_healthy(problem=Problem("truncated", "3 bytes are missing"))
UNSEEN_BASELINE = among_healthy(baseline_problem=Problem("truncated", "3 bytes are missing"))
WARNING_AND_UNSEEN = among_healthy(reshaped(), unreadable_layer())
CRITICAL_AND_UNSEEN = among_healthy(broken(), unreadable_layer())

WARN, CRIT = Severity.WARNING, Severity.CRITICAL


@pytest.mark.parametrize(
    ("examination", "rules", "fail_on", "allow_undecided", "code"),
    [
        (HEALTHY, None, CRIT, False, 0),
        (HEALTHY, None, WARN, False, 0),
        (WARNING, None, CRIT, False, 0),
        (WARNING, None, WARN, False, 1),
        (CRITICAL, None, CRIT, False, 1),
        (CRITICAL, None, WARN, True, 1),
        (UNSEEN, None, CRIT, False, 3),
        (UNSEEN, None, CRIT, True, 0),
        (UNSEEN, None, WARN, False, 3),
        (UNSEEN, None, WARN, True, 0),
        (UNSEEN_FILE, None, CRIT, False, 3),
        (UNSEEN_BASELINE, None, CRIT, False, 3),
        (WARNING_AND_UNSEEN, None, CRIT, False, 3),
        (WARNING_AND_UNSEEN, None, WARN, False, 1),
        (WARNING_AND_UNSEEN, None, WARN, True, 1),
        (WARNING_AND_UNSEEN, None, CRIT, True, 0),
        (CRITICAL_AND_UNSEEN, None, CRIT, False, 1),
        (CRITICAL_AND_UNSEEN, None, CRIT, True, 1),
        # Whatever the rule about it is set to, what was not seen has exit code 3: no more and no less.
        (UNSEEN, critical_unreadable(), CRIT, False, 3),
        (UNSEEN, critical_unreadable(), CRIT, True, 0),
        (UNSEEN, silent_unreadable(), CRIT, False, 3),
        (UNSEEN, silent_unreadable(), CRIT, True, 0),
    ],
)
def test_the_exit_code_follows_the_contract(
    examination: Examination,
    rules: RulesSettings | None,
    fail_on: Severity,
    allow_undecided: bool,
    code: int,
) -> None:
    assert exit_code(report_of(examination, rules), fail_on, allow_undecided) == code


def test_the_cases_have_the_verdicts_they_are_named_after() -> None:
    verdicts = [report_of(one).verdict for one in (HEALTHY, WARNING, CRITICAL, UNSEEN, CRITICAL_AND_UNSEEN)]

    assert verdicts == [Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.UNDECIDED, Verdict.FAIL]


def test_information_never_fails_the_gate() -> None:
    moved = layer("moved", change=change(aligned=aligned(), alpha_shift=9.0, alpha_shift_sigmas=20.0))
    report = report_of(among_healthy(moved))

    assert [finding.severity for finding in report.findings] == ["info"]
    assert exit_code(report, WARN, allow_undecided=False) == 0


def ignoring(report: Report, *layers: str) -> Report:
    entries = tuple(entry(layer=name) for name in layers)
    return decided(report, GatePolicy(), IgnoreFile("ignore.yaml", "ab" * 32, entries), TODAY)


def marked(report: Report, *new: str) -> Report:
    """With the findings of these layers marked as new, and the others as known."""
    findings = tuple(one.model_copy(update={"new": one.layer in new}) for one in report.findings)
    return report.model_copy(update={"findings": findings})


def test_a_suppressed_finding_does_not_count_and_stays_in_the_report() -> None:
    report = report_of(among_healthy(broken("a"), broken("b")))

    both, one = ignoring(report, "a", "b"), ignoring(report, "a")

    assert both.gate is not None
    assert one.gate is not None
    assert (both.gate.exit_code, one.gate.exit_code) == (0, 1)
    assert [finding.layer for finding in failing(one)] == ["b"]
    assert len(both.findings) == len(report.findings)
    # The weights are what they are: only the gate lets them through.
    assert both.verdict is Verdict.FAIL


def test_a_suppressed_finding_never_hides_what_was_not_examined() -> None:
    report = report_of(CRITICAL_AND_UNSEEN)
    silent = report_of(CRITICAL_AND_UNSEEN, silent_unreadable())

    for one in (report, silent):
        gate = ignoring(one, "broken").gate
        assert gate is not None
        assert gate.exit_code == 3


def test_the_report_says_that_a_baseline_was_not_read_although_the_verdict_is_fail() -> None:
    unread = among_healthy(broken(), baseline_problem=Problem("truncated", "3 bytes are missing"))
    report = report_of(unread, silent_unreadable())

    assert report.verdict is Verdict.FAIL
    assert report.complete is False
    gate = ignoring(report, "broken").gate
    assert gate is not None
    assert gate.exit_code == 3


def test_a_report_of_an_older_version_is_undecided_by_its_layers() -> None:
    report = report_of(CRITICAL_AND_UNSEEN, silent_unreadable())

    assert has_unseen(report.model_copy(update={"complete": None}))
    assert not has_unseen(report_of(CRITICAL).model_copy(update={"complete": None}))


@pytest.mark.parametrize(
    ("new", "fail_new", "code"),
    [((), True, 0), (("a",), True, 1), ((), False, 1), (("a",), False, 1)],
)
def test_only_new_findings_fail_where_that_was_asked(new: tuple[str, ...], fail_new: bool, code: int) -> None:
    report = marked(report_of(among_healthy(broken("a"), broken("b"))), *new)

    gate = decided(report, GatePolicy(fail_new=fail_new), None, TODAY).gate

    assert gate is not None
    assert gate.exit_code == code


def test_a_finding_that_nobody_marked_counts_as_new() -> None:
    assert exit_code(report_of(CRITICAL), CRIT, allow_undecided=False, fail_new=True) == 1

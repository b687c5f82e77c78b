"""The exit codes of the gate (design, section 4)."""

from __future__ import annotations

import pytest

from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.gate.outcome import exit_code
from layerwatch.metrics.examination import Examination, ExaminedLayer, Problem
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    layer,
    measurement,
    settings,
    unreadable_layer,
)
from layerwatch_testing.reports import report_of


def broken() -> ExaminedLayer:
    return layer("broken", measurement=measurement(non_finite=3), change=None)


def reshaped() -> ExaminedLayer:
    return layer("reshaped", shape=(64, 65), change=change(aligned=None))


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

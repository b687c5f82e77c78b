"""From a report to the exit code of ``layerwatch gate``."""

from __future__ import annotations

from enum import IntEnum

from layerwatch.metrics.findings import RuleGroup, Severity, Verdict
from layerwatch.metrics.report import Report
from layerwatch.metrics.rules import RULES


class ExitCode(IntEnum):
    """What the gate's exit code says."""

    PASS = 0
    FINDINGS = 1
    USAGE = 2
    UNDECIDED = 3


_UNSEEN = frozenset(rule.name for rule in RULES if rule.group is RuleGroup.EXAMINATION)


def exit_code(report: Report, fail_on: Severity, allow_undecided: bool) -> ExitCode:
    """Findings at or above the threshold come first, whatever else could not be examined.

    That something could not be examined has an exit code of its own, so it never counts as a finding here,
    however severe the rule is set; otherwise ``--allow-undecided`` could not allow it.
    """
    seen = [finding for finding in report.findings if finding.rule not in _UNSEEN]
    if any(Severity(finding.severity).at_least(fail_on) for finding in seen):
        return ExitCode.FINDINGS
    unseen = report.verdict is Verdict.UNDECIDED or len(seen) < len(report.findings)
    return ExitCode.UNDECIDED if unseen and not allow_undecided else ExitCode.PASS

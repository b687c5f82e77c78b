"""From a report to what ``layerwatch gate`` answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from layerwatch.daemon.gate.ignorefile import IgnoreEntry, IgnoreFile
from layerwatch.daemon.gate.ignoring import Ignored, ignore
from layerwatch.metrics.findings import LayerStatus, RuleGroup, Severity, Verdict
from layerwatch.metrics.report import FindingPart, GatePart, IgnoreEntryPart, Report
from layerwatch.metrics.rules import RULES


class ExitCode(IntEnum):
    """What the gate's exit code says."""

    PASS = 0
    FINDINGS = 1
    USAGE = 2
    UNDECIDED = 3


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What fails the gate.

    Attributes:
        fail_on: severity from which on a finding fails: warning or critical.
        fail_new: only findings that the baseline by itself lacks fail.
        allow_undecided: what could not be examined does not fail.
    """

    fail_on: Severity = Severity.CRITICAL
    fail_new: bool = False
    allow_undecided: bool = False


_UNSEEN = frozenset(rule.name for rule in RULES if rule.group is RuleGroup.EXAMINATION)


def decided(report: Report, policy: GatePolicy, ignore_file: IgnoreFile | None, today: date) -> Report:
    """The report with suppressed findings marked and the gate's answer in it.

    Args:
        ignore_file: None without one.
        today: in UTC, for the entries' expiry.
    """
    entries = ignore_file.entries if ignore_file is not None else ()
    ignored = ignore(report, entries, today)
    report = report.model_copy(update={"findings": ignored.findings})
    return report.model_copy(update={"gate": _gate_part(report, policy, ignore_file, ignored)})


def exit_code(report: Report, fail_on: Severity, allow_undecided: bool, fail_new: bool = False) -> ExitCode:
    """Findings at or above the threshold come first, whatever else could not be examined.

    That something could not be examined has an exit code of its own, so it never counts as a finding here,
    however severe the rule is set; otherwise ``--allow-undecided`` could not allow it.
    """
    if any(_fails(finding, fail_on, fail_new) for finding in report.findings):
        return ExitCode.FINDINGS
    return ExitCode.UNDECIDED if has_unseen(report) and not allow_undecided else ExitCode.PASS


def policy_of(report: Report) -> GatePolicy:
    """What the gate was asked; its defaults for a report that no gate wrote."""
    gate = report.gate
    return (
        GatePolicy()
        if gate is None
        else GatePolicy(Severity(gate.fail_on), gate.fail_new, gate.allow_undecided)
    )


def failing(report: Report) -> tuple[FindingPart, ...]:
    """The findings that fail the gate."""
    policy = policy_of(report)
    return tuple(one for one in report.findings if _fails(one, policy.fail_on, policy.fail_new))


def is_about_examination(finding: FindingPart) -> bool:
    """Whether a finding says that something could not be examined, and not that something is wrong."""
    return finding.rule in _UNSEEN


def has_unseen(report: Report) -> bool:
    """Whether something that had to be examined was not, whatever the verdict."""
    return (
        report.complete is False
        or report.verdict is Verdict.UNDECIDED
        or any(map(is_about_examination, report.findings))
        or any(layer.status is LayerStatus.UNDECIDED for layer in report.layers)
    )


def _fails(finding: FindingPart, fail_on: Severity, fail_new: bool) -> bool:
    return (
        not is_about_examination(finding)
        and finding.suppressed is None
        and not (fail_new and finding.new is False)
        and Severity(finding.severity).at_least(fail_on)
    )


def _gate_part(
    report: Report, policy: GatePolicy, ignore_file: IgnoreFile | None, ignored: Ignored
) -> GatePart:
    code = exit_code(report, policy.fail_on, policy.allow_undecided, policy.fail_new)
    return GatePart.model_validate(
        {
            "fail_on": str(policy.fail_on),
            "fail_new": policy.fail_new,
            "allow_undecided": policy.allow_undecided,
            "exit_code": int(code),
            "ignore_file": None if ignore_file is None else ignore_file.name,
            "ignore_file_sha256": None if ignore_file is None else ignore_file.sha256,
            "expired": _entry_parts(ignored.expired),
            "stale": _entry_parts(ignored.stale),
            "expiring": _entry_parts(ignored.expiring),
        }
    )


def _entry_parts(entries: Iterable[IgnoreEntry]) -> tuple[IgnoreEntryPart, ...]:
    return tuple(
        IgnoreEntryPart(
            rule=entry.rule,
            layer=entry.layer,
            model=entry.model,
            reason=entry.reason,
            expires=entry.expires.isoformat(),
            line=entry.line,
        )
        for entry in entries
    )

"""What several formats say of a report, in the same words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from layerwatch.daemon.gate.outcome import failing, has_unseen, policy_of
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import DiagnosisPart, FindingPart, IgnoreEntryPart, Report
from layerwatch.metrics.rules import RULES
from layerwatch.metrics.rules.base import Rule

RULES_BY_NAME: Mapping[str, Rule] = {rule.name: rule for rule in RULES}

THE_VERSION = "the version"
"""What a finding is about that names no layer."""


def answer(report: Report) -> str:
    """What the gate says, and why, in a sentence without its subject."""
    policy = policy_of(report)
    fails = len(failing(report))
    aside = ", ".join(set_aside(report))
    aside = f" ({aside})" if aside else ""
    if fails:
        return f"fails: {counted(fails, 'finding')} at or above {policy.fail_on}{aside}"
    nothing = f"no finding at or above {policy.fail_on} counts{aside}"
    if not has_unseen(report):
        return f"passes: {nothing}"
    if policy.allow_undecided:
        return f"passes, although not everything could be examined (--allow-undecided): {nothing}"
    return f"undecided: not everything could be examined, and {nothing}"


def set_aside(report: Report) -> list[str]:
    """How many findings do not count, and why."""
    suppressed = sum(one.suppressed is not None for one in report.findings)
    known = sum(is_known(report, one) and one.suppressed is None for one in report.findings)
    said = [f"{suppressed} suppressed"] if suppressed else []
    return [*said, f"{known} not new"] if known else said


def is_known(report: Report, finding: FindingPart) -> bool:
    """Whether a finding does not count because the baseline by itself has it, too."""
    return policy_of(report).fail_new and finding.new is False


def diagnoses_that_count(report: Report) -> tuple[DiagnosisPart, ...]:
    """Without those of which an ignore file left nothing that counts."""

    def is_among(diagnosis: DiagnosisPart, findings: Iterable[FindingPart]) -> bool:
        if diagnosis.layer is None:
            return any(one.rule == diagnosis.defect for one in findings)
        return any(one.layer == diagnosis.layer for one in findings)

    counting = [one for one in report.findings if one.suppressed is None]
    suppressed = [one for one in report.findings if one.suppressed is not None]
    return tuple(one for one in report.diagnoses if is_among(one, counting) or not is_among(one, suppressed))


def ignore_remarks(report: Report) -> list[str]:
    """Sentences about entries of the ignore file that need a person."""
    gate = report.gate
    if gate is None:
        return []

    def about(entries: Iterable[IgnoreEntryPart], what: str) -> list[str]:
        return [f"{place(one)}: {shown_entry(one)} {what.format(expires=one.expires)}" for one in entries]

    def place(entry: IgnoreEntryPart) -> str:
        name = gate.ignore_file if gate is not None and gate.ignore_file is not None else "ignore file"
        return name if entry.line is None else f"{name}:{entry.line}"

    return [
        *about(gate.expired, "expired on {expires} and suppresses nothing any more: renew or remove it"),
        *about(gate.stale, "matches no finding: remove it"),
        *about(gate.expiring, "expires on {expires}"),
    ]


def shown_entry(entry: IgnoreEntryPart) -> str:
    """An entry in a few words."""
    return f"the entry for {entry.rule}" + (f" in {entry.layer}" if entry.layer is not None else "")


def status_counts(report: Report) -> str:
    """Layers by status, worst first: ``2 broken, 1 undecided, 40 ok``; empty where there is none."""
    counts = Counter(layer.status for layer in report.layers)
    order = (
        LayerStatus.BROKEN,
        LayerStatus.UNDECIDED,
        LayerStatus.SUSPECT,
        LayerStatus.INFO,
        LayerStatus.OK,
    )
    return ", ".join(f"{counts[status]} {status}" for status in order if counts[status])


def help_of(rule: str) -> str:
    """What to do about a violation, in one line; empty for a rule that this version does not know."""
    known = RULES_BY_NAME.get(rule)
    return known.what_to_do if known is not None else ""


def counted(number: int, noun: str) -> str:
    """``1 finding``, ``2 findings``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

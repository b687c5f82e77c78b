"""What an ignore file does to a report: findings it suppresses, and entries that need a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatchcase

from layerwatch.daemon.gate.ignorefile import IgnoreEntry
from layerwatch.metrics.report import FindingPart, ModelPart, Report, SuppressionPart

EXPIRES_SOON = timedelta(days=14)
"""An entry is warned about when it expires within so many days."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """The answer.

    Attributes:
        findings: all of them in the same order, those that an entry matches marked.
        expired: entries about this model that are no longer in force.
        stale: entries about this model, in force, that match no finding.
        expiring: entries about this model, in force, that match a finding and expire within :data:`EXPIRES_SOON`.
    """

    findings: tuple[FindingPart, ...]
    expired: tuple[IgnoreEntry, ...]
    stale: tuple[IgnoreEntry, ...]
    expiring: tuple[IgnoreEntry, ...]


def ignore(report: Report, entries: Iterable[IgnoreEntry], today: date) -> Ignored:
    """Hold each finding against the entries; the first one in the file that matches gives the reason.

    Args:
        today: in UTC; an entry is in force through the end of its last day.
    """
    about = [entry for entry in entries if _is_about(entry, report.model)]
    in_force = [entry for entry in about if entry.expires >= today]
    used = [entry for entry in in_force if any(_matches(entry, finding) for finding in report.findings)]
    return Ignored(
        findings=tuple(_marked(finding, used) for finding in report.findings),
        expired=tuple(entry for entry in about if entry.expires < today),
        stale=tuple(entry for entry in in_force if entry not in used),
        expiring=tuple(entry for entry in used if entry.expires - today <= EXPIRES_SOON),
    )


def _marked(finding: FindingPart, entries: Iterable[IgnoreEntry]) -> FindingPart:
    for entry in entries:
        if _matches(entry, finding):
            suppressed = SuppressionPart(reason=entry.reason, expires=entry.expires.isoformat())
            return finding.model_copy(update={"suppressed": suppressed})
    return finding


def _is_about(entry: IgnoreEntry, model: ModelPart) -> bool:
    pattern = entry.model
    return pattern is None or any(fnmatchcase(name, pattern) for name in (model.name, model.source))


def _matches(entry: IgnoreEntry, finding: FindingPart) -> bool:
    if entry.rule != finding.rule:
        return False
    if entry.layer is None:
        return True
    return finding.layer is not None and fnmatchcase(finding.layer, entry.layer)

"""What is wrong with each layer, in one word: the most specific of its findings, with cause and next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.rules import RULES

_RULES = {rule.name: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One layer, or the version as a whole, that is suspect or broken.

    Attributes:
        layer: its name, or None for the whole version.
        severity: of its worst finding.
        defect: the most specific rule among its worst findings; its type of defect.
        title: the same in half a line.
        likely_cause, what_to_do: in one line each; the cause may be empty.
        confirmed_by: the other rules that it violates, most specific first.
    """

    layer: str | None
    severity: Severity
    defect: str
    title: str
    likely_cause: str
    what_to_do: str
    confirmed_by: tuple[str, ...]


def diagnoses(findings: Sequence[Finding]) -> tuple[Diagnosis, ...]:
    """One diagnosis per layer that has a warning or worse, in the order of the findings.

    Args:
        findings: as the judge orders them: the layer to look at first is first, and of one layer the most specific
            rule among the worst.
    """
    of_layer: dict[str | None, list[Finding]] = {}
    for finding in findings:
        if finding.severity is not Severity.INFO:
            of_layer.setdefault(finding.layer, []).append(finding)
    return tuple(_diagnosis(layer, found) for layer, found in of_layer.items())


def _diagnosis(layer: str | None, findings: list[Finding]) -> Diagnosis:
    first = findings[0]
    rule = _RULES[first.rule]
    others = dict.fromkeys(finding.rule for finding in findings[1:] if finding.rule != first.rule)
    return Diagnosis(
        layer=layer,
        severity=first.severity,
        defect=rule.name,
        title=rule.title,
        likely_cause=rule.likely_cause,
        what_to_do=rule.what_to_do,
        confirmed_by=tuple(others),
    )

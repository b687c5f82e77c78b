"""What is wrong with each layer, in one word: the most specific of its findings, with cause and next step.

A version that was made otherwise than it says breaks the same rule in most of its layers; that is one diagnosis.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

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
        layers: how many layers and vectors share it, where it was put together of those of most layers; 1 for one
            layer, 0 for findings about the version as a whole.
    """

    layer: str | None
    severity: Severity
    defect: str
    title: str
    likely_cause: str
    what_to_do: str
    confirmed_by: tuple[str, ...]
    layers: int = 1


def diagnoses(findings: Sequence[Finding], layers: Collection[str] = ()) -> tuple[Diagnosis, ...]:
    """One diagnosis per layer that has a warning or worse, in the order of the findings.

    Args:
        findings: as the judge orders them: the layer to look at first is first, and of one layer the most specific
            rule among the worst.
        layers: names of all layers that were examined. Where more than half of them have a diagnosis by one rule
            about the whole step, these, and those of vectors by that rule, are one of the version.
    """
    of_layer: dict[str | None, list[Finding]] = {}
    for finding in findings:
        if finding.severity is not Severity.INFO:
            of_layer.setdefault(finding.layer, []).append(finding)
    shared = _shared(of_layer, set(layers))
    found: list[Diagnosis] = []
    put_together: set[str] = set()
    for layer, own in of_layer.items():
        rule = own[0].rule
        alike = shared.get(rule, [])
        if layer not in alike:
            found.append(_diagnosis(layer, own))
        elif rule not in put_together:
            put_together.add(rule)
            together = [*own, *(one for other in alike if other != layer for one in of_layer[other])]
            found.append(replace(_diagnosis(None, together), layers=len(alike)))
    return tuple(found)


def _shared(
    of_layer: Mapping[str | None, Sequence[Finding]], layers: Collection[str]
) -> dict[str, list[str]]:
    """By rule about the whole step, the layers and vectors that it diagnoses, where most layers are among them."""
    alike: dict[str, list[str]] = {}
    for layer, findings in of_layer.items():
        if layer is not None and _RULES[findings[0].rule].is_about_the_step:
            alike.setdefault(findings[0].rule, []).append(layer)
    return {
        rule: names
        for rule, names in alike.items()
        if len(names) > 1 and 2 * sum(name in layers for name in names) > len(layers)
    }


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
        layers=0 if layer is None else 1,
    )

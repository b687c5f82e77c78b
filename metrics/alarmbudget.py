"""The alarm budget: how strong the sign of a statistical rule must be before it may page anyone.

A rule is violated from a strength (signal over threshold) of 1 on. How many healthy versions would page at which
strength was measured by the detection benchmark (``make bench-detection``); the table below is its curve.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import log

from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.rules.base import Rule

STRENGTH_BY_BUDGET: tuple[tuple[float, float], ...] = (
    (0.5, 1.3),
    (1.0, 1.15),
    (2.0, 1.0),
)
"""(false alarms per 1,000 healthy versions, strength from which on a critical finding of a statistical rule counts).

At strength 1 no healthy version with aligned weights paged in the benchmark (the README says of how many), which bounds
the rate at about 2 per 1,000; the weakest signs of broken layers were 1.05 to 1.3. Nothing is known below strength 1,
where rules do not speak: a larger budget than the last changes nothing."""


def required_strength(budget: float) -> float:
    """The strength that a critical finding of a statistical rule must have.

    Between two points of the table it is drawn as a straight line over the logarithm of the budget; outside of it
    the nearest point counts, because nothing was measured there.

    Args:
        budget: false alarms per 1,000 healthy versions, above 0.
    """
    budgets = [point for point, _ in STRENGTH_BY_BUDGET]
    place = bisect_left(budgets, budget)
    if place == 0:
        return STRENGTH_BY_BUDGET[0][1]
    if place == len(budgets):
        return STRENGTH_BY_BUDGET[-1][1]
    (below, strength_below), (above, strength_above) = STRENGTH_BY_BUDGET[place - 1 : place + 1]
    share = log(budget / below) / log(above / below)
    return strength_below + share * (strength_above - strength_below)


def apply_budget(findings: Iterable[Finding], rules: Iterable[Rule], budget: float) -> tuple[Finding, ...]:
    """The same findings; critical ones of statistical rules that are too weak for the budget are warnings.

    Facts (missing numbers, emptied layers, missing tensors) are not weighed. A warning stays what it is, and says why.

    Args:
        findings: of any rules.
        rules: says which of them are statistical.
        budget: false alarms per 1,000 healthy versions, above 0.
    """
    required = required_strength(budget)
    statistical = {rule.name: rule.is_statistical for rule in rules}
    return tuple(
        _weakened(finding, required) if _is_weak(finding, statistical, required) else finding
        for finding in findings
    )


def _is_weak(finding: Finding, statistical: Mapping[str, bool], required: float) -> bool:
    return (
        finding.severity is Severity.CRITICAL
        and statistical.get(finding.rule, False)
        and finding.strength < required
    )


def _weakened(finding: Finding, required: float) -> Finding:
    return replace(
        finding,
        severity=Severity.WARNING,
        message=f"{finding.message}; a warning only: {finding.strength:.3g} times the limit, and the alarm budget "
        f"asks for {required:.3g}",
        evidence={**finding.evidence, "strength": finding.strength, "required_strength": required},
    )

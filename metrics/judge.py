"""From an examination to findings, layer statuses, blind spots and a verdict. Pure: same input, same output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.alarmbudget import apply_budget
from layerwatch.metrics.blindspots import blind_spots
from layerwatch.metrics.diagnosis import Diagnosis, diagnoses
from layerwatch.metrics.examination import Context, Examination, context_of
from layerwatch.metrics.findings import Finding, LayerStatus, Severity, Verdict
from layerwatch.metrics.movedtogether import excused, moved_together
from layerwatch.metrics.rules import RULES

STATUS_OF_SEVERITY = {
    Severity.INFO: LayerStatus.INFO,
    Severity.WARNING: LayerStatus.SUSPECT,
    Severity.CRITICAL: LayerStatus.BROKEN,
}

_PLANE = 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of judging one version.

    Attributes:
        findings: worst first; findings of one layer stand together, the most specific rule first.
        statuses: status by name, for every layer and vector.
        blind_spots: faults that this run could not have seen, in plain words.
        context: what was normal in this version.
        diagnoses: what is wrong with each suspect or broken layer, the one to look at first first.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    statuses: Mapping[str, LayerStatus]
    blind_spots: tuple[str, ...]
    context: Context
    diagnoses: tuple[Diagnosis, ...] = ()


def judge(examination: Examination, rules: RulesSettings) -> Judgement:
    """Apply every enabled rule and draw the verdict.

    A critical finding makes ``fail``; else anything that could not be examined makes ``undecided``; else a
    warning makes ``warn``; else ``pass``. Rules may be switched off, ``undecided`` may not.
    """
    context = context_of(examination, rules.spectral_outlier)
    findings: list[Finding] = []
    for rule in RULES:
        if not getattr(rules, rule.name).enabled or (rule.needs_baseline and not examination.has_baseline):
            continue
        findings.extend(rule.check(examination, context, rules))
    findings = excused(findings, moved_together(examination, context, rules.broken_coupling.warning_evidence))
    findings = _without_echoes(findings)
    ordered = _ordered(apply_budget(findings, RULES, rules.false_alarms_per_1000_versions))
    return Judgement(
        verdict=_verdict(ordered, examination),
        findings=ordered,
        statuses=_statuses(ordered, examination),
        blind_spots=blind_spots(examination, context),
        context=context,
        diagnoses=diagnoses(ordered, [layer.name for layer in examination.layers]),
    )


def _without_echoes(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out that a layer changed by noise, or has copies of rows, where a rule knows what was done to it."""
    broken = {finding.layer for finding in findings if finding.severity is Severity.CRITICAL}
    flat = {finding.layer for finding in findings if _is_flat(finding)}
    return [
        finding
        for finding in findings
        if finding.layer is None
        or not (
            (finding.rule == "noise_like" and finding.layer in broken)
            or (finding.rule == "duplicate_rows" and finding.layer in flat)
        )
    ]


def _is_flat(finding: Finding) -> bool:
    """Whether a layer lost so much rank that many of its rows must be near to others: in a plane, or on a line."""
    if finding.rule != "rank_lost" or finding.severity is not Severity.CRITICAL:
        return False
    left = finding.evidence.get("directions_left")
    return isinstance(left, int) and left <= _PLANE


def _ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    specificity = {rule.name: position for position, rule in enumerate(RULES)}
    worst: dict[str, tuple[int, float]] = {}
    for finding in findings:
        key = finding.layer or ""
        worst[key] = max(worst.get(key, (-1, 0.0)), (finding.severity.rank, finding.strength))
    return tuple(
        sorted(
            findings,
            key=lambda finding: (
                -worst[finding.layer or ""][0],
                -worst[finding.layer or ""][1],
                finding.layer or "",
                -finding.severity.rank,
                specificity[finding.rule],
            ),
        )
    )


def _verdict(findings: tuple[Finding, ...], examination: Examination) -> Verdict:
    severities = {finding.severity for finding in findings}
    if Severity.CRITICAL in severities:
        return Verdict.FAIL
    if not examination.is_complete:
        return Verdict.UNDECIDED
    return Verdict.WARN if Severity.WARNING in severities else Verdict.PASS


def _statuses(findings: tuple[Finding, ...], examination: Examination) -> dict[str, LayerStatus]:
    worst: dict[str, Severity] = {}
    for finding in findings:
        if finding.layer is not None:
            known = worst.get(finding.layer)
            if known is None or finding.severity.rank > known.rank:
                worst[finding.layer] = finding.severity
    return {
        layer.name: LayerStatus.UNDECIDED
        if layer.problem is not None
        else (STATUS_OF_SEVERITY[worst[layer.name]] if layer.name in worst else LayerStatus.OK)
        for layer in examination.everything
    }

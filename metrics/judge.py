"""From an examination to findings, layer statuses, blind spots and a verdict. Pure: same input, same output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Context, Examination, Regime, context_of
from layerwatch.metrics.findings import Finding, LayerStatus, Severity, Verdict
from layerwatch.metrics.rules import RULES

STATUS_OF_SEVERITY = {
    Severity.INFO: LayerStatus.INFO,
    Severity.WARNING: LayerStatus.SUSPECT,
    Severity.CRITICAL: LayerStatus.BROKEN,
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of judging one version.

    Attributes:
        findings: worst first; findings of one layer stand together, the most specific rule first.
        statuses: status by name, for every layer and vector.
        blind_spots: faults that this run could not have seen, in plain words.
        context: what was normal in this version.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    statuses: Mapping[str, LayerStatus]
    blind_spots: tuple[str, ...]
    context: Context


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
    ordered = _ordered(findings)
    return Judgement(
        verdict=_verdict(ordered, examination),
        findings=ordered,
        statuses=_statuses(ordered, examination),
        blind_spots=_blind_spots(examination, context),
        context=context,
    )


def _ordered(findings: list[Finding]) -> tuple[Finding, ...]:
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


def _blind_spots(examination: Examination, context: Context) -> tuple[str, ...]:
    spots = [
        (
            "Weights do not know the function: damage below 35 % of one layer's norm, label noise and a training set "
            "of the wrong domain leave no mark that these checks promise to see."
        )
    ]
    if not examination.has_baseline:
        why = (
            "The baseline could not be examined" if examination.baseline_problem else "There was no baseline"
        )
        spots.append(
            f"{why}: only missing numbers, empty layers and unreadable parts could be seen; wrong "
            "scales, replaced, permuted or sign-flipped layers could not."
        )
    elif context.regime in (Regime.UNALIGNED, Regime.UNALIGNED_WIDE):
        spots.append(
            "The weights do not align with the baseline (another seed or another network): permuted rows or "
            "columns, sign flips, transposes and swapped layers leave spectra as they are and could not be seen."
        )
    elif context.regime is Regime.NONE and examination.problem is None:
        spots.append("No layer has a counterpart of equal shape in the baseline: nothing could be compared.")
    methods = {
        layer.change.aligned.method for layer in examination.layers if layer.change and layer.change.aligned
    }
    if Method.SKETCH in methods:
        spots.append(
            "Changes were estimated from sketches (standard error up to 12 %); values near the limit may fall on "
            "either side. With both files at hand, layerwatch gate compares exactly."
        )
    if not examination.is_complete:
        spots.append("What is listed as undecided was not examined at all.")
    return tuple(spots)

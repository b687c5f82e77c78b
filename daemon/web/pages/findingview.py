"""Findings and diagnoses as pages show them: in words, with the numbers beside what they were compared with."""

from __future__ import annotations

from dataclasses import dataclass

from layerwatch.daemon.gate.facts import RULES_BY_NAME, is_known
from layerwatch.daemon.gate.outcome import is_about_examination
from layerwatch.daemon.web.pages.links import Links
from layerwatch.daemon.web.pages.numbertext import short
from layerwatch.metrics.alarmbudget import STRENGTH_BY_BUDGET
from layerwatch.metrics.findings import EvidenceValue
from layerwatch.metrics.report import DiagnosisPart, FindingPart, LayerPart, Report

_FAR = 3.0
_CLEAR = STRENGTH_BY_BUDGET[0][1]
"""Below this strength lie the weakest signs of broken layers."""


@dataclass(frozen=True, slots=True)
class Named:
    """A foreign name and what it links to, or None."""

    name: str
    link: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Numbers of one sort: (name, value) pairs in words."""

    title: str
    numbers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FindingView:
    """One finding. ``layer``, ``message`` and text among the facts are foreign.

    Attributes:
        title: the rule in half a line; empty for a rule that is not known here.
        layer: None for the version as a whole.
        certainty: what the finding rests on, in words.
        aside: why it does not count, such as an entry of an ignore file; empty where it does.
    """

    severity: str
    rule: Named
    title: str
    layer: Named | None
    message: str
    facts: tuple[Facts, ...]
    certainty: str
    aside: str


@dataclass(frozen=True, slots=True)
class DiagnosisView:
    """What is wrong and what to do. Only ``layer`` is foreign.

    Attributes:
        layer: None for the version as a whole.
        layers: how many layers share it, where it was put together of those of most layers; else 0 or 1.
        confirmed_by: the other rules that the same layer violates.
    """

    layer: Named | None
    severity: str
    defect: Named
    title: str
    likely_cause: str
    what_to_do: str
    confirmed_by: tuple[Named, ...]
    layers: int


def finding_view(finding: FindingPart, report: Report | None, links: Links) -> FindingView:
    """One finding; ``report`` is the one that it stands in, or None where only the finding is kept."""
    rule = RULES_BY_NAME.get(finding.rule)
    return FindingView(
        severity=finding.severity,
        rule=Named(finding.rule, links.rule(finding.rule)),
        title=rule.title if rule is not None else "",
        layer=None if finding.layer is None else Named(finding.layer, links.layer(finding.layer)),
        message=finding.message,
        facts=facts_of(finding),
        certainty=certainty(finding),
        aside=_aside(finding, report),
    )


def diagnosis_view(diagnosis: DiagnosisPart, links: Links) -> DiagnosisView:
    """One diagnosis."""
    return DiagnosisView(
        layer=None if diagnosis.layer is None else Named(diagnosis.layer, links.layer(diagnosis.layer)),
        severity=diagnosis.severity,
        defect=Named(diagnosis.defect, links.rule(diagnosis.defect)),
        title=diagnosis.title,
        likely_cause=_sentence(diagnosis.likely_cause),
        what_to_do=_sentence(diagnosis.what_to_do),
        confirmed_by=tuple(Named(rule, links.rule(rule)) for rule in diagnosis.confirmed_by),
        layers=diagnosis.layers,
    )


def certainty(finding: FindingPart) -> str:
    """What a finding rests on: how far beyond its limit, or that it is no matter of degree."""
    if is_about_examination(finding):
        return "Not a judgement of the weights: they could not be examined."
    rule = RULES_BY_NAME.get(finding.rule)
    if rule is None:
        return ""
    if not rule.is_statistical:
        return "No matter of degree: what the rule asks for is there, or it is not."
    strength = finding.strength
    if strength is None:
        return ""
    if strength >= _FAR:
        return f"{short(strength)} times the limit: far beyond it."
    if strength >= _CLEAR:
        return f"{short(strength)} times the limit: clearly beyond it."
    return f"{short(strength)} times the limit: close to it. Look before you act."


def how_compared(layer: LayerPart | None) -> str:
    """How the numbers that compare a layer with its baseline were obtained, as a sentence; empty without a baseline."""
    change = layer.change if layer is not None else None
    if change is None or change.method is None:
        return ""
    if change.method == "sketch":
        error = f" ± {change.relative_change_error:.0%}" if change.relative_change_error else ""
        return f"Its change is estimated from sketches of both weights{error}."
    if change.method == "identical":
        return "The layer has the same bytes as the baseline's."
    return "Both weights were compared element by element."


def facts_of(finding: FindingPart) -> tuple[Facts, ...]:
    """The evidence, sorted into what was measured, what is usual here and where the limit is."""
    sorts: dict[str, list[tuple[str, str]]] = {"measured": [], "usual here": [], "limit": []}
    for name, value in finding.evidence.items():
        if value is not None:
            sorts[_sort_of(name)].append((name.replace("_", " ").removeprefix("limit "), _shown(value)))
    return tuple(Facts(title, tuple(numbers)) for title, numbers in sorts.items() if numbers)


def _sort_of(name: str) -> str:
    if "limit" in name or name == "required_strength":
        return "limit"
    usual = name.startswith(("median", "usual", "expected", "baseline")) or name.endswith("of_others")
    return "usual here" if usual else "measured"


def _shown(value: EvidenceValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else short(value)


def _aside(finding: FindingPart, report: Report | None) -> str:
    if finding.suppressed is not None:
        return f"suppressed until {finding.suppressed.expires}: {finding.suppressed.reason}"
    if report is not None and is_known(report, finding):
        return "not new: the baseline has it, too"
    return ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

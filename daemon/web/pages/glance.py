"""What an engineer must know of a version within seconds: which layer, what defect, against what, how sure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from layerwatch.daemon.gate.facts import counted, status_counts
from layerwatch.daemon.gate.outcome import has_unseen, is_about_examination
from layerwatch.daemon.web.pages.findingview import Named, certainty, how_compared
from layerwatch.daemon.web.pages.links import Links
from layerwatch.metrics.alarmbudget import STRENGTH_BY_BUDGET
from layerwatch.metrics.examination import Regime
from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.report import BaselinePart, DiagnosisPart, FindingPart, Report
from layerwatch.metrics.rules import RULES

_RULES = {rule.name: rule for rule in RULES}
_CHOSEN = {
    "parent": "the version that it declares as its parent",
    "pinned": "pinned by a person",
    "accepted": "the version that a person accepted last",
    "accepted automatically": "the last version that passed, accepted automatically",
    "history": "the nearest earlier version that passed",
    "command line": "given on the command line",
}
_SEVERITY_WORDS = {"critical": "is broken", "warning": "is suspect"}


@dataclass(frozen=True, slots=True)
class Against:
    """What a version was held against. ``name``, ``version`` and ``source`` are foreign, as may be ``why_not``.

    Attributes:
        chosen_by: why this one, in words.
        why_not: why not one that comes before it; may be empty.
        relation: how the two are related, in words; empty where nothing is known.
        because: what the relation was recognised by; may be empty.
    """

    source: str
    name: str
    version: str
    fingerprint: str
    format: str
    chosen_by: str
    why_not: str
    relation: str
    because: str


@dataclass(frozen=True, slots=True)
class Glance:
    """One sentence and what it rests on.

    Attributes:
        subject: the layer it is about, whose name is foreign; None for the version as a whole.
        says: the rest of the sentence, such as ``is broken: one layer multiplied by a wrong factor.``
        detail: the finding in words, foreign; may be empty.
        others: further layers in words; may be empty.
        sure: sentences on how sure this is.
        counts: layers by status, worst first.
    """

    verdict: Verdict
    subject: Named | None
    says: str
    detail: str
    others: str
    sure: tuple[str, ...]
    counts: str


def glance_of(report: Report, links: Links) -> Glance:
    """The sentence of a report."""
    if report.verdict in (Verdict.FAIL, Verdict.WARN) and report.diagnoses:
        return _of_diagnosis(report, report.diagnoses[0], links)
    if has_unseen(report):
        return _of_unseen(report, links)
    said = (
        "shows no defect"
        if report.baseline is not None
        else "shows no defect that can be seen without a baseline"
    )
    remarks = len(report.findings)
    return Glance(
        verdict=report.verdict,
        subject=None,
        says=f"{said}.",
        detail="",
        others=f"{counted(remarks, 'remark')} below." if remarks else "",
        sure=(),
        counts=status_counts(report),
    )


def against_of(baseline: BaselinePart | None) -> Against | None:
    """The baseline in words; None without one."""
    if baseline is None:
        return None
    chosen_by, _, why_not = baseline.chosen_by.partition(" (")
    relation, because = baseline.relation or "", ""
    if not relation and baseline.looks_like:
        relation, because = f"looks {baseline.looks_like}", baseline.because or ""
    return Against(
        source=baseline.source,
        name=baseline.name,
        version=baseline.version,
        fingerprint=baseline.fingerprint or "",
        format=baseline.format or "",
        chosen_by=_CHOSEN.get(chosen_by, chosen_by),
        why_not=f"({why_not}" if why_not else "",
        relation=relation,
        because=because,
    )


def _of_diagnosis(report: Report, diagnosis: DiagnosisPart, links: Links) -> Glance:
    found = _finding_of(report, diagnosis)
    layer = diagnosis.layer
    if found is not None and is_about_examination(found):
        says = "could not be examined."
    elif layer is None and diagnosis.layers:
        says = f"is wrong in {counted(diagnosis.layers, 'tensor')}: {diagnosis.title}."
    else:
        words = "has a defect" if layer is None else _SEVERITY_WORDS.get(diagnosis.severity, "is conspicuous")
        says = f"{words}: {diagnosis.title}."
    layers = {one.layer for one in report.diagnoses[1:] if one.layer is not None}
    more = len(report.diagnoses) - 1 - len(layers)
    others = [counted(len(layers), "more layer")] if layers else []
    others += [f"{counted(more, 'more defect')} of the version"] if more else []
    return Glance(
        verdict=report.verdict,
        subject=Named(layer, links.layer(layer)) if layer is not None else None,
        says=says,
        detail=found.message if found is not None else "",
        others=f"And {', '.join(others)}." if others else "",
        sure=tuple(filter(None, _sure(report, diagnosis, found))),
        counts=status_counts(report),
    )


def _finding_of(report: Report, diagnosis: DiagnosisPart) -> FindingPart | None:
    """The first finding behind a diagnosis; findings stand worst first."""
    for finding in report.findings:
        is_its_layer = finding.layer == diagnosis.layer or (diagnosis.layer is None and diagnosis.layers)
        if finding.rule == diagnosis.defect and is_its_layer:
            return finding
    return None


def _sure(report: Report, diagnosis: DiagnosisPart, found: FindingPart | None) -> Iterator[str]:
    if found is None:
        return
    yield certainty(found)
    confirming = len(diagnosis.confirmed_by)
    if confirming:
        yield f"{counted(confirming, 'other rule')} found the same {'layer' if diagnosis.layer is not None else 'thing'}."
    rule = _RULES.get(found.rule)
    weighed = rule is not None and rule.is_statistical and found.severity == Severity.CRITICAL
    if weighed and found.strength is not None and report.regime in (Regime.ALIGNED, Regime.LONG):
        bound, needed = STRENGTH_BY_BUDGET[-1]
        if found.strength >= needed:
            yield (
                "No healthy version of the detection benchmark came this far, which bounds chance at about "
                f"{bound:.0f} in 1,000."
            )
    compared = how_compared(next((one for one in report.layers if one.name == found.layer), None))
    if compared:
        yield compared


def _of_unseen(report: Report, links: Links) -> Glance:
    unseen = [layer.name for layer in report.layers if layer.status is LayerStatus.UNDECIDED]
    findings = [one for one in report.findings if is_about_examination(one)]
    whole = [one for one in findings if one.layer is None]
    if unseen and not whole:
        subject = Named(unseen[0], links.layer(unseen[0]))
        detail = next((one.message for one in findings if one.layer == unseen[0]), "")
        more = len(unseen) - 1
        others = f"Nor could {counted(more, 'more layer')}." if more else ""
    else:
        subject = None
        detail = whole[0].message if whole else ""
        others = ""
    return Glance(
        verdict=report.verdict,
        subject=subject,
        says="could not be examined, so this version is not known to be good.",
        detail=detail,
        others=others,
        sure=("What was examined shows no defect that counts.",) if report.layers and not whole else (),
        counts=status_counts(report),
    )

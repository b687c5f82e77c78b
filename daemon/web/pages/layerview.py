"""One layer as a page shows it: what was found, its numbers beside the baseline's, its pictures. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from layerwatch.daemon.web.charts.spectrum import (
    column_norm_profile,
    row_norm_profile,
    spectrum_density,
    spectrum_tail,
)
from layerwatch.daemon.web.pages.findingview import (
    DiagnosisView,
    FindingView,
    diagnosis_view,
    finding_view,
    how_compared,
)
from layerwatch.daemon.web.pages.links import Links
from layerwatch.daemon.web.pages.meanings import CHANGES, GROUPS, Meaning
from layerwatch.daemon.web.pages.numbertext import short, with_error
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.plots.facts import why_no_spectrum
from layerwatch.metrics.plots.spectrum import spectrum_of
from layerwatch.metrics.plots.wording import FIT_REASONS, dimensions
from layerwatch.metrics.report import ChangePart, LayerMetrics, LayerPart, Report, metrics_of

_FIT_REASONS = {str(status): words for status, words in FIT_REASONS.items()}


@dataclass(frozen=True, slots=True)
class NumberRow:
    """One number of the layer, beside the baseline's; both are text."""

    title: str
    value: str
    baseline: str
    words: str
    source: str


@dataclass(frozen=True, slots=True)
class NumberGroup:
    """Numbers of one sort."""

    title: str
    rows: tuple[NumberRow, ...]


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is drawn of a layer; empty where there is nothing to draw.

    Attributes:
        density, tail: of the spectrum.
        rows, columns: their norms.
        why_not: why there is no spectrum, as a sentence; empty where there is one.
    """

    density: Markup
    tail: Markup
    rows: Markup
    columns: Markup
    why_not: str


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer. ``name``, ``dtype`` and ``problem`` are foreign.

    Attributes:
        status: None for a vector of which nothing is to be said.
        problem: why it could not be examined; empty where it could.
        compared: how it was compared with the baseline's, as a sentence; may be empty.
        has_baseline: whether numbers of the baseline are beside it.
        fit: what is to be known of its fit before alpha is read; may be empty.
    """

    name: str
    kind: str
    role: str
    shape: str
    dtype: str
    status: LayerStatus | None
    problem: str
    findings: tuple[FindingView, ...]
    diagnoses: tuple[DiagnosisView, ...]
    groups: tuple[NumberGroup, ...]
    changes: tuple[NumberRow, ...]
    compared: str
    has_baseline: bool
    fit: str
    pictures: Pictures


def layer_view(
    part: LayerPart,
    report: Report | None,
    links: Links,
    measurement: Measurement | None,
    baseline: Measurement | None,
    problem: str = "",
) -> LayerView:
    """A layer in words, numbers and pictures.

    Args:
        part: as the report has it, or would have it.
        report: the report; None where it is not kept.
        measurement, baseline: of the layer and of the baseline's, arrays included; None where there is none.
        problem: why it could not be examined; empty where it could.
    """
    before = _baseline_metrics(part, baseline)
    findings = report.findings if report is not None else ()
    diagnoses = report.diagnoses if report is not None else ()
    return LayerView(
        name=part.name,
        kind=part.kind,
        role="" if part.role == part.kind or part.role == "other" else part.role.replace("_", " "),
        shape=dimensions(part.shape),
        dtype=part.dtype,
        status=part.status if report is not None else None,
        problem=problem,
        findings=tuple(finding_view(one, report, links) for one in findings if one.layer == part.name),
        diagnoses=tuple(diagnosis_view(one, links) for one in diagnoses if one.layer == part.name),
        groups=_groups(part.metrics, before),
        changes=_changes(part.change),
        compared=how_compared(part),
        has_baseline=before is not None,
        fit=_FIT_REASONS.get(part.metrics.fit_status or "", ""),
        pictures=pictures_of(measurement, baseline),
    )


def pictures_of(measurement: Measurement | None, baseline: Measurement | None) -> Pictures:
    """The pictures of a layer over its baseline's."""
    if measurement is None:
        nothing = Markup("")
        return Pictures(nothing, nothing, nothing, nothing, "")
    has_spectrum = spectrum_of(measurement) is not None
    reason = "" if has_spectrum else why_no_spectrum(measurement)
    return Pictures(
        density=spectrum_density(measurement, baseline),
        tail=spectrum_tail(measurement, baseline),
        rows=row_norm_profile(measurement, baseline),
        columns=column_norm_profile(measurement, baseline),
        why_not=reason[:1].upper() + reason[1:],
    )


def _baseline_metrics(part: LayerPart, baseline: Measurement | None) -> LayerMetrics | None:
    if baseline is not None:
        return metrics_of(baseline)
    # The report alone knows no more of the baseline.
    known = part.change.alpha_baseline if part.change is not None else None
    return None if known is None else LayerMetrics(alpha=known)


def _groups(metrics: LayerMetrics, before: LayerMetrics | None) -> tuple[NumberGroup, ...]:
    groups = []
    for title, meanings in GROUPS:
        rows = [_row(one, metrics, before) for one in meanings if _is_defined(one, metrics, before)]
        if rows:
            groups.append(NumberGroup(title, tuple(rows)))
    return tuple(groups)


def _is_defined(meaning: Meaning, *metrics: LayerMetrics | None) -> bool:
    return any(one is not None and getattr(one, meaning.field) is not None for one in metrics)


def _row(meaning: Meaning, metrics: LayerMetrics, before: LayerMetrics | None) -> NumberRow:
    return NumberRow(
        title=meaning.title,
        value=_text(meaning, metrics),
        baseline="" if before is None else _text(meaning, before),
        words=meaning.words,
        source=meaning.source,
    )


def _text(meaning: Meaning, numbers: LayerMetrics | ChangePart) -> str:
    value: float | None = getattr(numbers, meaning.field)
    if value is None or meaning.style == "short":
        return short(value)
    if meaning.style == "percent":
        return f"{value:.1%}"
    error: float | None = getattr(numbers, meaning.error) if meaning.error else None
    if meaning.field == "relative_change" and error:
        # It is kept as a share of the change.
        error *= value
    return with_error(value, error, 3 if isinstance(numbers, ChangePart) else 2)


def _changes(change: ChangePart | None) -> tuple[NumberRow, ...]:
    if change is None:
        return ()
    return tuple(
        NumberRow(one.title, _text(one, change), "", one.words, one.source)
        for one in CHANGES
        if getattr(change, one.field) is not None
    )

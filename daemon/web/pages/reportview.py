"""A report as a page shows it, whether the daemon's or one file to keep. Pure: nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass

from layerwatch.daemon.gate.facts import answer, diagnoses_that_count, ignore_remarks
from layerwatch.daemon.gate.outcome import has_unseen, is_about_examination
from layerwatch.daemon.web.charts.model import DepthPoint
from layerwatch.daemon.web.pages.findingview import (
    DiagnosisView,
    FindingView,
    Named,
    diagnosis_view,
    finding_view,
)
from layerwatch.daemon.web.pages.glance import Against, Glance, against_of, glance_of
from layerwatch.daemon.web.pages.links import Links
from layerwatch.daemon.web.pages.numbertext import seconds, short, size, with_error
from layerwatch.metrics.advice import advice_on
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.plots.wording import FIT_WORDS, dimensions
from layerwatch.metrics.plots.wording import number as fixed
from layerwatch.metrics.report import LayerPart, ModelPart, Report, SkippedPart

MOST_ROWS = 200
"""Layers in the table, and findings and undecided layers in their lists, unless all are asked for."""

SHOWN_DIAGNOSES = 3

_ORDER = (LayerStatus.BROKEN, LayerStatus.SUSPECT, LayerStatus.UNDECIDED, LayerStatus.INFO, LayerStatus.OK)
_TIMINGS = {"measure_seconds": "measuring", "judge_seconds": "judging"}
_FIT_WORDS = {str(status): words for status, words in FIT_WORDS.items()}


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of the table; its name and dtype are foreign, its numbers are text."""

    layer: Named
    kind: str
    shape: str
    dtype: str
    status: LayerStatus
    alpha: str
    fit: str
    alpha_baseline: str
    relative_change: str
    cosine: str
    norm_ratio: str
    stable_rank: str


@dataclass(frozen=True, slots=True)
class UndecidedView:
    """What could not be examined: a layer, or the version as a whole (None). All text is foreign."""

    layer: Named | None
    reason: str


@dataclass(frozen=True, slots=True)
class AdviceView:
    """A hint of the theory; the names of layers are foreign."""

    title: str
    words: str
    layers: tuple[Named, ...]
    sure: str


@dataclass(frozen=True, slots=True)
class ReportView:
    """Everything that is shown of a report.

    Attributes:
        diagnoses: the first :data:`SHOWN_DIAGNOSES`; ``more_diagnoses`` others have findings only.
        findings: the first; ``more_findings`` are left out.
        rows: layers, the most conspicuous first; ``more_rows`` are left out.
        undecided: the first; ``more_undecided`` are left out.
        gate: what a gate answered and its remarks; empty where none was asked.
    """

    glance: Glance
    model: ModelPart
    size: str
    against: Against | None
    diagnoses: tuple[DiagnosisView, ...]
    more_diagnoses: int
    findings: tuple[FindingView, ...]
    more_findings: int
    rows: tuple[LayerRow, ...]
    more_rows: int
    undecided: tuple[UndecidedView, ...]
    more_undecided: int
    points: tuple[DepthPoint, ...]
    advice: tuple[AdviceView, ...]
    blind_spots: tuple[str, ...]
    skipped: tuple[SkippedPart, ...]
    timings: tuple[tuple[str, str], ...]
    tool: tuple[tuple[str, str], ...]
    gate: tuple[str, ...]


def report_view(report: Report, links: Links, most_rows: int | None = MOST_ROWS) -> ReportView:
    """A report in words.

    Args:
        links: what names of layers and rules link to.
        most_rows: of the table of layers, of the findings and of the undecided layers; None for all.
    """
    counting = diagnoses_that_count(report)
    ranked = ranked_layers(report)
    shown = ranked[:most_rows]
    undecided = _undecided(report, links)
    return ReportView(
        glance=glance_of(report, links),
        model=report.model,
        size="" if report.model.size_bytes is None else size(report.model.size_bytes),
        against=against_of(report.baseline),
        diagnoses=tuple(diagnosis_view(one, links) for one in counting[:SHOWN_DIAGNOSES]),
        more_diagnoses=max(0, len(counting) - SHOWN_DIAGNOSES),
        findings=tuple(finding_view(one, report, links) for one in report.findings[:most_rows]),
        more_findings=len(report.findings[most_rows:]) if most_rows is not None else 0,
        rows=tuple(row_of(layer, links) for layer in shown),
        more_rows=len(ranked) - len(shown),
        undecided=undecided[:most_rows],
        more_undecided=len(undecided) - len(undecided[:most_rows]),
        points=tuple(_point(layer, links) for layer in report.layers if len(layer.shape) > 1),
        advice=tuple(
            AdviceView(
                one.title, one.words, tuple(Named(name, links.layer(name)) for name in one.layers), one.sure
            )
            for one in advice_on(report)
        ),
        blind_spots=report.blind_spots,
        skipped=report.skipped,
        timings=tuple((_TIMINGS.get(name, name), seconds(value)) for name, value in report.timings.items()),
        tool=(
            ("layerwatch", report.tool.version),
            ("metric set", report.tool.metric_set),
            ("rule set", report.tool.rule_set),
        ),
        gate=(f"The gate {answer(report)}.", *ignore_remarks(report)) if report.gate is not None else (),
    )


def ranked_layers(report: Report) -> list[LayerPart]:
    """Broken layers first, then suspect and undecided ones; of equal status the one that changed most."""

    def rank(layer: LayerPart) -> tuple[int, float]:
        change = layer.change.relative_change if layer.change is not None else None
        return _ORDER.index(layer.status), -(change if change is not None else -1.0)

    return sorted(report.layers, key=rank)


def row_of(layer: LayerPart, links: Links) -> LayerRow:
    """A layer in one line."""
    metrics, change = layer.metrics, layer.change
    error = None
    if change is not None and change.relative_change is not None and change.relative_change_error:
        error = change.relative_change * change.relative_change_error
    # A fit that failed leaves its word, an alpha that deserves no doubt none.
    fit = "" if metrics.fit_status in (None, "ok") else _FIT_WORDS.get(str(metrics.fit_status), "")
    return LayerRow(
        layer=Named(layer.name, links.layer(layer.name)),
        kind=layer.kind,
        shape=dimensions(layer.shape),
        dtype=layer.dtype,
        status=layer.status,
        alpha=with_error(metrics.alpha, metrics.alpha_sigma, 2),
        fit=fit,
        alpha_baseline=fixed(change.alpha_baseline if change is not None else None, 2),
        relative_change=with_error(change.relative_change if change is not None else None, error, 3),
        cosine=with_error(
            change.cosine if change is not None else None,
            change.cosine_error if change is not None else None,
            3,
        ),
        norm_ratio=short(change.norm_ratio if change is not None else None),
        stable_rank=fixed(metrics.stable_rank, 1),
    )


def _undecided(report: Report, links: Links) -> tuple[UndecidedView, ...]:
    reasons = [one for one in report.findings if is_about_examination(one)]
    found = [
        UndecidedView(None if one.layer is None else Named(one.layer, links.layer(one.layer)), one.message)
        for one in reasons
    ]
    told = {one.layer for one in reasons}
    found += [
        # The rule about it may be switched off; that it was not seen stays.
        UndecidedView(Named(layer.name, links.layer(layer.name)), "could not be examined")
        for layer in report.layers
        if layer.status is LayerStatus.UNDECIDED and layer.name not in told
    ]
    if not found and has_unseen(report):
        found.append(UndecidedView(None, "not everything of this version could be examined"))
    return tuple(found)


def _point(layer: LayerPart, links: Links) -> DepthPoint:
    return DepthPoint(
        layer=layer.name,
        status=layer.status,
        alpha=layer.metrics.alpha,
        sigma=layer.metrics.alpha_sigma,
        baseline=layer.change.alpha_baseline if layer.change is not None else None,
        href=links.layer(layer.name),
    )

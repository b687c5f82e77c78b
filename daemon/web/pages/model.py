"""The page ``/model``: how a model is now, where its versions come from, and since when what moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Response
from markupsafe import Markup
from sqlalchemy import Connection

from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.payload import name
from layerwatch.daemon.gate.stored import StoredReportError, read_report
from layerwatch.daemon.store import (
    alerts,
    baselines,
    contents,
    lineage,
    modelsummaries,
    refs,
    summaries,
    timeline,
    versions,
)
from layerwatch.daemon.store.records import VersionRecord, VersionState
from layerwatch.daemon.store.summaries import VersionSummary
from layerwatch.daemon.web.charts.model import HeatScale
from layerwatch.daemon.web.decisions import Decisions
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.findingview import Named
from layerwatch.daemon.web.pages.glance import against_of, glance_of
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.modelpictures import (
    HEAT_VERSIONS,
    HISTORY_LAYERS,
    depth_of,
    heat_of,
    tree_of,
)
from layerwatch.daemon.web.pages.modelview import changes_of, timeline_rows
from layerwatch.daemon.web.pages.paging import Paging
from layerwatch.daemon.web.pages.rendering import render
from layerwatch.metrics.advice import advice_on_history
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.report import Report

PER_PAGE = 50

_HEATS = {
    HeatScale.ALPHA: "alpha",
    HeatScale.RELATIVE_CHANGE: "relative change",
    HeatScale.STATUS: "status",
}
_HINT = (
    "Names are case-sensitive, and a model is known here once its registry listed a version of it. Retention forgets what "
    "its registry no longer offers."
)


@dataclass(frozen=True, slots=True)
class _AlertLine:
    """An alert of the model that fires. Names and reasons are foreign."""

    group: str
    ref: str
    severity: str
    since: datetime
    muted_by: str | None
    taken_by: str | None


@dataclass(frozen=True, slots=True)
class _Current:
    """The version that stands for the model.

    Attributes:
        report: None where none is kept, or it cannot be read.
        is_accepted: a person called it normal.
    """

    record: VersionRecord
    links: VersionLinks
    summary: VersionSummary | None
    report: Report | None
    baseline: VersionSummary | None
    is_accepted: bool


def model_page(context: PageContext) -> APIRouter:
    """GET ``/model``."""
    router = APIRouter()

    @router.get("/model")
    def show(registry: str = "", model: str = "", page: str = "", heat: str = "") -> Response:
        wanted = int(page) if page.isascii() and page.isdecimal() and len(page) < 9 else 1
        scale = HeatScale(heat) if heat in list(HeatScale) else HeatScale.ALPHA
        return _page(context, registry, model, wanted, scale)

    return router


def _page(context: PageContext, registry: str, model: str, wanted: int, scale: HeatScale) -> Response:
    with context.database.read() as connection:
        paging = Paging.of(wanted, PER_PAGE, timeline.count(connection, registry, model))
        if not paging.total:
            return _unknown(registry, model)
        current = _current(connection, registry, model)
        entries = timeline.page(connection, registry, model, PER_PAGE, paging.offset)
        edges = lineage.edges_of(connection, [entry.id for entry in entries])
        history = summaries.history(connection, registry, model, HEAT_VERSIONS, HISTORY_LAYERS)
        values: dict[str, Any] = {
            "pointed": sorted(refs.targets(connection, registry, model).items()),
            "chosen": baselines.chosen(connection, registry, model),
            "alerts": _alerts(connection, registry, model, context.decisions),
            "changes": _changes(connection, current),
        }
    links = current.links if current is not None else VersionLinks(registry, model, "")
    heat, heat_left_out = heat_of(history, scale, registry, model)
    return render(
        "model.html",
        now=context.decisions.clock(),
        registry=registry,
        model=model,
        links=links,
        links_to=lambda version: VersionLinks(registry, model, version).this(),
        current=current,
        says=None if current is None else _says(current),
        against=None if current is None or current.report is None else against_of(current.report.baseline),
        compare=None if current is None else current.links.compare_baseline(current.report),
        depth=Markup("")
        if current is None or current.report is None
        else depth_of(current.report, links, current.baseline),
        heat=heat,
        heat_left_out=heat_left_out,
        heats=[
            (words, _address(registry, model, heat=one.value) + "#heat", one is scale)
            for one, words in _HEATS.items()
        ],
        tree=tree_of(
            entries,
            edges,
            registry,
            model,
            current.record.id if current is not None else None,
            current.baseline.id if current is not None and current.baseline is not None else None,
        ),
        rows=timeline_rows(entries, edges, registry, model, None if current is None else links),
        paging=paging,
        previous=_address(registry, model, page=str(paging.page - 1)) + "#versions",
        next=_address(registry, model, page=str(paging.page + 1)) + "#versions",
        advice=_advice(history, links),
        as_data=f"api/v1/versions?{urlencode({'registry': registry, 'model': model})}",
        **values,
    )


def _unknown(registry: str, model: str) -> Response:
    return render(
        "missing.html",
        404,
        told=f"There is no model {name(model)!r} in a registry {name(registry)!r}.",
        hint=_HINT,
        ways=((".", "All models"), ("status", "How the daemon does")),
    )


def _current(connection: Connection, registry: str, model: str) -> _Current | None:
    version_id = modelsummaries.current_version(connection, registry, model)
    record = versions.get(connection, version_id) if version_id is not None else None
    if record is None:
        return None
    report = _report(record)
    baseline = None
    if report is not None and report.baseline is not None and report.baseline.fingerprint is not None:
        baseline = summaries.of_bytes(connection, report.baseline.fingerprint, report.baseline.version)
    return _Current(
        record=record,
        links=VersionLinks(registry, model, record.key.version, "" if record.current else record.fingerprint),
        summary=summaries.of_version(connection, record.id),
        report=report,
        baseline=baseline,
        is_accepted=baselines.was_accepted(connection, record.key, record.fingerprint),
    )


def _report(record: VersionRecord) -> Report | None:
    try:
        return read_report(record.report.encode()) if record.report is not None else None
    except StoredReportError:
        # The page of the version says what is wrong with it.
        return None


def _says(current: _Current) -> dict[str, Any]:
    """One sentence on the current version: its subject, the rest, and the finding in words."""
    record, summary = current.record, current.summary
    if current.report is not None:
        seen = glance_of(current.report, current.links)
        return {
            "subject": seen.subject,
            "says": seen.says,
            "detail": seen.detail,
            "others": seen.others,
            "counts": seen.counts,
        }
    nothing = {"subject": None, "detail": "", "others": "", "counts": ""}
    if record.verdict is None:
        doing = "is being scanned" if record.state is VersionState.SCANNING else "waits for its scan"
        return {**nothing, "says": f"{doing}; nothing was judged before it."}
    if summary is None or summary.worst_words is None:
        return {**nothing, "says": "shows no defect. Its report is not kept any more."}
    layer = summary.worst_layer
    subject = Named(layer, current.links.layer(layer)) if layer is not None else None
    says = "has a defect." if layer is None else "was the worst layer."
    return {**nothing, "subject": subject, "says": says, "detail": summary.worst_words}


def _alerts(connection: Connection, registry: str, model: str, decisions: Decisions) -> list[_AlertLine]:
    states = alerts.list_states(connection, AlertPhase.FIRING, registry, model)
    muted = decisions.why_muted(connection, states)
    return [
        _AlertLine(
            state.identity.group.value,
            state.identity.ref,
            state.severity.value,
            state.started_at,
            muted.get(state.identity),
            state.acknowledgement.by if state.acknowledgement is not None else None,
        )
        for state in states
    ]


def _changes(connection: Connection, current: _Current | None) -> Any:
    if current is None or current.report is None or current.report.baseline is None:
        return None
    before = current.report.baseline.fingerprint
    return changes_of(
        current.report,
        current.links,
        contents.load(connection, current.record.fingerprint, METRIC_SET),
        contents.load(connection, before, METRIC_SET) if before is not None else None,
    )


def _advice(history: Sequence[VersionSummary], links: VersionLinks) -> list[dict[str, Any]]:
    readable: list[Mapping[str, tuple[float, float | None]]] = [
        {
            layer.name: (layer.alpha, layer.sigma)
            for layer in version.layers
            if layer.is_fit_ok and layer.alpha is not None and layer.status is not LayerStatus.BROKEN
        }
        for version in history
        if version.layers
    ]
    return [
        {
            "title": one.title,
            "words": one.words,
            "layers": [Named(layer, links.layer(layer)) for layer in one.layers],
            "sure": one.sure,
        }
        for one in advice_on_history(readable)
    ]


def _address(registry: str, model: str, **other: str) -> str:
    return f"model?{urlencode({'registry': registry, 'model': model, **other})}"

"""The page ``/layer``: one layer of one version, with its numbers and pictures over the baseline's."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, HTTPException, Response
from sqlalchemy import Connection

from layerwatch.alerts.payload import name
from layerwatch.daemon.gate.outcome import is_about_examination
from layerwatch.daemon.gate.stored import StoredReportError, read_report
from layerwatch.daemon.store import measurements
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.findingview import Named
from layerwatch.daemon.web.pages.glance import against_of
from layerwatch.daemon.web.pages.layerview import layer_view
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.missing import missing
from layerwatch.daemon.web.pages.rendering import render
from layerwatch.daemon.web.storedlayers import baseline_layer, find_layer, find_version
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.report import LayerPart, Report, metrics_of


@dataclass(frozen=True, slots=True)
class _Found:
    """A layer as far as the store knows it.

    Attributes:
        problem: why it could not be examined; empty where it could.
        measurement, baseline: None where they are not kept, or there is none.
    """

    record: VersionRecord
    report: Report | None
    part: LayerPart
    problem: str
    measurement: Measurement | None
    baseline: Measurement | None


def layer_page(context: PageContext) -> APIRouter:
    """GET ``/layer``."""
    router = APIRouter()

    @router.get("/layer")
    def show(
        registry: str = "", model: str = "", version: str = "", layer: str = "", fingerprint: str = ""
    ) -> Response:
        links = VersionLinks(registry, model, version, fingerprint)
        try:
            return _page(_found(context, links, layer), links)
        except HTTPException as error:
            return missing(links, error, (links.this(), "The version"))

    return router


def _page(found: _Found, links: VersionLinks) -> Response:
    part, report = found.part, found.report
    view = layer_view(part, report, links, found.measurement, found.baseline, found.problem)
    before, after = _neighbours(report, part.name, links)
    has_spectrum = found.measurement is not None and not view.pictures.why_not
    return render(
        "layer.html",
        key=found.record.key,
        links=links,
        view=view,
        against=against_of(report.baseline) if report is not None else None,
        before=before,
        after=after,
        is_missing=part.kind == "missing",
        picture=links.spectrum(part.name, "png") if has_spectrum or view.problem else None,
        data=links.spectrum(part.name, "json") if has_spectrum else None,
        is_kept=found.measurement is not None,
    )


def _found(context: PageContext, links: VersionLinks, layer: str) -> _Found:
    """The layer that is meant; raises HTTPException 404."""
    with context.database.read() as connection:
        record = find_version(connection, links.registry, links.model, links.version, links.fingerprint)
    report = _report_of(record)
    part = _in_report(report, layer)
    with context.database.read() as connection:
        try:
            entry = find_layer(connection, record, part.name if part is not None else layer)
        except HTTPException:
            # The report outlives the measurements, and tells of layers that the version lacks.
            if part is None:
                raise
            entry = None
        measurement = _measurement(connection, entry)
        if part is None:
            assert entry is not None
            part = _part_of(entry, measurement)
        before = baseline_layer(connection, record, part.name)
        baseline = _measurement(connection, before[1]) if before is not None else None
    problem = (entry.problem_detail or "") if entry is not None else ""
    return _Found(record, report, part, problem or _problem_in(report, part), measurement, baseline)


def _report_of(record: VersionRecord) -> Report | None:
    try:
        return None if record.report is None else read_report(record.report.encode())
    except StoredReportError:
        return None


def _measurement(connection: Connection, entry: LayerEntry | None) -> Measurement | None:
    digest = entry.digest if entry is not None else None
    return None if digest is None else measurements.load(connection, digest)


def _part_of(entry: LayerEntry, measurement: Measurement | None) -> LayerPart:
    """As a report would have it: reports leave out vectors of which nothing is to be said."""
    return LayerPart(
        name=entry.name,
        kind=str(entry.kind),
        shape=entry.shape,
        dtype=entry.dtype,
        status=LayerStatus.UNDECIDED if entry.digest is None else LayerStatus.OK,
        metrics=metrics_of(measurement),
        change=None,
    )


def _in_report(report: Report | None, wanted: str) -> LayerPart | None:
    if report is None:
        return None
    exact = next((one for one in report.layers if one.name == wanted), None)
    # Links have long and unprintable names as people read them.
    return exact or next((one for one in report.layers if name(one.name) == wanted), None)


def _problem_in(report: Report | None, part: LayerPart) -> str:
    if report is None or part.status is not LayerStatus.UNDECIDED:
        return ""
    told = (one.message for one in report.findings if one.layer == part.name and is_about_examination(one))
    return next(told, "it could not be examined")


def _neighbours(report: Report | None, layer: str, links: VersionLinks) -> tuple[Named | None, Named | None]:
    """The layers before and after it, in the order of the file."""
    names = [one.name for one in report.layers] if report is not None else []
    if layer not in names:
        return None, None
    place = names.index(layer)
    around = (names[place - 1] if place else None, names[place + 1] if place + 1 < len(names) else None)
    before, after = (None if one is None else Named(one, links.layer(one)) for one in around)
    return before, after

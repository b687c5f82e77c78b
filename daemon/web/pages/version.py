"""The page ``/version``: the report of one version, and the same behind the link of an alert.

It is opened at night: verdict, layer, defect and what to do come first, evidence after them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from fastapi import APIRouter, HTTPException, Response
from markupsafe import Markup

from layerwatch.daemon.gate.facts import counted
from layerwatch.daemon.gate.stored import StoredReportError, read_report
from layerwatch.daemon.store import baselines, versions
from layerwatch.daemon.store.records import VersionRecord, VersionState
from layerwatch.daemon.web.charts.depth import alpha_by_depth
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.findingview import finding_view
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.missing import missing
from layerwatch.daemon.web.pages.rendering import render
from layerwatch.daemon.web.pages.reportview import MOST_ROWS, ReportView, report_view
from layerwatch.daemon.web.pages.since import since_of
from layerwatch.daemon.web.storedlayers import find_version
from layerwatch.metrics.findings import Finding
from layerwatch.metrics.report import FindingPart, Report


def version_page(context: PageContext) -> APIRouter:
    """GET ``/version``."""
    router = APIRouter()

    @router.get("/version")
    def show(
        registry: str = "", model: str = "", version: str = "", fingerprint: str = "", all: str = ""
    ) -> Response:
        return version_answer(context, VersionLinks(registry, model, version, fingerprint), bool(all))

    return router


def version_answer(context: PageContext, links: VersionLinks, everything: bool = False) -> Response:
    """The page of the version that the links name; a page with status 404 where there is none.

    Args:
        everything: show every layer in the table.
    """
    with context.database.read() as connection:
        try:
            record = find_version(connection, links.registry, links.model, links.version, links.fingerprint)
        except HTTPException as error:
            return missing(links, error)
        since = since_of(connection, record, context.decisions)
        acceptance = baselines.acceptance_of(connection, record.key, record.fingerprint)
    report, unreadable = _report_of(record)
    found = [] if report is not None else _findings(context, record)
    view = None if report is None else report_view(report, links, None if everything else MOST_ROWS)
    says, do_now = ("Its report cannot be read.", unreadable) if unreadable else _without_report(record)
    return render(
        "version.html",
        key=record.key,
        record=record,
        links=links,
        links_to=lambda version: VersionLinks(links.registry, links.model, version).this(),
        view=view,
        notices=_notices(record, links) if view is not None else (),
        since=since,
        acceptance=acceptance,
        says=says,
        do_now=do_now,
        declared=_declared(record),
        compare=links.compare_baseline(report),
        depth=_depth(view),
        findings=[finding_view(_part(one), None, links) for one in found],
    )


def _findings(context: PageContext, record: VersionRecord) -> list[Finding]:
    with context.database.read() as connection:
        return versions.findings(connection, record.id)


def _report_of(record: VersionRecord) -> tuple[Report | None, str]:
    """The report, or why a stored one cannot be read."""
    if record.report is None:
        return None, ""
    try:
        return read_report(record.report.encode()), ""
    except StoredReportError as error:
        return None, f"It {error}. Or scan it again."


def _without_report(record: VersionRecord) -> tuple[str, str]:
    """What is to be said of a version without a report, and what to do."""
    if record.judged_at is not None:
        return (
            "Its report is not kept any more.",
            "Of old versions verdict and findings stay (store.keep_versions). Scan it again for the whole report.",
        )
    if record.gone_at is not None:
        return "It went away before it was scanned.", "Publish it again to have it judged."
    if record.state is VersionState.SCANNING:
        return "It is being scanned now.", "Look again in a minute."
    if record.attempts:
        tried = counted(record.attempts, "time")
        again = f" It is tried again at {record.not_before:%H:%M} UTC." if record.not_before else ""
        return f"Its scan was begun {tried} and did not finish.{again}", "The log of the daemon says why."
    return "It waits for its scan.", "The page about the daemon's status shows how many wait."


def _notices(record: VersionRecord, links: VersionLinks) -> Iterator[str]:
    """What a reader of the report must know before all else."""
    if record.gone_at is not None:
        yield f"Its registry has not listed this version since {record.gone_at:%Y-%m-%d %H:%M} UTC. The report is of before."
    if not record.current:
        yield "Other bytes are under the name of this version now. This report is about the earlier ones."
    if record.state is not VersionState.JUDGED:
        doing = "is being scanned" if record.state is VersionState.SCANNING else "waits for another scan"
        yield f"This version {doing}. Until then this is its last report."


def _declared(record: VersionRecord) -> str:
    """What the version says of itself; foreign text."""
    lineage = record.lineage
    if lineage.parent is None and lineage.relation is None:
        return ""
    made = " ".join(filter(None, (lineage.relation, f"from {lineage.parent}" if lineage.parent else "")))
    return made + (f" ({lineage.source})" if lineage.source else "")


def _depth(view: ReportView | None) -> Markup:
    if view is None or all(one.alpha is None for one in view.points):
        return Markup("")
    return alpha_by_depth(view.points, "Alpha of every layer, in the order of the file, over its baseline's")


def _part(finding: Finding) -> FindingPart:
    return FindingPart(
        rule=finding.rule,
        severity=str(finding.severity),
        layer=finding.layer,
        message=finding.message,
        evidence=dict(finding.evidence),
        strength=finding.strength if math.isfinite(finding.strength) else None,
    )

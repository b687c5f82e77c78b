"""Reports of versions, and ``/report``, which alerts link to: a page for people, JSON for programs."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Path, Response

from layerwatch.daemon.store import refs, versions
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.web.pages.accepting import prefers_html
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.missing import missing
from layerwatch.daemon.web.pages.version import version_answer

RowNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]

_VARY = {"Vary": "Accept"}


def reports_router(context: PageContext) -> APIRouter:
    """GET ``/report`` and ``/api/v1/versions/{id}/report``."""
    router = APIRouter()

    @router.get("/api/v1/versions/{version_id}/report")
    def report(version_id: RowNumber) -> Response:
        with context.database.read() as connection:
            record = versions.get(connection, version_id)
        return _json(record.report if record else None)

    @router.get(
        "/report",
        summary="Report of the version that a ref points at; the link of an alert. A page for who prefers HTML",
        responses={200: {"content": {"application/json": {}, "text/html": {}}}},
        response_class=Response,
    )
    def report_of_ref(registry: str, model: str, ref: str, accept: Annotated[str, Header()] = "") -> Response:
        found = _target(context, registry, model, ref)
        if prefers_html(accept):
            answer = _page(context, found, registry, model, ref)
        elif found is None:
            raise HTTPException(404, f"{registry}/{model} has no ref {ref!r}", headers=_VARY)
        else:
            answer = _json(found.report, indent=2)
        answer.headers.update(_VARY)
        return answer

    return router


def _target(context: PageContext, registry: str, model: str, ref: str) -> VersionRecord | None:
    with context.database.read() as connection:
        for record in refs.list_refs(connection, registry, model):
            if record.ref == ref:
                return versions.get(connection, record.version_id)
    return None


def _page(context: PageContext, found: VersionRecord | None, registry: str, model: str, ref: str) -> Response:
    if found is None:
        error = HTTPException(404, f"{registry}/{model} has no ref {ref}")
        return missing(VersionLinks(registry, model, ""), error)
    # A ref may point at bytes whose name others have taken since.
    bytes_ = "" if found.current else found.fingerprint
    return version_answer(context, VersionLinks(registry, model, found.key.version, bytes_))


def _json(report: str | None, indent: int | None = None) -> Response:
    if report is None:
        raise HTTPException(404, "no report is kept: the version was not judged yet, or retention dropped it")
    # The link of an alert is opened by people.
    text = report if indent is None else json.dumps(json.loads(report), indent=indent, ensure_ascii=False)
    return Response(text, media_type="application/json")

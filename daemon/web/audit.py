"""``GET /api/v1/audit``: who changed what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query

from layerwatch.daemon.store import auditlog
from layerwatch.daemon.web.access import require_token
from layerwatch.daemon.web.decisions import Decisions
from layerwatch.daemon.web.views import AuditView


def audit_router(decisions: Decisions) -> APIRouter:
    """The whole log, a page at a time."""

    def authorised(authorization: Annotated[str | None, Header()] = None) -> None:
        require_token(decisions.settings(), authorization)

    router = APIRouter()

    @router.get(
        "/api/v1/audit",
        dependencies=[Depends(authorised)],
        responses={
            401: {"description": "without the bearer token"},
            403: {"description": "server.token is not set"},
        },
        summary="Who changed what, latest first",
    )
    def audit(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[
            int | None, Query(ge=1, le=2**63 - 1, description="Go on after the entry with this id.")
        ] = None,
    ) -> list[AuditView]:
        with decisions.database.read() as connection:
            return [AuditView.of(record) for record in auditlog.list_(connection, limit, before)]

    return router

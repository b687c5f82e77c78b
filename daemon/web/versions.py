"""The API of what people decide about versions: accepted as normal, or scanned again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path

from layerwatch.alerts.people import EntryError
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.web.access import by_token, require_token
from layerwatch.daemon.web.decisions import Decisions, refused
from layerwatch.daemon.web.views import AcceptedView, AlertView, DecisionRequest, VersionView

_RowNumber = Annotated[int, Path(ge=1, le=2**63 - 1, description="As the list of versions has it.")]
_REFUSALS: dict[int | str, dict[str, str]] = {
    401: {"description": "without the bearer token"},
    403: {"description": "server.token is not set"},
    404: {"description": "there is no such version"},
    409: {"description": "other bytes took its name, or it cannot be scanned now"},
}


def versions_router(decisions: Decisions) -> APIRouter:
    """``POST /api/v1/versions/{version_id}/accept`` and ``.../rescan``."""

    def authorised(authorization: Annotated[str | None, Header()] = None) -> None:
        require_token(decisions.settings(), authorization)

    router = APIRouter(prefix="/api/v1/versions/{version_id}", dependencies=[Depends(authorised)])

    @router.post(
        "/accept",
        responses=_REFUSALS,
        summary="Call a version normal: its alerts about weights end, and it is a baseline for those to come",
    )
    def accept(version_id: _RowNumber, wanted: DecisionRequest) -> AcceptedView:
        try:
            record, ended = decisions.accept(by_token(wanted.by), version_id, wanted.reason)
        except (EntryError, StoreError) as error:
            raise refused(error) from None
        with decisions.database.read() as connection:
            now_called = versions.get_without_report(connection, version_id)
        assert now_called is not None
        return AcceptedView(
            version=VersionView.of(now_called),
            accepted_by=record.by,
            accepted_at=record.at,
            reason=record.reason,
            ended=tuple(map(AlertView.of, ended)),
        )

    @router.post(
        "/rescan",
        status_code=202,
        responses=_REFUSALS,
        summary="Examine and judge a version again; its verdict stays until there is another",
    )
    def rescan(version_id: _RowNumber, wanted: DecisionRequest) -> VersionView:
        try:
            decisions.rescan(by_token(wanted.by), version_id, wanted.reason)
        except (EntryError, StoreError) as error:
            raise refused(error) from None
        with decisions.database.read() as connection:
            waiting = versions.get_without_report(connection, version_id)
        assert waiting is not None
        return VersionView.of(waiting)

    return router

"""The API of alerts, acknowledgements and silences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from layerwatch.alerts.model import AlertPhase, AlertState
from layerwatch.alerts.people import EntryError
from layerwatch.alerts.silences import SilenceState
from layerwatch.config.matchers import parsed
from layerwatch.daemon.store import alerts, silences
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.web.access import by_token, require_token
from layerwatch.daemon.web.decisions import Decisions, refused
from layerwatch.daemon.web.views import (
    AcknowledgementRequest,
    AlertView,
    KeptSilenceView,
    SilenceRequest,
    SilenceView,
)

_RowNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]
_AlertId = Annotated[str, Path(description="An alert's id, or its first 8 or more hexadecimal digits.")]
_REFUSALS: dict[int | str, dict[str, str]] = {
    401: {"description": "without the bearer token"},
    403: {"description": "server.token is not set"},
}
_OF_RECORDS: dict[int | str, dict[str, str]] = {
    **_REFUSALS,
    404: {"description": "there is none"},
    409: {"description": "it is over"},
}


def silences_router(decisions: Decisions) -> APIRouter:
    """``/api/v1/alerts``, ``/api/v1/alerts/{alert_id}/acknowledge`` and ``/api/v1/silences``."""

    def authorised(authorization: Annotated[str | None, Header()] = None) -> None:
        require_token(decisions.settings(), authorization)

    router = APIRouter(prefix="/api/v1")
    needs_token = [Depends(authorised)]

    def views(states: Sequence[AlertState]) -> tuple[AlertView, ...]:
        with decisions.database.read() as connection:
            muted = decisions.why_muted(connection, states)
        return tuple(AlertView.of(state, muted.get(state.identity)) for state in states)

    @router.get("/alerts", summary="Alerts, sorted by what they are about")
    def list_alerts(phase: AlertPhase | None = None) -> tuple[AlertView, ...]:
        with decisions.database.read() as connection:
            states = alerts.list_states(connection, phase=phase)
        return views(states)

    @router.get("/silences", summary="Silences, latest first")
    def list_silences(state: SilenceState | None = None) -> list[SilenceView]:
        now = decisions.clock()
        states = tuple(SilenceState) if state is None else (state,)
        with decisions.database.read() as connection:
            return [SilenceView.of(one, now) for one in silences.list_(connection, now, states)]

    @router.post(
        "/silences",
        status_code=201,
        dependencies=needs_token,
        responses=_REFUSALS,
        summary="Silence alerts for a while",
    )
    def add_silence(wanted: SilenceRequest, response: Response) -> KeptSilenceView:
        try:
            silence, held = decisions.silence(
                by_token(wanted.author),
                parsed(wanted.matchers),
                wanted.reason,
                wanted.starts_at,
                wanted.ends_at,
                wanted.duration,
            )
        except (EntryError, StoreError) as error:
            raise refused(error) from None
        response.headers["Location"] = f"/api/v1/silences/{silence.id}"
        return KeptSilenceView.kept(silence, views(held), decisions.clock())

    @router.get("/silences/{silence_id}", responses={404: {"description": "there is none"}})
    def show_silence(silence_id: _RowNumber) -> SilenceView:
        try:
            with decisions.database.read() as connection:
                silence = silences.get(connection, silence_id)
        except StoreError as error:
            raise refused(error) from None
        return SilenceView.of(silence, decisions.clock())

    @router.delete(
        "/silences/{silence_id}",
        dependencies=needs_token,
        responses=_OF_RECORDS,
        summary="End a silence; it stays in the list for a while",
    )
    def expire_silence(
        silence_id: _RowNumber, by: Annotated[str, Query(description="Who ends it.")] = "the API"
    ) -> SilenceView:
        try:
            silence = decisions.expire(by_token(by), silence_id)
        except (EntryError, StoreError) as error:
            raise refused(error) from None
        return SilenceView.of(silence, decisions.clock())

    @router.post(
        "/alerts/{alert_id}/acknowledge",
        dependencies=needs_token,
        responses=_OF_RECORDS,
        summary="Somebody is on it: a firing alert is not repeated until it gets worse or ends",
    )
    def acknowledge(alert_id: _AlertId, taken: AcknowledgementRequest) -> AlertView:
        try:
            state = decisions.acknowledge(by_token(taken.by), alert_id, taken.reason)
        except (EntryError, StoreError) as error:
            raise refused(error) from None
        return views([state])[0]

    @router.delete(
        "/alerts/{alert_id}/acknowledge",
        dependencies=needs_token,
        responses=_OF_RECORDS,
        summary="Nobody is on it any more",
    )
    def unacknowledge(
        alert_id: _AlertId, by: Annotated[str, Query(description="Who says so.")] = "the API"
    ) -> AlertView:
        try:
            state = decisions.unacknowledge(by_token(by), alert_id)
        except (EntryError, StoreError) as error:
            raise refused(error) from None
        return views([state])[0]

    return router

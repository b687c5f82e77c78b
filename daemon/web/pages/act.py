"""The page ``/act``: what accepting or rescanning a version would do, in words, and the form that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from layerwatch.alerts.model import AlertPhase, AlertState
from layerwatch.alerts.people import LONGEST_NAME, LONGEST_REASON, EntryError
from layerwatch.daemon.alerting import ended_by_acceptance
from layerwatch.daemon.baselines import choose_baseline
from layerwatch.daemon.store import alerts, baselines, versions
from layerwatch.daemon.store.auditlog import Actor
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.store.records import BaselineRecord, VersionRecord, VersionState
from layerwatch.daemon.web.admission import ForeignFormError, Visitor
from layerwatch.daemon.web.decisions import Decisions, status_of
from layerwatch.daemon.web.forms import posted
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.missing import missing
from layerwatch.daemon.web.pages.rendering import HEADERS, render
from layerwatch.daemon.web.storedlayers import find_version
from layerwatch.metrics.findings import Finding

_ACTIONS = ("accept", "rescan")
_LABELS = {"by": "Your name", "reason": "Reason"}
_MOST_ALERTS = 20


@dataclass(frozen=True, slots=True)
class Form:
    """What was entered; kept when it is refused. The token never is.

    Attributes:
        problem: why it was refused, or None.
    """

    by: str = ""
    reason: str = ""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What accepting a version would do.

    Attributes:
        replaced: the version that was accepted last; None where none was.
        pinned: the version that goes before whatever is accepted; None where none is pinned.
        ends, stays: firing alerts of the model that end with it, and those of the version that go on.
    """

    replaced: BaselineRecord | None
    pinned: BaselineRecord | None
    ends: Sequence[AlertState]
    stays: Sequence[AlertState]


@dataclass(frozen=True, slots=True)
class Rescan:
    """What a rescan would do.

    Attributes:
        against: name of the version that it would be judged against now, in full for another model; None for nothing.
        chosen_by: why that one.
    """

    against: str | None
    chosen_by: str


def act_page(context: PageContext) -> APIRouter:
    """GET and POST ``/act``."""
    router = APIRouter()

    @router.get("/act")
    def show(
        request: Request,
        action: str = "",
        done: str = "",
        registry: str = "",
        model: str = "",
        version: str = "",
    ) -> Response:
        wanted = done or action
        if wanted not in _ACTIONS:
            raise HTTPException(404, f"what can be done to a version is: {', '.join(_ACTIONS)}")
        links, visitor = VersionLinks(registry, model, version), context.admission.visitor(request)
        if not done:
            return _page(context, visitor, wanted, links, Form())
        return _done(context, wanted, links, request.query_params.get("alerts", ""))

    @router.post("/act")
    async def change(request: Request) -> Response:
        return await run_in_threadpool(_changed, context, request, await posted(request))

    return router


def _changed(context: PageContext, request: Request, fields: Mapping[str, str]) -> Response:
    """Do what the form asks for and lead to what was done, or show the form again with what is wrong."""
    # Names stand in the address: browsers change line ends in fields.
    asked = request.query_params
    action = asked.get("action", "")
    if action not in _ACTIONS:
        raise HTTPException(400, "this is no form of this page")
    links = VersionLinks(*(asked.get(name, "") for name in ("registry", "model", "version")))
    form = Form(fields.get("by", ""), fields.get("reason", ""))

    def again(problem: str, status: int) -> Response:
        shown = Form(form.by, form.reason, problem)
        return _page(context, context.admission.visitor(request), action, links, shown, status)

    try:
        actor = context.admission.actor(request, fields)
        with context.database.read() as connection:
            record = find_version(connection, links.registry, links.model, links.version)
        if record.fingerprint != fields.get("fingerprint"):
            return again("Other bytes were published under this name since this page was loaded.", 409)
        ended = _do(context.decisions, actor, action, record, form.reason)
    except ForeignFormError:
        # What somebody else filled in is not even shown.
        raise
    except HTTPException as error:
        if error.status_code == 404:
            return missing(links, error)
        # 401 would make browsers ask for a password of their own.
        wrong = error.status_code == 401
        told = "The token is wrong. Nothing was changed." if wrong else str(error.detail)
        return again(told, 403 if wrong else error.status_code)
    except EntryError as error:
        return again(f"{_LABELS.get(error.field, error.field)}: {error.detail}", 422)
    except StoreError as error:
        return again(error.detail, status_of(error))
    names = {"registry": links.registry, "model": links.model, "version": links.version}
    query = urlencode({"done": action, **names, "alerts": str(ended)})
    return RedirectResponse(f"act?{query}", 303, headers=HEADERS)


def _do(decisions: Decisions, actor: Actor, action: str, record: VersionRecord, reason: str) -> int:
    """Do it; how many alerts ended with it."""
    if action == "accept":
        _, ended = decisions.accept(actor, record.id, reason)
        return len(ended)
    decisions.rescan(actor, record.id, reason)
    return 0


def _page(
    context: PageContext, visitor: Visitor, action: str, links: VersionLinks, form: Form, status: int = 200
) -> Response:
    with context.database.read() as connection:
        try:
            record = find_version(connection, links.registry, links.model, links.version)
        except HTTPException as error:
            return missing(links, error)
        found = versions.findings(connection, record.id)
        acceptance = _acceptance(connection, context, record) if action == "accept" else None
        rescan = _rescan(connection, context, record) if action == "rescan" else None
    return render(
        "act.html",
        status,
        action=action,
        done=None,
        key=record.key,
        record=record,
        worst=_worst(found),
        findings=len(found),
        links=links,
        acceptance=acceptance,
        rescan=rescan,
        hindrance=_hindrance(context.decisions, action, record),
        form=form,
        visitor=visitor,
        longest_name=LONGEST_NAME,
        longest_reason=LONGEST_REASON,
    )


def _done(context: PageContext, action: str, links: VersionLinks, ended: str) -> Response:
    """What was done, from a closed list and from the store: the address of the page can be written by anybody."""
    with context.database.read() as connection:
        try:
            record = find_version(connection, links.registry, links.model, links.version)
        except HTTPException as error:
            return missing(links, error)
        chosen = [
            one
            for one in baselines.in_use(connection, links.registry, links.model)
            if (one.version, one.fingerprint) == (record.key.version, record.fingerprint)
        ]
    return render(
        "act.html",
        action=action,
        done=action,
        key=record.key,
        record=record,
        chosen=chosen[0] if chosen else None,
        ended=int(ended) if ended.isascii() and ended.isdecimal() and len(ended) < 6 else 0,
        links=links,
    )


def _acceptance(connection: Connection, context: PageContext, record: VersionRecord) -> Acceptance:
    key = record.key
    ends = ended_by_acceptance(connection, record, context.decisions.clock())
    ending = {state.identity for state in ends}
    stays = [
        state
        for state in alerts.list_states(connection, AlertPhase.FIRING, key.registry, key.model)
        if state.identity not in ending and state.version == key.version
    ]
    accepted = baselines.accepted(connection, key.registry, key.model)
    return Acceptance(
        accepted[0] if accepted else None,
        baselines.pinned(connection, key.registry, key.model),
        ends[:_MOST_ALERTS],
        stays[:_MOST_ALERTS],
    )


def _rescan(connection: Connection, context: PageContext, record: VersionRecord) -> Rescan:
    choice = choose_baseline(connection, record, context.settings().baselines)
    if choice is None:
        return Rescan(None, "")
    key = choice.version.key
    is_own = (key.registry, key.model) == (record.key.registry, record.key.model)
    return Rescan(key.version if is_own else f"{key.registry}/{key.model}/{key.version}", choice.chosen_by)


def _hindrance(decisions: Decisions, action: str, record: VersionRecord) -> str | None:
    """Why it cannot be done now, or None."""
    if action == "accept":
        return None
    if decisions.is_composite(record):
        return "A composite is never scanned: its verdict is that of its members. Rescan those."
    if record.state is VersionState.SCANNING:
        return "It is being scanned now: wait for its verdict."
    if record.gone_at is not None:
        return "It is no longer in its registry, so that there is nothing to scan: put it back there first."
    return None


def _worst(found: Sequence[Finding]) -> Finding | None:
    return max(found, key=lambda one: one.severity.rank, default=None)

"""The page ``/alerts``: what fires, who was told, what is silent, what ended, and the forms to silence and to acknowledge.

Everything is asked and posted under this one path, and all links are relative: it works behind any prefix of a proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.people import LONGEST_NAME, LONGEST_REASON, EntryError
from layerwatch.alerts.silences import Silence, SilenceState, exactly, shown
from layerwatch.config.matchers import Matcher, MatcherError, parse_matcher
from layerwatch.config.quantities import parse_duration
from layerwatch.daemon.store import alertnames, alerts, silences
from layerwatch.daemon.store.alertdeliveries import deliveries_of
from layerwatch.daemon.store.alertends import ended_alerts
from layerwatch.daemon.store.auditlog import Actor
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.web.admission import ForeignFormError, Visitor
from layerwatch.daemon.web.decisions import Decisions, status_of
from layerwatch.daemon.web.forms import posted
from layerwatch.daemon.web.pages.alertrows import ended_row, firing_row
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.rendering import HEADERS, render

MOST_ROWS = 200
"""Alerts and silences that are shown; of more, the number."""

ENDED_SINCE = timedelta(days=7)
"""How long alerts are shown that ended."""

_MOST_ENDED = 50
_ACTIONS = ("silence", "expire", "acknowledge", "unacknowledge")
_DONE = {
    "silence": "Silence {0} is kept. Of the alerts that fire now, it is about {1}.",
    "expire": "Silence {0} is over.",
    "acknowledge": "The alert is acknowledged: it is not repeated until it gets worse or ends.",
    "unacknowledge": "The alert is no longer acknowledged.",
}


@dataclass(frozen=True, slots=True)
class Form:
    """The form that is open. What was entered is kept when it is refused; the token never is.

    Attributes:
        action: what it does, one of ``_ACTIONS``.
        target: alert id or number of the silence that it is about; empty for a new silence.
        about: the same in words.
        problem: why it was refused, or None.
    """

    action: str
    target: str = ""
    about: str = ""
    matchers: str = ""
    duration: str = "2h"
    by: str = ""
    reason: str = ""
    problem: str | None = None


def alerts_page(context: PageContext) -> APIRouter:
    """GET and POST ``/alerts``."""
    router = APIRouter()
    decisions, admission = context.decisions, context.admission

    @router.get("/alerts")
    def show(request: Request) -> Response:
        asked, visitor = request.query_params, admission.visitor(request)
        for action in _ACTIONS:
            if action in asked:
                return _page(decisions, visitor, Form(action, **_prefilled(action, asked[action])))
        return _page(decisions, visitor, Form("silence"), done=_done(asked))

    @router.post("/alerts")
    async def change(request: Request) -> Response:
        return await run_in_threadpool(_changed, context, request, await posted(request))

    return router


def _prefilled(action: str, target: str) -> dict[str, str]:
    if action != "silence":
        return {"target": target}
    registry, separator, model = target.partition("/")
    if not separator:
        return {}
    return {"matchers": "\n".join(str(exactly(*pair)) for pair in (("registry", registry), ("model", model)))}


def _done(asked: Mapping[str, str]) -> str | None:
    """A sentence from a closed list: the address of the page can be written by anybody."""
    sentence = _DONE.get(asked.get("done", ""))
    number, held = (_number(asked.get(name, "")) for name in ("number", "alerts"))
    return None if sentence is None else sentence.format(number, held or "none")


def _changed(context: PageContext, request: Request, fields: Mapping[str, str]) -> Response:
    """Do what a form asks for and lead back to the page, or show the form again with what is wrong."""
    form = Form(
        action=fields.get("action", ""),
        target=fields.get("target", ""),
        matchers=fields.get("matchers", "").replace("\r\n", "\n"),
        duration=fields.get("duration", ""),
        by=fields.get("by", ""),
        reason=fields.get("reason", ""),
    )
    if form.action not in _ACTIONS:
        raise HTTPException(400, "this is no form of this page")

    def again(problem: str, status: int) -> Response:
        visitor = context.admission.visitor(request)
        return _page(context.decisions, visitor, replace(form, problem=problem), status)

    try:
        done = _do(context.decisions, context.admission.actor(request, fields), form)
    except ForeignFormError:
        # What somebody else filled in is not even shown.
        raise
    except HTTPException as error:
        # 401 would make browsers ask for a password of their own.
        wrong = error.status_code == 401
        problem = "The token is wrong. Nothing was changed." if wrong else str(error.detail)
        return again(problem, 403 if wrong else error.status_code)
    except EntryError as error:
        return again(f"{_LABELS.get(error.field, error.field)}: {error.detail}", 422)
    except StoreError as error:
        return again(error.detail, status_of(error))
    return RedirectResponse(f"alerts?{urlencode(done)}", 303, headers=HEADERS)


_LABELS = {
    "author": "Your name",
    "by": "Your name",
    "reason": "Reason",
    "matchers": "Alerts",
    "duration": "For",
    "ends_at": "For",
}


def _do(decisions: Decisions, actor: Actor, form: Form) -> dict[str, str]:
    if form.action == "silence":
        matchers = _matchers(form.matchers)
        try:
            duration = parse_duration(form.duration)
        except ValueError as error:
            raise EntryError("duration", str(error)) from None
        silence, held = decisions.silence(actor, matchers, form.reason, None, None, duration)
        return {"done": form.action, "number": str(silence.id), "alerts": str(len(held))}
    if form.action == "expire":
        number = _number(form.target)
        decisions.expire(actor, number)
        return {"done": form.action, "number": str(number)}
    if form.action == "acknowledge":
        decisions.acknowledge(actor, form.target, form.reason)
    else:
        decisions.unacknowledge(actor, form.target)
    return {"done": form.action}


def _matchers(text: str) -> list[Matcher]:
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        try:
            found.append(parse_matcher(line))
        except MatcherError as error:
            raise EntryError("matchers", f"{line}: {error}") from None
    return found


def _number(text: str) -> int:
    """The number of a row that a text says; for any other text 0, which no row has."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def _page(
    decisions: Decisions, visitor: Visitor, form: Form, status: int = 200, done: str | None = None
) -> Response:
    now = decisions.clock()
    with decisions.database.read() as connection:
        kept = silences.list_(connection, now, (SilenceState.ACTIVE, SilenceState.PENDING))
        firing = alerts.list_states(connection, AlertPhase.FIRING)
        firing.sort(key=lambda state: (-state.severity.rank, state.started_at))
        worst = firing[:MOST_ROWS]
        muted = decisions.why_muted(connection, worst)
        told = alerts.told_texts(connection, [state.identity for state in worst])
        messages = deliveries_of(connection, [state.identity for state in worst])
        ended = ended_alerts(connection, now - ENDED_SINCE, _MOST_ENDED + 1)
        form = _about(connection, form)
    rows = [
        firing_row(
            state,
            told.get(state.identity),
            muted.get(state.identity),
            messages.get(state.identity, ()),
        )
        for state in worst
    ]
    return render(
        "alerts.html",
        status,
        page="alerts",
        now=now,
        rows=rows,
        firing=len(firing),
        silences=[_shown(silence, now) for silence in kept[:MOST_ROWS]],
        kept=len(kept),
        form=form,
        done=done,
        ended=[ended_row(one) for one in ended[:_MOST_ENDED]],
        more_ended=len(ended) > _MOST_ENDED,
        ended_days=ENDED_SINCE.days,
        visitor=visitor,
        longest_name=LONGEST_NAME,
        longest_reason=LONGEST_REASON,
    )


def _about(connection: Connection, form: Form) -> Form:
    """The form with its target in words; a new silence's where there is no such target."""
    try:
        if form.action == "expire":
            return replace(form, about=_in_words(silences.get(connection, _number(form.target))))
        if form.action in ("acknowledge", "unacknowledge"):
            state = alertnames.by_id(connection, form.target)
            identity = state.identity
            about = f"{identity.registry}/{identity.model} {identity.ref}: {identity.group}"
            return replace(form, target=alert_id(identity, state.episode), about=about)
    except StoreError as error:
        status_of(error)
        return Form("silence", problem=form.problem or error.detail)
    return form


def _shown(silence: Silence, now: datetime) -> dict[str, Any]:
    return {
        "id": silence.id,
        "pending": silence.state(now) is SilenceState.PENDING,
        "matchers": [shown(matcher) for matcher in silence.matchers],
        "author": silence.author,
        "reason": silence.reason,
        "starts_at": silence.starts_at,
        "ends_at": silence.ends_at,
        "left": max(silence.ends_at - now, timedelta()),
    }


def _in_words(silence: Silence) -> str:
    matchers = ", ".join(map(shown, silence.matchers))
    return f"silence {silence.id} of {matchers}, by {silence.author}: {silence.reason}"

"""The page ``/alerts``: what fires, what is silent, and the forms to silence and to acknowledge.

Everything is asked and posted under this one path, and all links are relative: it works behind any prefix of a proxy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import Acknowledgement, AlertPhase, AlertState
from layerwatch.alerts.people import LONGEST_NAME, LONGEST_REASON, EntryError
from layerwatch.alerts.silences import Silence, SilenceState, exactly, shown
from layerwatch.config.matchers import Matcher, MatcherError, parse_matcher
from layerwatch.config.quantities import parse_duration
from layerwatch.daemon.store import alertnames, alerts, silences
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.web.access import require_token
from layerwatch.daemon.web.decisions import Decisions, status_of
from layerwatch.daemon.web.pages.rendering import HEADERS, render

MOST_ROWS = 200
"""Alerts and silences that are shown; of more, the number."""

_MOST_FINDINGS = 3
_MOST_FIELDS = 20
_ACTIONS = ("silence", "expire", "acknowledge", "unacknowledge")
_DONE = {
    "silence": "Silence {0} is kept. Of the alerts that fire now, it is about {1}.",
    "expire": "Silence {0} is over.",
    "acknowledge": "The alert is acknowledged: it is not repeated until it gets worse or ends.",
    "unacknowledge": "The alert is no longer acknowledged.",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """One thing that is wrong. All text is foreign.

    Attributes:
        layer: empty for the version as a whole.
        words: what is wrong.
        numbers: the layer's numbers in words; may be empty.
    """

    layer: str
    words: str = ""
    numbers: str = ""


@dataclass(frozen=True, slots=True)
class AlertRow:
    """A firing alert as the page shows it. All text is foreign.

    Attributes:
        broken: the worst findings; ``more`` are not shown.
        muted_by: what holds it back now, in words; None when people are told.
        report: relative link.
    """

    alert_id: str
    severity: str
    registry: str
    model: str
    ref: str
    version: str
    group: str
    since: datetime
    broken: tuple[Broken, ...]
    more: int
    acknowledgement: Acknowledgement | None
    muted_by: str | None
    report: str


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


def alerts_page(decisions: Decisions) -> APIRouter:
    """GET and POST ``/alerts``."""
    router = APIRouter()

    @router.get("/alerts")
    def show(request: Request) -> Response:
        asked = request.query_params
        for action in _ACTIONS:
            if action in asked:
                return _page(decisions, Form(action, **_prefilled(action, asked[action])))
        return _page(decisions, Form("silence"), done=_done(asked))

    @router.post("/alerts")
    async def change(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise HTTPException(415, "a form is posted as application/x-www-form-urlencoded")
        body = await request.body()
        return await run_in_threadpool(_changed, decisions, body)

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


def _changed(decisions: Decisions, body: bytes) -> Response:
    """Do what a form asks for and lead back to the page, or show the form again with what is wrong."""
    try:
        fields = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise HTTPException(400, "this is no form of this page") from None
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
    try:
        require_token(decisions.settings(), f"Bearer {fields.get('token', '')}")
        done = _do(decisions, form)
    except HTTPException as error:
        # 401 would make browsers ask for a password of their own.
        wrong = error.status_code == 401
        problem = "The token is wrong. Nothing was changed." if wrong else str(error.detail)
        return _page(decisions, replace(form, problem=problem), status=403 if wrong else error.status_code)
    except EntryError as error:
        problem = f"{_LABELS.get(error.field, error.field)}: {error.detail}"
        return _page(decisions, replace(form, problem=problem), status=422)
    except StoreError as error:
        return _page(decisions, replace(form, problem=error.detail), status=status_of(error))
    return RedirectResponse(f"alerts?{urlencode(done)}", 303, headers=HEADERS)


_LABELS = {
    "author": "Your name",
    "by": "Your name",
    "reason": "Reason",
    "matchers": "Alerts",
    "duration": "For",
    "ends_at": "For",
}


def _do(decisions: Decisions, form: Form) -> dict[str, str]:
    if form.action == "silence":
        matchers = _matchers(form.matchers)
        try:
            duration = parse_duration(form.duration)
        except ValueError as error:
            raise EntryError("duration", str(error)) from None
        silence, held = decisions.silence(matchers, form.by, form.reason, None, None, duration)
        return {"done": form.action, "number": str(silence.id), "alerts": str(len(held))}
    if form.action == "expire":
        number = _number(form.target)
        decisions.expire(number, form.by)
        return {"done": form.action, "number": str(number)}
    if form.action == "acknowledge":
        decisions.acknowledge(form.target, form.by, form.reason)
    else:
        decisions.unacknowledge(form.target)
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


def _page(decisions: Decisions, form: Form, status: int = 200, done: str | None = None) -> Response:
    now = decisions.clock()
    with decisions.database.read() as connection:
        kept = silences.list_(connection, now, (SilenceState.ACTIVE, SilenceState.PENDING))
        firing = alerts.list_states(connection, AlertPhase.FIRING)
        firing.sort(key=lambda state: (-state.severity.rank, state.started_at))
        worst = firing[:MOST_ROWS]
        muted = decisions.why_muted(connection, worst)
        told = alerts.told_texts(connection, [state.identity for state in worst])
        form = _about(connection, form)
    rows = [_row(state, told.get(state.identity), muted.get(state.identity)) for state in worst]
    return render(
        "alerts.html",
        status,
        now=now,
        rows=rows,
        firing=len(firing),
        silences=[_shown(silence, now) for silence in kept[:MOST_ROWS]],
        kept=len(kept),
        form=form,
        done=done,
        may_change=decisions.settings().server.token is not None,
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


def _row(state: AlertState, told: str | None, muted_by: str | None) -> AlertRow:
    identity = state.identity
    broken = tuple(_broken(state, told))
    link = {"registry": identity.registry, "model": identity.model, "ref": identity.ref}
    return AlertRow(
        alert_id=alert_id(identity, state.episode),
        severity=state.severity.value,
        registry=identity.registry,
        model=identity.model,
        ref=identity.ref,
        version=state.version,
        group=identity.group.value,
        since=state.started_at,
        broken=broken[:_MOST_FINDINGS],
        more=_count(told, len(broken)) - len(broken[:_MOST_FINDINGS]),
        acknowledgement=state.acknowledgement,
        muted_by=muted_by,
        report=f"report?{urlencode(link)}",
    )


def _broken(state: AlertState, told: str | None) -> Iterable[Broken]:
    """What `layerwatch.alerts.payload.describe` tells, worst first; the bare layers where nothing is told yet."""
    described: Mapping[str, Any] = json.loads(told) if told is not None else {}
    for finding in described.get("findings", ()):
        yield Broken(finding["layer"] or "", finding["message"], finding["numbers"] or "")
    if described and not described["findings"]:
        yield Broken("", described["headline"])
    if not described:
        yield from (
            Broken(layer) if layer else Broken("", "the version as a whole") for layer in state.layers
        )


def _count(told: str | None, least: int) -> int:
    return least if told is None else least + int(json.loads(told).get("findings_omitted", 0))


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

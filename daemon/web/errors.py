"""What is answered when something cannot be answered: JSON with one sentence, ``error``; to browsers a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.web.pages.accepting import prefers_html
from layerwatch.daemon.web.pages.rendering import render

_RETRY_AFTER = "5"
_DEEPEST = 20
"""Links of an error page lead back from so many levels; nothing lies that deep."""

_PAGES = {
    400: ("Not understood", "Go back, load the page again, and try once more."),
    401: ("A token is needed", "Programs send the server's token as a bearer token; people use the forms of the pages."),
    403: ("Not allowed", "Go back, load the page again, and send the form from there."),
    404: ("Not there", "Links work as long as what they lead to is kept. Look for it from one of these pages."),
    405: ("Not possible here", "This address cannot be asked in this way. Go on from one of these pages."),
    409: ("Not possible now", "Things are not as they were when the page was loaded. Load it again."),
    413: ("Too large", "Send less at once."),
    422: ("Something is missing or wrong in the address", "Follow a link of one of these pages instead."),
    501: ("Not installed", "Install what is named above on the daemon's machine, and start the daemon again."),
    503: ("Not now", "Load the page again in a few seconds. If it stays so, the status page and the log tell why."),
}  # fmt: skip
_SENTENCES = {
    "Not Found": "There is no such page.",
    "Method Not Allowed": "This page cannot be asked for in this way.",
}
"""Starlette's own words."""

_OTHER = ("Not possible", "Go on from one of these pages; the log of the daemon may tell more.")


def add_error_answers(api: FastAPI) -> None:
    """Answer so on every path."""

    @api.exception_handler(StoreError)
    def store_failed(request: Request, error: StoreError) -> Response:
        # Whoever may read here need not learn where the database is.
        told = f"the store cannot be used now ({error.reason}): see the log of layerwatch"
        return _answer(request, told, 503, {"Retry-After": _RETRY_AFTER})

    @api.exception_handler(RequestValidationError)
    async def plain_validation(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, "; ".join(map(_in_words, error.errors())), 422)

    @api.exception_handler(HTTPException)
    async def plain_error(request: Request, error: HTTPException) -> Response:
        return _answer(request, error.detail, error.status_code, error.headers)


def _answer(request: Request, told: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    answer: Response
    if prefers_html(request.headers.get("accept", "")):
        title, hint = _PAGES.get(status, _OTHER)
        # The page may be asked for at any depth, and it links to what lies at the first level.
        depth = request.scope.get("raw_path", b"/").count(b"/") - 1
        root = "../" * min(depth, _DEEPEST)
        answer = render(
            "error.html", status, title=title, told=_SENTENCES.get(told, told), hint=hint, root=root
        )
    else:
        answer = JSONResponse({"error": told}, status_code=status)
    answer.headers.update({"Vary": "Accept", **(headers or {})})
    return answer


def _in_words(error: Mapping[str, Any]) -> str:
    """One entry of ``errors()``, without what was sent."""
    if error["type"] == "json_invalid":
        return "the body is not JSON"
    where = ".".join(map(str, error["loc"][1:])) or error["loc"][0]
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"

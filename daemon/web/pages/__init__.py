"""The pages for people: HTML from templates, one stylesheet, no script.

Names of models, layers and versions come from strangers. Templates escape everything, `line` takes out what turns the
direction of text, and the headers let a browser load nothing but the stylesheet and post nowhere but here.

No page relies on what a browser sends by itself: whoever changes something enters the server's token with it, so that
no other site can do so in a visitor's name. It is kept nowhere.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from layerwatch.daemon.web.decisions import Decisions
from layerwatch.daemon.web.pages.alerts import alerts_page
from layerwatch.daemon.web.pages.rendering import HERE


def pages_router(decisions: Decisions) -> APIRouter:
    """Every page, and what they load."""
    router = APIRouter(include_in_schema=False)
    stylesheet = (HERE / "static" / "layerwatch.css").read_bytes()

    @router.get("/static/layerwatch.css")
    def style() -> Response:
        headers = {"Cache-Control": "max-age=300", "X-Content-Type-Options": "nosniff"}
        return Response(stylesheet, media_type="text/css", headers=headers)

    router.include_router(alerts_page(decisions))
    return router

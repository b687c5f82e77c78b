"""The pages for people: HTML from templates, pictures as SVG drawn here, scripts and stylesheets from this daemon only.

Names of models, layers and versions come from strangers. Templates escape everything, `line` takes out what turns the
direction of text, and the headers let a browser load and post nothing that is not of this daemon. Every page works
without scripts; they only save a reload. All links are relative, so that any prefix of a proxy is right.

Whoever changes something enters the server's token with it, which is kept nowhere, or is named by a trusted proxy and
posts from a page of this server with what it was given (``layerwatch.daemon.web.admission``), so that no other site can
do so in a visitor's name.
"""

from __future__ import annotations

from fastapi import APIRouter

from layerwatch.daemon.web.pages.act import act_page
from layerwatch.daemon.web.pages.alerts import alerts_page
from layerwatch.daemon.web.pages.assets import assets_router
from layerwatch.daemon.web.pages.compare import compare_page
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.fleet import fleet_page
from layerwatch.daemon.web.pages.layerpage import layer_page
from layerwatch.daemon.web.pages.model import model_page
from layerwatch.daemon.web.pages.status import status_page
from layerwatch.daemon.web.pages.version import version_page


def pages_router(context: PageContext) -> APIRouter:
    """Every page, and what they load."""
    router = APIRouter(include_in_schema=False)
    router.include_router(assets_router())
    router.include_router(fleet_page(context))
    router.include_router(model_page(context))
    router.include_router(compare_page(context))
    router.include_router(alerts_page(context))
    router.include_router(act_page(context))
    router.include_router(status_page(context))
    router.include_router(version_page(context))
    router.include_router(layer_page(context))
    return router

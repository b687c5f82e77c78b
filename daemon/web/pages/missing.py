"""The page in place of a version or a layer that is not there, with what to do. Its status is 404."""

from __future__ import annotations

from fastapi import HTTPException, Response

from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.rendering import render

_HINT = (
    "Names are case-sensitive, and a version is known here once its registry listed it. Retention forgets versions that "
    "their registry no longer offers."
)


def missing(links: VersionLinks, error: HTTPException, *ways: tuple[str, str]) -> Response:
    """A page that says what is not there.

    Args:
        links: of the version that was asked for.
        error: what is not there, in words.
        ways: (link, words) of further ways on, before the usual ones.
    """
    usual = (
        (links.of_model, "The versions of the model"),
        (".", "All models"),
        ("status", "How the daemon does"),
    )
    return render("missing.html", 404, told=str(error.detail), hint=_HINT, ways=(*ways, *usual))

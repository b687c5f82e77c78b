"""What pages load: stylesheets, scripts and the icon, all from here. Read once; the browser asks again when they change."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter, Header, HTTPException, Response

from layerwatch.daemon.web.pages.rendering import HERE

_TYPES = {
    "layerwatch.css": "text/css",
    "charts.css": "text/css",
    "fleet.css": "text/css",
    "report.css": "text/css",
    "status.css": "text/css",
    "icon.svg": "image/svg+xml",
    "spectrum.js": "text/javascript",
    "vendored/htmx-2.0.11.min.js": "text/javascript",
    "vendored/uplot-1.6.32.iife.min.js": "text/javascript",
    "vendored/uplot-1.6.32.min.css": "text/css",
}


def asset(name: str) -> str:
    """The text of an asset, for documents that carry all they need."""
    return (HERE / "static" / name).read_text(encoding="utf-8")


def assets_router() -> APIRouter:
    """GET ``/static/...``."""
    router = APIRouter()
    known = {name: (asset(name).encode(), media_type) for name, media_type in _TYPES.items()}
    tags = {name: f'"{hashlib.sha256(body).hexdigest()[:32]}"' for name, (body, _) in known.items()}

    @router.get("/static/{name:path}")
    def static(name: str, if_none_match: str = Header("")) -> Response:
        if name not in known:
            raise HTTPException(404, "there is no such file")
        headers = {
            "Cache-Control": "max-age=300",
            "ETag": tags[name],
            "X-Content-Type-Options": "nosniff",
        }
        if tags[name] in if_none_match:
            return Response(status_code=304, headers=headers)
        body, media_type = known[name]
        return Response(body, media_type=media_type, headers=headers)

    return router

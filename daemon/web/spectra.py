"""``/spectrum.png``: the spectrum of one layer beside its baseline's, which messages link to. Drawn by matplotlib.

A picture takes some hundred milliseconds and is asked for by whoever opens a message, at night by all at once: it is
drawn in a thread of its own, one at a time, kept for a while, and refused when too many wait for theirs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Response
from sqlalchemy import Connection

from layerwatch import __version__
from layerwatch.alerts.payload import name
from layerwatch.config.extras import how_to_install
from layerwatch.daemon.store import measurements
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.web.storedlayers import (
    FINGERPRINT,
    Wanted,
    baseline_layer,
    find_layer,
    find_version,
)
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.plots import (
    PlotError,
    PlotReason,
    plot_layer,
    plot_unmeasured,
    rendered,
    require_matplotlib,
)

KEPT = 32
"""Pictures in memory, of 100 KB each."""

MOST_WAITING = 8
"""So many may wait for their pictures."""

_RETRY_AFTER = "5"

# A version's bytes may be replaced under its name; those of a fingerprint never change.
_OF_A_NAME = "private, no-cache"
_OF_A_FINGERPRINT = "private, max-age=86400, immutable"


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a picture shows; equal subjects give equal pictures.

    Attributes:
        title: model, version, baseline and layer.
        before: digest of the layer in what the version was judged against; None where there is none.
    """

    title: str
    layer: LayerEntry
    before: str | None

    @property
    def tag(self) -> str:
        """Names the picture: an ETag."""
        layer = self.layer
        shown = (layer.digest, layer.shape, layer.dtype, layer.problem_detail)
        parts = json.dumps([__version__, METRIC_SET, self.title, *shown, self.before])
        return f'"{hashlib.sha256(parts.encode()).hexdigest()[:32]}"'


class Pictures:
    """Draws what the store knows of layers, and keeps the last pictures."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._waiting = 0

    async def answer(self, wanted: Wanted, known: str) -> Response:
        """The picture, or 304; raises HTTPException. Called in the server's event loop only.

        Args:
            known: the header If-None-Match.
        """
        if self._waiting >= MOST_WAITING:
            detail = "too many pictures are asked for at once; try again in a few seconds"
            raise HTTPException(503, detail, headers={"Retry-After": _RETRY_AFTER})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, wanted, known)
        finally:
            self._waiting -= 1

    def _answer(self, wanted: Wanted, known: str) -> Response:
        # Matplotlib's settings belong to the process: nothing but the pool's one thread comes here.
        with self._database.read() as connection:
            subject = _subject(connection, wanted)
        headers = {
            "Cache-Control": _OF_A_FINGERPRINT if wanted.fingerprint else _OF_A_NAME,
            "ETag": subject.tag,
            "X-Content-Type-Options": "nosniff",
        }
        if subject.tag in known or known.strip() == "*":
            return Response(status_code=304, headers=headers)
        return Response(self._picture(subject), media_type="image/png", headers=headers)

    def _picture(self, subject: _Subject) -> bytes:
        picture = self._kept.get(subject.tag)
        if picture is None:
            picture = self._drawn(subject)
            self._kept[subject.tag] = picture
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(subject.tag)
        return picture

    def _drawn(self, subject: _Subject) -> bytes:
        layer = subject.layer
        try:
            require_matplotlib()
            if layer.digest is None:
                problem = layer.problem_detail or "it could not be examined"
                return rendered(plot_unmeasured(subject.title, layer.shape, layer.dtype, problem), "png")
            with self._database.read() as connection:
                measurement = measurements.load(connection, layer.digest)
                before = measurements.load(connection, subject.before) if subject.before else None
        except PlotError as error:
            if error.reason is not PlotReason.MISSING_PACKAGE:
                raise
            detail = f"pictures need the package matplotlib: {how_to_install('plots')}"
            raise HTTPException(501, detail) from None
        if measurement is None:
            raise HTTPException(404, f"the spectrum of {subject.title} is not kept any more")
        return rendered(plot_layer(measurement, subject.title, before), "png")


def spectra_router(database: Database) -> APIRouter:
    """GET ``/spectrum.png``."""
    router = APIRouter()
    pictures = Pictures(database)

    @router.get(
        "/spectrum.png",
        response_class=Response,
        summary="Picture of a layer's spectrum beside its baseline's; the link of an alert",
        responses={
            200: {"content": {"image/png": {}}},
            304: {"description": "the picture is the one of If-None-Match"},
            404: {
                "description": "there is no such version or layer, or its measurements are not kept any more"
            },
            501: {"description": "matplotlib is not installed"},
            503: {"description": "too many pictures are asked for at once"},
        },
    )
    async def spectrum(
        registry: str,
        model: str,
        version: str,
        layer: str,
        fingerprint: Annotated[
            str, Query(pattern=FINGERPRINT, description="Of the bytes meant, or its first digits.")
        ] = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Response:
        return await pictures.answer(Wanted(registry, model, version, layer, fingerprint), if_none_match)

    return router


def _subject(connection: Connection, wanted: Wanted) -> _Subject:
    """What to draw; raises HTTPException 404."""
    version = find_version(connection, wanted.registry, wanted.model, wanted.version, wanted.fingerprint)
    layer = find_layer(connection, version, wanted.layer)
    shown = f"{name(wanted.model)} {name(wanted.version)}"
    before = None
    if (found := baseline_layer(connection, version, layer.name)) is not None:
        before = found[1].digest
        shown += f" against {name(found[0])}"
    return _Subject(f"{shown}: {name(layer.name)}", layer, before)

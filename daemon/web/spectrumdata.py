"""``/spectrum.json``: the spectrum of one layer beside its baseline's as points, for whoever draws it."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from layerwatch.alerts.payload import name
from layerwatch.daemon.store import measurements
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.web.storedlayers import FINGERPRINT, baseline_layer, find_layer, find_version
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.plots.facts import why_no_spectrum
from layerwatch.metrics.plots.spectrum import (
    Spectrum,
    bins,
    bulk_curve,
    density,
    fitted_density,
    fitted_tail_function,
    shown_range,
    spectrum_of,
)

MOST_POINTS = 600
"""Of each curve."""

_DIGITS = 5
_ALL_DIGITS = 9
"""Of a float32: eigenvalues that differ stay apart."""

Curve = list[float | None]


def spectrum_data(spectrum: Spectrum, before: Spectrum | None) -> dict[str, Any]:
    """Density and CCDF of a layer as points, at most :data:`MOST_POINTS` of each.

    Both curves of a picture have the same points ``x``, ascending eigenvalues; a null is where a curve has no value.

    Args:
        spectrum, before: of the layer and of the baseline's, or None without one.
    """
    low, high = shown_range([spectrum, *([before] if before is not None else [])])
    edges = bins(low, high, len(spectrum.resolved))
    middles = np.sqrt(edges[:-1] * edges[1:])
    points = _points(spectrum, before, low)
    return {
        "xmin": spectrum.numbers.xmin,
        "alpha": spectrum.numbers.alpha,
        "bulk_edge": spectrum.numbers.mp_bulk_edge,
        "density": {
            "x": _curve(middles),
            "layer": _curve(density(spectrum.values, edges)),
            "baseline": None if before is None else _curve(density(before.values, edges)),
            "fit": _fit(spectrum, middles, tail=False),
            "bulk": _bulk(spectrum, middles, low),
        },
        "ccdf": {
            "x": _curve(points, _ALL_DIGITS),
            "layer": _curve(_share_above(spectrum, points)),
            "baseline": None if before is None else _curve(_share_above(before, points)),
            "fit": _fit(spectrum, points, tail=True),
        },
    }


def spectrum_data_router(database: Database) -> APIRouter:
    """GET ``/spectrum.json``."""
    router = APIRouter()

    @router.get(
        "/spectrum.json",
        summary="Points of a layer's spectrum beside its baseline's",
        responses={404: {"description": "there is no such version or layer, or no spectrum of it"}},
    )
    def points(
        registry: str,
        model: str,
        version: str,
        layer: str,
        fingerprint: Annotated[
            str, Query(pattern=FINGERPRINT, description="Of the bytes meant, or its first digits.")
        ] = "",
    ) -> Response:
        old: Measurement | None = None
        with database.read() as connection:
            record = find_version(connection, registry, model, version, fingerprint)
            entry = find_layer(connection, record, layer)
            measurement = measurements.load(connection, entry.digest) if entry.digest is not None else None
            found = baseline_layer(connection, record, entry.name)
            if found is not None and found[1].digest is not None and found[1].digest != entry.digest:
                old = measurements.load(connection, found[1].digest)
        if measurement is None:
            raise HTTPException(404, f"the spectrum of {name(layer)} is not kept any more")
        spectrum = spectrum_of(measurement)
        if spectrum is None:
            raise HTTPException(404, f"{name(layer)} has no spectrum: {why_no_spectrum(measurement)}")
        told = {
            "layer": name(entry.name),
            "version": name(record.key.version),
            "baseline": None if old is None or found is None else name(found[0]),
            **spectrum_data(spectrum, spectrum_of(old) if old is not None else None),
        }
        headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
        return JSONResponse(told, headers=headers)

    return router


def _points(spectrum: Spectrum, before: Spectrum | None, low: float) -> NDArray[np.float64]:
    """Where the shares fall: the eigenvalues of both, evenly thinned; the largest stay, where the tail is."""
    both = np.concatenate([one.values for one in (spectrum, before) if one is not None])
    found = np.unique(both[both > low])
    if len(found) <= MOST_POINTS:
        return found
    tail, rest = found[-MOST_POINTS // 2 :], found[: -MOST_POINTS // 2]
    kept = np.linspace(0, len(rest) - 1, MOST_POINTS - len(tail)).round().astype(int)
    return np.concatenate([rest[kept], tail])


def _share_above(spectrum: Spectrum, points: NDArray[np.float64]) -> NDArray[np.float64]:
    below = np.searchsorted(spectrum.values, points, side="left")
    return (len(spectrum.values) - below) / len(spectrum.values)


def _fit(spectrum: Spectrum, points: NDArray[np.float64], tail: bool) -> Curve | None:
    xmin, share = spectrum.numbers.xmin, spectrum.tail_share
    if xmin is None or share is None:
        return None
    inside = np.where((points >= xmin) & (points <= spectrum.values[-1]), points, np.nan)
    return _curve(fitted_tail_function(spectrum, inside) if tail else fitted_density(spectrum, inside))


def _bulk(spectrum: Spectrum, points: NDArray[np.float64], low: float) -> Curve | None:
    curve = bulk_curve(spectrum, low)
    return None if curve is None else _curve(np.interp(points, *curve, left=np.nan, right=np.nan))


def _curve(values: NDArray[np.float64], digits: int = _DIGITS) -> Curve:
    """As JSON has it: rounded, null for what logarithmic axes cannot show."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) and value > 0.0 else None for value in values]

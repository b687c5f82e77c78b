"""Norms of the rows and columns of one layer: which of its units died, grew or were moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from layerwatch.daemon.web.charts import paths
from layerwatch.daemon.web.charts.axes import Scale, frame
from layerwatch.daemon.web.charts.drawing import Key, figure, picture, tag, units
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.plots.wording import counted

_LEFT, _RIGHT, _TOP, _BOTTOM = 78.0, 546.0, 20.0, 212.0
_WIDTH, _HEIGHT = 560.0, 258.0

_MOST_STEPS = 240
"""More rows are taken together; each step then reaches from the lowest to the highest of its rows."""

_USUAL_QUANTILE = 0.98
_ROOM = 4.0
"""The axis ends at most this far above what nearly all rows have: one huge row would flatten all others."""

_DEAD = 1e-12
_SAMPLE = "M0 6H18"


def row_norm_profile(measurement: Measurement, baseline: Measurement | None) -> Markup:
    """Norms of the rows in order, over those of the baseline.

    Args:
        measurement: of the layer; where it has no norms the answer is empty.
        baseline: of the same layer in the baseline, drawn as an outline unless it is of the same bytes.
    """
    return _profile(measurement, baseline, "row")


def column_norm_profile(measurement: Measurement, baseline: Measurement | None) -> Markup:
    """Norms of the columns in order; arguments and answer as of :func:`row_norm_profile`."""
    return _profile(measurement, baseline, "column")


def _profile(measurement: Measurement, baseline: Measurement | None, noun: str) -> Markup:
    norms = _norms(measurement, noun)
    if norms is None:
        return Markup("")
    is_same = baseline is not None and baseline.digest == measurement.digest
    before = None if baseline is None or is_same else _norms(baseline, noun)
    together = norms if before is None else np.concatenate((norms, before))
    longest = max(len(norms), 0 if before is None else len(before))
    size = -(-longest // _MOST_STEPS)
    x = Scale(0.0, float(longest), _LEFT, _RIGHT)
    y = Scale(0.0, _top(together), _BOTTOM, _TOP)
    drawn = frame(x, y, _axis_name(noun, size), "norm")
    drawn += _drawn(_banded(norms, size), x, y, "layer", is_filled=True)
    if before is not None:
        drawn += _drawn(_banded(before, size), x, y, "baseline", is_filled=False)
    beyond = np.flatnonzero(norms > y.high)
    drawn += _beyond(beyond, x)
    title = f"Norms of the {noun}s"
    image = picture(_WIDTH, _HEIGHT, title, _description(norms, before, is_same, noun), drawn, css="half")
    keys = [Key(tag("path", class_="layer", d=_SAMPLE), f"{noun}s of this version")]
    if before is not None:
        keys.append(Key(tag("path", class_="baseline", d=_SAMPLE), "baseline"))
    elif is_same:
        keys.append(Key(Markup(""), "baseline: the same bytes"))
    if len(beyond):
        arrow = tag("path", class_="beyond", d="M5 9L9 3L13 9Z")
        keys.append(Key(arrow, f"above the axis, up to {norms.max():.3g}"))
    return figure(image, keys, caption=title)


@dataclass(frozen=True, slots=True)
class _Band:
    """Lowest and highest norm of neighbouring rows; ``edges`` is one longer."""

    edges: paths.Places
    low: paths.Places
    high: paths.Places


def _norms(measurement: Measurement, noun: str) -> paths.Places | None:
    """All norms, with NaN where one is not finite; None where there is nothing to draw."""
    kept: NDArray[np.float32] | None = measurement.row_norms if noun == "row" else measurement.column_norms
    if kept is None:
        return None
    norms = np.where(np.isfinite(kept), kept, np.nan).astype(np.float64)
    return norms if np.isfinite(norms).any() else None


def _banded(norms: paths.Places, size: int) -> _Band:
    count = -(-len(norms) // size)
    padded = np.full(count * size, np.nan)
    padded[: len(norms)] = norms
    rows = padded.reshape(count, size)
    low = np.where(np.isnan(rows), np.inf, rows).min(axis=1)
    high = np.where(np.isnan(rows), -np.inf, rows).max(axis=1)
    empty = ~np.isfinite(low)
    low[empty] = high[empty] = np.nan
    edges = np.minimum(np.arange(count + 1) * float(size), float(len(norms)))
    return _Band(edges, low, high)


def _drawn(band: _Band, x: Scale, y: Scale, css: str, *, is_filled: bool) -> Iterator[Markup]:
    edges, low, high = x.along(band.edges), y.along(band.low), y.along(band.high)
    if is_filled:
        yield tag("path", class_=f"{css}-fill", d=paths.filled_steps(edges, low, high))
    yield tag("path", class_=css, d=paths.steps(edges, high))
    if not np.array_equal(low, high, equal_nan=True):
        yield tag("path", class_=css, d=paths.steps(edges, low))


def _top(norms: paths.Places) -> float:
    known = norms[np.isfinite(norms)]
    most = float(known.max())
    usual = float(np.quantile(known, _USUAL_QUANTILE)) * _ROOM
    top = usual if 0.0 < usual < most else most
    return top * 1.06 if top > 0.0 else 1.0


def _beyond(places: NDArray[np.intp], x: Scale) -> Iterator[Markup]:
    drawn = dict.fromkeys(units(x.at(place + 0.5)) for place in places)
    if drawn:
        yield tag("path", class_="beyond", d="".join(f"M{at} {units(_TOP - 12)}l4 7h-8z" for at in drawn))


def _axis_name(noun: str, size: int) -> str:
    return f"{noun}s in order" + (f", {size} per step: lowest and highest" if size > 1 else "")


def _description(norms: paths.Places, before: paths.Places | None, is_same: bool, noun: str) -> str:
    facts = [f"{counted(len(norms), noun)}: {_range(norms)}"]
    if before is not None:
        facts.append(f"baseline: {_range(before)}")
    elif is_same:
        facts.append("baseline: the same bytes")
    return "; ".join(facts) + "."


def _range(norms: paths.Places) -> str:
    known = norms[np.isfinite(norms)]
    dead = int(np.count_nonzero(known <= _DEAD * known.max()))
    zero = f", {dead} of them zero" if dead else ""
    return f"norms from {known.min():.3g} to {known.max():.3g}, median {np.median(known):.3g}{zero}"

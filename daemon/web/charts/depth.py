"""Alpha of every layer along the depth of a model: its correlation flow (Martin, Peng & Mahoney, 2021)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from markupsafe import Markup

from layerwatch.daemon.web.charts import paths
from layerwatch.daemon.web.charts.axes import Scale, upright
from layerwatch.daemon.web.charts.drawing import (
    CHARACTER,
    MOST_STOPS,
    Key,
    columns,
    figure,
    labels,
    linked,
    picture,
    scrolling,
    tag,
    told,
    units,
)
from layerwatch.daemon.web.charts.marks import mark, mark_class, mark_key
from layerwatch.daemon.web.charts.model import DepthPoint
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.plots.alphascale import LOWEST, USUAL, ceiling
from layerwatch.metrics.plots.wording import counted, number

_WIDTH = 960.0
_FEW, _WIDTH_OF_FEW = 12, 560.0
_LEFT, _RIGHT, _TOP = 54.0, 112.0, 22.0
_HEIGHT = 250.0
_STRIP = 20.0
_NARROWEST = 9.0
"""A layer's share of the width; more layers make the picture wider than the page."""

_NAME_WIDTH = 28
_NAME_SPACING = 13.0
_HIGHEST = 1e6
"""No fit gives more; what a report claims beyond it stays at the end of the axis."""

_SCREEN = 900.0
"""The numbers of the axis are repeated so often: one end of a wide picture cannot be seen from the other."""

MOST_LAYERS = 2000
"""Of more layers the picture would be megabytes, and its ends could not be compared."""

_CUT = "{shown:,} of {every:,} layers: those that are not well, and others at equal distances."
_URGENCY = (LayerStatus.BROKEN, LayerStatus.SUSPECT, LayerStatus.UNDECIDED)

_GUIDES = ((USUAL[0], f"{USUAL[0]:g}"), (USUAL[1], f"{USUAL[1]:g}: little learned"))
_WELL = (LayerStatus.OK, LayerStatus.INFO)


def alpha_by_depth(every: Sequence[DepthPoint], title: str) -> Markup:
    """Alpha of every layer with its standard error, over its baseline's; empty without layers.

    Alphas beyond the axis are at its end with an arrow, layers without alpha below it; what is not finite is none.
    Of more than `MOST_LAYERS` those that are not well are shown, and others at equal distances; the caption says so.

    Args:
        every: in order of depth.
        title: may be any text.
    """
    if not every:
        return Markup("")
    points = _shown(every)
    plot = _plot(points)
    names, room = _names(points, plot)
    has_links = any(point.href is not None for point in points)
    image = picture(
        plot.x.end + _RIGHT,
        plot.bottom + room + 8,
        title,
        _description(every),
        [
            *_frame(plot),
            *_baseline(points, plot),
            *_course(points, plot),
            *(_point(point, place, plot, len(points)) for place, point in enumerate(points)),
            *names,
        ],
        css=_css(plot.x.end + _RIGHT),
        has_links=has_links,
    )
    caption = "" if len(points) == len(every) else _CUT.format(shown=len(points), every=len(every))
    return figure(scrolling(image, title), _keys(points, plot), caption=caption)


def _shown(points: Sequence[DepthPoint]) -> Sequence[DepthPoint]:
    if len(points) <= MOST_LAYERS:
        return points
    unwell = [place for place, point in enumerate(points) if point.status not in _WELL]
    chosen = set(sorted(unwell, key=lambda place: _URGENCY.index(points[place].status))[:MOST_LAYERS])
    others = [place for place in range(len(points)) if place not in chosen]
    room = MOST_LAYERS - len(chosen)
    chosen.update(others[step * len(others) // room] for step in range(room))
    return [points[place] for place in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where things are.

    Attributes:
        x: of layers by number.
        y: of alpha.
        strip: middle of where layers without alpha are, or None where there are none.
    """

    x: Scale
    y: Scale
    strip: float | None

    @property
    def bottom(self) -> float:
        return self.y.start + (0.0 if self.strip is None else _STRIP)

    @property
    def step(self) -> float:
        return (self.x.end - self.x.start) / self.x.high

    def middle(self, place: int) -> float:
        return self.x.at(place + 0.5)

    def middles(self, count: int) -> paths.Places:
        return self.x.along(np.arange(count, dtype=np.float64) + 0.5)


def _plot(points: Sequence[DepthPoint]) -> _Plot:
    alphas = [
        alpha
        for point in points
        for alpha in (_finite(point.alpha), _finite(point.baseline))
        if alpha is not None
    ]
    whole = _WIDTH_OF_FEW if len(points) <= _FEW else _WIDTH
    width = max(whole - _LEFT - _RIGHT, _NARROWEST * len(points))
    y = Scale(LOWEST, ceiling([min(alpha, _HIGHEST) for alpha in alphas]), _TOP + _HEIGHT, _TOP)
    without = any(_finite(point.alpha) is None for point in points)
    strip = y.start + _STRIP / 2 if without else None
    return _Plot(Scale(0.0, float(len(points)), _LEFT, _LEFT + width), y, strip)


def _css(width: float) -> str:
    """Narrow pictures grow with the page, wide ones are moved in their box."""
    if width > _WIDTH:
        return "wide"
    return "depth" if width > _WIDTH_OF_FEW else "depth few"


def _frame(plot: _Plot) -> Iterator[Markup]:
    left, right = plot.x.start, plot.x.end
    ticks = plot.y.ticks(9)
    grid = "".join(f"M{units(left)} {units(plot.y.at(value))}H{units(right)}" for value, _ in ticks)
    yield tag("path", class_="grid", d=grid)
    yield tag("path", class_="axis", d=f"M{units(left)} {units(_TOP)}V{units(plot.bottom)}H{units(right)}")
    for value, words in _GUIDES:
        at = plot.y.at(value)
        yield tag("path", class_="guide", d=f"M{units(left)} {units(at)}H{units(right)}")
        yield tag("text", words, class_="note", x=right + 7, y=at + 4)
    for value, label in ticks:
        yield tag("text", label, class_="tick end", x=left - 7, y=plot.y.at(value) + 4)
        for again in np.arange(left + _SCREEN, right, _SCREEN):
            yield tag("text", label, class_="tick again middle", x=float(again), y=plot.y.at(value) + 4)
    yield upright("alpha", left - 38, (_TOP + plot.y.start) / 2)
    if plot.strip is not None:
        yield tag("path", class_="grid", d=f"M{units(left)} {units(plot.y.start)}H{units(right)}")
        yield tag("text", "none", class_="tick end", x=left - 7, y=plot.strip + 4)


def _baseline(points: Sequence[DepthPoint], plot: _Plot) -> Iterator[Markup]:
    middle = _column(point.baseline for point in points)
    if not np.isfinite(middle).any():
        return
    sigma = _column(_finite(point.baseline_sigma) or 0.0 for point in points)
    x = plot.middles(len(points))
    band = paths.area(x, plot.y.along(middle - sigma), plot.y.along(middle + sigma))
    yield tag("path", class_="baseline-band", d=band)
    yield tag("path", class_="baseline", d=paths.line(x, plot.y.along(middle)))


def _course(points: Sequence[DepthPoint], plot: _Plot) -> Iterator[Markup]:
    alphas = _column(point.alpha for point in points)
    if np.isfinite(alphas).any():
        x = plot.middles(len(points))
        yield tag("path", class_="course", d=paths.line(x, plot.y.along(alphas)))


def _point(point: DepthPoint, place: int, plot: _Plot, count: int) -> Markup:
    alpha, radius = _finite(point.alpha), 4.5 if plot.step >= 12 else 3.6
    drawn = [tag("title", _told(point))]
    # The whole column answers to the pointer.
    x, step = plot.middle(place), plot.step
    drawn.append(tag("rect", class_="hit", x=x - step / 2, y=_TOP, width=step, height=plot.bottom - _TOP))
    if alpha is None:
        y = plot.bottom if plot.strip is None else plot.strip
    else:
        y = plot.y.at(alpha)
        drawn += _error(alpha, _finite(point.sigma) or 0.0, x, plot)
        drawn += _arrow(alpha, x, y, plot)
    drawn.append(tag("g", mark(point.status, radius), transform=f"translate({units(x)} {units(y)})"))
    is_stop = count <= MOST_STOPS or point.status not in _WELL
    return linked(point.href, *drawn, css=f"point {mark_class(point.status)}", is_stop=is_stop)


def _error(alpha: float, sigma: float, x: float, plot: _Plot) -> Iterator[Markup]:
    low, high = plot.y.at(alpha - abs(sigma)), plot.y.at(alpha + abs(sigma))
    if low - high >= 1.0:
        yield tag("path", class_="error", d=f"M{units(x)} {units(low)}V{units(high)}")


def _arrow(alpha: float, x: float, y: float, plot: _Plot) -> Iterator[Markup]:
    if alpha > plot.y.high:
        yield tag("path", class_="beyond", d=f"M{units(x - 4)} {units(y - 9)}l4 -6l4 6z")
    elif alpha < plot.y.low:
        yield tag("path", class_="beyond", d=f"M{units(x - 4)} {units(y + 8)}l4 6l4 -6z")


def _names(points: Sequence[DepthPoint], plot: _Plot) -> tuple[list[Markup], float]:
    """Names of as many layers as can be read beside each other, and the height they take."""
    names = labels([point.layer for point in points], _NAME_WIDTH)
    if max(map(columns, names)) * CHARACTER + 8 <= plot.step:
        across = [
            tag("text", name, class_="name middle", x=plot.middle(place), y=plot.bottom + 18)
            for place, name in enumerate(names)
        ]
        return across, 24.0
    every = max(1, int(np.ceil(_NAME_SPACING / plot.step)))
    chosen = range(0, len(names), every)
    upward = []
    for place in chosen:
        x, y = plot.middle(place) + 4, plot.bottom + 8
        turned = f"rotate(-90 {units(x)} {units(y)})"
        upward.append(tag("text", names[place], class_="name end", x=x, y=y, transform=turned))
    return upward, 14.0 + CHARACTER * max(columns(names[place]) for place in chosen)


def _told(point: DepthPoint) -> str:
    alpha = _with_error(point.alpha, point.sigma)
    before = ""
    if _finite(point.baseline) is not None:
        before = f" (baseline {_with_error(point.baseline, point.baseline_sigma)})"
    words = "no alpha" if alpha is None else f"alpha {alpha}"
    return f"{told(point.layer)}: {words}{before}, {point.status.value}"


def _with_error(value: float | None, sigma: float | None) -> str | None:
    known, error = _finite(value), _finite(sigma)
    if known is None:
        return None
    return number(known, 2) + ("" if error is None else f" ±{number(error, 2)}")


def _description(points: Sequence[DepthPoint]) -> str:
    alphas = [alpha for point in points if (alpha := _finite(point.alpha)) is not None]
    counts = Counter(point.status for point in points)
    states = ", ".join(f"{counts[status]} {status.value}" for status in LayerStatus if counts[status])
    spread = f"; alpha from {number(min(alphas), 2)} to {number(max(alphas), 2)}" if alphas else "; no alpha"
    return f"{counted(len(points), 'layer')}: {states}{spread}."


def _keys(points: Sequence[DepthPoint], plot: _Plot) -> list[Key]:
    present = {point.status for point in points}
    keys = [mark_key(status) for status in LayerStatus if status in present]
    if any(_finite(point.sigma) for point in points):
        keys.append(Key(tag("path", class_="error", d="M9 0V12"), "standard error"))
    if any(_finite(point.baseline) is not None for point in points):
        line = tag("path", class_="baseline", d="M0 6H18")
        if any(_finite(point.baseline_sigma) for point in points):
            band = tag("path", class_="baseline-band", d="M0 1H18V11H0Z")
            keys.append(Key(band + line, "baseline ± standard error"))
        else:
            keys.append(Key(line, "baseline"))
    largest = max((_finite(point.alpha) or 0.0 for point in points), default=0.0)
    if largest > plot.y.high:
        arrow = tag("path", class_="beyond", d="M5 9L9 3L13 9Z")
        keys.append(Key(arrow, f"above the axis, up to {number(largest, 1)}"))
    return keys


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _column(values: Iterator[float | None]) -> paths.Places:
    known = (_finite(value) for value in values)
    return np.array([np.nan if value is None else value for value in known], dtype=np.float64)

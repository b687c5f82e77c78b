"""Curves as the ``d`` of a path. NaN is a gap; points that fall on the same tenth of a pixel are written once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from layerwatch.daemon.web.charts.drawing import units

Places = NDArray[np.float64]


def line(x: Places, y: Places) -> str:
    """Straight from point to point; a point alone is a dot where line ends are round."""
    pieces = []
    for run in _runs(y):
        points = _distinct(zip(x[run], y[run], strict=True))
        pieces.append("M" + "L".join(points) + ("h0" if len(points) == 1 else ""))
    return "".join(pieces)


def area(x: Places, low: Places, high: Places) -> str:
    """What lies between two lines."""
    return "".join(
        "M"
        + "L".join(_distinct(zip(x[run], high[run], strict=True)))
        + "L"
        + "L".join(_distinct(zip(x[run][::-1], low[run][::-1], strict=True)))
        + "Z"
        for run in _runs(low + high)
    )


def steps(edges: Places, heights: Places) -> str:
    """Level between each two edges, one more of them than of heights."""
    return "".join(_stairs(edges, heights, run) for run in _runs(heights))


def filled_steps(edges: Places, low: Places, high: Places) -> str:
    """What lies between two such lines."""
    pieces = []
    for run in _runs(low + high):
        back = [
            f"V{units(low[place])}H{units(edges[place])}" for place in range(run.stop - 1, run.start - 1, -1)
        ]
        pieces.append(_stairs(edges, high, run) + "".join(back) + "Z")
    return "".join(pieces)


def falling_steps(x: Places, y: Places) -> str:
    """From the first point level to the next one's x, then to its y, and so on, as an empirical distribution goes."""
    pieces, before = [f"M{units(x[0])} {units(y[0])}"], (units(x[0]), units(y[0]))
    for across, upward in zip(x[1:], y[1:], strict=True):
        now = (units(across), units(upward))
        if now[0] != before[0]:
            pieces.append(f"H{now[0]}")
        if now[1] != before[1]:
            pieces.append(f"V{now[1]}")
        before = now
    return "".join(pieces)


def _stairs(edges: Places, heights: Places, run: slice) -> str:
    pieces, before = [f"M{units(edges[run.start])} {units(heights[run.start])}"], ""
    for place in range(run.start, run.stop):
        now = units(heights[place])
        if before not in ("", now):
            pieces.append(f"H{units(edges[place])}V{now}")
        before = now
    return "".join([*pieces, f"H{units(edges[run.stop])}"])


def _runs(values: Places) -> Iterator[slice]:
    """Where finite values stand without a gap."""
    finite = np.concatenate(([False], np.isfinite(values), [False])).astype(np.int8)
    change = np.diff(finite)
    for start, stop in zip(np.flatnonzero(change == 1), np.flatnonzero(change == -1), strict=True):
        yield slice(int(start), int(stop))


def _distinct(points: Iterator[tuple[float, float]]) -> list[str]:
    texts: list[str] = []
    for x, y in points:
        text = f"{units(x)} {units(y)}"
        if not texts or texts[-1] != text:
            texts.append(text)
    return texts

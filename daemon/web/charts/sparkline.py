"""A line as small as a word."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
from markupsafe import Markup

from layerwatch.alerts.text import plain
from layerwatch.daemon.web.charts import paths
from layerwatch.daemon.web.charts.axes import Scale
from layerwatch.daemon.web.charts.drawing import tag, told, units
from layerwatch.daemon.web.charts.marks import mark
from layerwatch.metrics.findings import Verdict

_WIDTH, _HEIGHT = 120.0, 28.0
_MARGIN = 5.0
_MOST_POINTS = 240
_UNREMARKABLE = (None, Verdict.PASS)


def sparkline(values: Sequence[float | None], label: str, verdicts: Sequence[Verdict | None] = ()) -> Markup:
    """The course of one number over versions.

    The last point is marked with its verdict, earlier ones only where they did not pass.

    Args:
        values: oldest first, the newest 240 are shown; None, NaN and infinities are gaps.
        label: what the number is, for those who do not see the line; may be any text.
        verdicts: of the same versions; missing ones are unknown.
    """
    shown = [
        (float("nan") if value is None or not isfinite(value) else value, verdict)
        for value, verdict in zip(values, [*verdicts, *([None] * len(values))], strict=False)
    ][-_MOST_POINTS:]
    y = np.array([value for value, _ in shown], dtype=np.float64)
    known = np.flatnonzero(np.isfinite(y))
    content = [
        tag("title", f"{told(label)}: {_range(y[known], bool(len(known)) and known[-1] < len(y) - 1)}")
    ]
    if not len(known):
        content.append(tag("path", class_="grid", d=f"M{units(_WIDTH / 2 - 6)} {units(_HEIGHT / 2)}h12"))
    else:
        x = Scale(0.0, max(1.0, len(y) - 1.0), _MARGIN, _WIDTH - _MARGIN - 1)
        low, high = float(y[known].min()), float(y[known].max())
        # A line that never moves lies in the middle.
        scale = Scale(low, high, _HEIGHT - _MARGIN, _MARGIN) if high / 2 > low / 2 else None
        across = x.along(np.arange(len(y), dtype=np.float64)) if len(y) > 1 else np.array([x.end])
        upward = scale.along(y) if scale else np.where(np.isfinite(y), _HEIGHT / 2, np.nan)
        content.append(tag("path", class_="course", d=paths.line(across, upward)))
        for place in known:
            verdict, is_last = shown[place][1], place == known[-1]
            if is_last or verdict not in _UNREMARKABLE:
                moved = f"translate({units(across[place])} {units(upward[place])})"
                content.append(tag("g", mark(verdict, 3.4 if is_last else 2.7), transform=moved))
    return tag(
        "svg",
        *content,
        class_="sparkline",
        viewBox=f"0 0 {units(_WIDTH)} {units(_HEIGHT)}",
        width=_WIDTH,
        height=_HEIGHT,
        role="img",
        aria_label=plain(label, 200) or "?",
    )


def _range(values: np.ndarray, ends_early: bool) -> str:
    if not len(values):
        return "no values"
    rest = ", none in the newest" if ends_early else ""
    return f"first {values[0]:.4g}, last {values[-1]:.4g}{rest}"

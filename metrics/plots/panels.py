"""The two panels of a layer: density of its eigenvalues, and share of them above a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.plots import look
from layerwatch.metrics.plots.spectrum import (
    Spectrum,
    bins,
    bulk_curve,
    density,
    fitted_density,
    fitted_points,
    fitted_tail_function,
    shown_range,
    tail_function,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

EIGENVALUES = "eigenvalues"
BASELINE = "baseline"
SHUFFLED = "randomised (elements shuffled)"
BULK = "Marchenko-Pastur bulk"
FIT = "power-law fit of the tail"
XMIN = "xmin"
LEGEND = (EIGENVALUES, BASELINE, FIT, XMIN, BULK, SHUFFLED)
"""Words of the legend, which are also the labels of the curves."""

_FEW_POWERS = 100.0
_PLAIN = (1e-3, 1e5)


def draw_density(axes: Axes, spectrum: Spectrum, baseline: Spectrum | None) -> None:
    """Log-log histogram of the eigenvalues with what randomness and the power law would give."""
    low, high = shown_range([spectrum, *([baseline] if baseline else [])])
    edges = bins(low, high, len(spectrum.resolved))
    heights = density(spectrum.values, edges)
    seen = [heights]
    axes.stairs(heights, edges, fill=True, color=look.LAYER_FILL, label=EIGENVALUES)
    axes.stairs(heights, edges, color=look.LAYER, linewidth=1.0)
    if spectrum.shuffled is not None:
        shuffled = density(spectrum.shuffled, edges)
        _outline(axes, shuffled, edges, look.SHUFFLED, SHUFFLED)
        seen.append(shuffled)
    if baseline is not None:
        before = density(baseline.values, edges)
        _outline(axes, before, edges, look.BASELINE, BASELINE)
        seen.append(before)
    bulk = bulk_curve(spectrum, low)
    if bulk is not None:
        axes.plot(*bulk, color=look.BULK, label=BULK)
    if spectrum.tail_share is not None:
        points = fitted_points(spectrum)
        fitted = fitted_density(spectrum, points)
        axes.plot(points, fitted, color=look.FIT, linewidth=2.0, label=FIT)
        seen.append(fitted)
    _mark_xmin(axes, spectrum)
    _logarithmic(axes, low, high)
    _heights(axes, seen)
    axes.set_ylabel("density")
    axes.set_title("Spectral density")


def draw_tail_function(axes: Axes, spectrum: Spectrum, baseline: Spectrum | None) -> None:
    """Log-log complementary distribution function (CCDF) with the fit, and that of the baseline."""
    low, high = shown_range([spectrum, *([baseline] if baseline else [])])
    if baseline is not None:
        axes.step(*tail_function(baseline.values, low), where="pre", color=look.BASELINE, label=BASELINE)
    axes.step(*tail_function(spectrum.values, low), where="pre", color=look.LAYER, label=EIGENVALUES)
    if spectrum.tail_share is not None:
        points = fitted_points(spectrum)
        fitted = fitted_tail_function(spectrum, points)
        axes.plot(points, fitted, color=look.FIT, linewidth=2.0, label=FIT)
    _mark_xmin(axes, spectrum)
    _logarithmic(axes, low, high)
    fewest = max(len(one.values) for one in (spectrum, baseline) if one is not None)
    axes.set_ylim(0.6 / fewest, 1.6)
    _ticks(axes.yaxis, 0.6 / fewest, 1.6)
    axes.set_ylabel("share of eigenvalues ≥ λ")
    axes.set_title("Cumulative from above (CCDF)")


def _outline(
    axes: Axes, heights: NDArray[np.float64], edges: NDArray[np.float64], colour: str, label: str
) -> None:
    # Empty bins are left out: lines down to them and up again would hide the shape.
    filled = np.where(heights > 0.0, heights, np.nan)
    axes.stairs(filled, edges, baseline=None, color=colour, linewidth=1.4, label=label)


def _mark_xmin(axes: Axes, spectrum: Spectrum) -> None:
    if spectrum.numbers.xmin is not None:
        axes.axvline(spectrum.numbers.xmin, color=look.FIT, linewidth=1.0, linestyle="--", label=XMIN)


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    _ticks(axes.xaxis, low, high)
    axes.set_xlabel("eigenvalue λ of WᵀW")


def _heights(axes: Axes, seen: list[NDArray[np.float64]]) -> None:
    heights = np.concatenate(seen)
    heights = heights[heights > 0.0]
    low, high = float(heights.min()) / 2.5, float(heights.max()) * 2.5
    axes.set_ylim(low, high)
    _ticks(axes.yaxis, low, high)


def _ticks(axis: Axis, low: float, high: float) -> None:
    """Labels that do not collide: powers of ten where there are several of them, else 1, 2 and 5 times those."""
    from matplotlib.ticker import FormatStrFormatter, LogFormatterSciNotation, LogLocator, NullFormatter

    if high < _FEW_POWERS * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        if _PLAIN[0] <= low and high <= _PLAIN[1]:
            axis.set_major_formatter(FormatStrFormatter("%g"))
        else:
            axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
    axis.set_minor_formatter(NullFormatter())

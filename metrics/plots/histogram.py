"""How the alphas of a model's layers are distributed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerwatch.metrics.measurement import FitStatus
from layerwatch.metrics.plots import drawing, look
from layerwatch.metrics.plots.alphascale import LOWEST, USUAL, USUAL_WORDS, ceiling
from layerwatch.metrics.plots.plotted import Plottable, alphas_of, with_spectrum
from layerwatch.metrics.plots.wording import counted, number, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD = "fit ok"
CARE = "poor fit, short tail, too small"
BASELINE = "baseline"
MEDIAN = "median"

_MANY = 100
_MOST_BINS = 40


def plot_alpha_histogram(
    layers: Iterable[Plottable], baseline: Iterable[Plottable] | None = None, title: str = "model"
) -> Figure:
    """Histogram of alpha over the layers that have a fit, good fits below, others stacked on them in a light tone.

    Args:
        layers: of the model; vectors are left out.
        baseline: layers of the baseline, drawn as a grey outline.
        title: name of the model; may be any text.

    Raises:
        PlotError: ``missing_package``.
    """
    drawing.require_matplotlib()
    from matplotlib.ticker import MaxNLocator

    layers = with_spectrum(layers)
    good = _alphas(layers, ok=True)
    care = _alphas(layers, ok=False)
    before = alphas_of(with_spectrum(baseline))
    top = ceiling([*good, *care, *before])
    edges = _edges(top, len(layers))
    with drawing.look():
        figure = drawing.new_figure(8.0, 4.6, fitted=True)
        axes = figure.subplots()
        axes.axvspan(*USUAL, color=look.BAND, alpha=0.13, linewidth=0, label=USUAL_WORDS)
        below, above = _counts(good, edges), _counts(care, edges)
        widths = np.diff(edges)
        axes.bar(edges[:-1], below, widths, align="edge", color=look.LAYER, edgecolor="white", label=GOOD)
        if care:
            axes.bar(
                edges[:-1],
                above,
                widths,
                bottom=below,
                align="edge",
                color=look.LAYER_FILL,
                edgecolor="white",
                label=CARE,
            )
        if before:
            axes.stairs(_counts(before, edges), edges, color=look.BASELINE, linewidth=2.0, label=BASELINE)
        if good or care:
            median = float(np.median([*good, *care]))
            label = f"{MEDIAN} {number(median, 2)}"
            axes.axvline(min(median, edges[-1]), color=look.TEXT, linewidth=1.2, linestyle="--", label=label)
        axes.set_xlim(LOWEST, edges[-1])
        axes.set_ylim(0.0, max(1.0, *(below + above), *_counts(before, edges)) * 1.05)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(_axis_words([*good, *care, *before], edges))
        axes.set_ylabel("layers")
        missing = len(layers) - len(good) - len(care)
        rest = f", {missing} without a fit" if missing else ""
        axes.set_title(
            f"Alpha of {counted(len(good) + len(care), 'layer')}{rest}   ·   {shown(title, 50)}",
            weight="bold",
            parse_math=False,
        )
        drawing.legend_below(figure, axes, (GOOD, CARE, BASELINE, MEDIAN, USUAL_WORDS), 3)
    return figure


def _alphas(layers: Sequence[Plottable], ok: bool) -> list[float]:
    found = []
    for layer in layers:
        numbers = layer.measurement.numbers if layer.measurement else None
        if numbers is not None and numbers.alpha is not None and (numbers.fit_status is FitStatus.OK) == ok:
            found.append(numbers.alpha)
    return found


def _edges(top: float, count: int) -> np.ndarray:
    width = max(0.25 if count >= _MANY else 0.5, (top - LOWEST) / _MOST_BINS)
    return LOWEST + width * np.arange(int(np.ceil((top - LOWEST) / width)) + 1)


def _counts(alphas: list[float], edges: np.ndarray) -> np.ndarray:
    # The last bin holds everything beyond it as well, which the axis says.
    return np.histogram(np.minimum(alphas, (edges[-1] + edges[-2]) / 2), edges)[0].astype(np.float64)


def _axis_words(alphas: list[float], edges: np.ndarray) -> str:
    largest = max(alphas, default=LOWEST)
    beyond = f" (the last bin holds all above, up to {number(largest, 1)})"
    return "alpha" + (beyond if largest > edges[-1] else "")

"""Alpha by depth: the correlation flow of a model (Martin, Peng & Mahoney, Nature Communications 12:4122, 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerwatch.metrics.measurement import FitStatus, SpectralNumbers
from layerwatch.metrics.plots import drawing, look
from layerwatch.metrics.plots.alphascale import LOWEST, USUAL, USUAL_WORDS, ceiling
from layerwatch.metrics.plots.plotted import Plottable, alpha_of, alphas_of, by_name, with_spectrum
from layerwatch.metrics.plots.wording import counted, number, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURED = "alpha ± standard error"
BEYOND = "beyond the axis"
BASELINE = "baseline"
NO_FIT = "no fit"
UNMEASURED = "not measured"
UNRELIABLE = {
    FitStatus.POOR_FIT: ("s", "poor fit"),
    FitStatus.SHORT_TAIL: ("^", "short tail"),
    FitStatus.TOO_SMALL: ("D", "too small"),
}
"""Marker and word of a fit that should be read with care; a good fit is a filled circle."""

LEGEND = (
    MEASURED,
    *(word for _, word in UNRELIABLE.values()),
    BEYOND,
    NO_FIT,
    UNMEASURED,
    BASELINE,
    USUAL_WORDS,
)

_MOST_NAMES = 48
_NAME_WIDTH = 32
_HEIGHT = 4.4
_CHARACTER = 0.06
_WIDE = 14.0


def plot_alpha_profile(
    layers: Iterable[Plottable], baseline: Iterable[Plottable] | None = None, title: str = "model"
) -> Figure:
    """Alpha with its standard error against the layers in file order.

    The marker tells whether the fit deserves to be read. Alphas beyond the axis are marked at its end, and
    the legend tells the largest; layers without a fit or without a measurement are marked on the layer axis.

    Args:
        layers: in file order; vectors are left out.
        baseline: layers of the baseline, matched by name, drawn in grey.
        title: name of the model; may be any text.

    Raises:
        PlotError: ``missing_package``.
    """
    drawing.require_matplotlib()
    layers = with_spectrum(layers)
    before = by_name(with_spectrum(baseline))
    top = ceiling(alphas_of([*layers, *before.values()]))
    places, names = _named(layers)
    width = float(np.clip(4.0 + 0.2 * len(layers), 8.5, 16.0))
    longest = max((len(name) for name in names), default=0)
    upright = longest * len(places) * _CHARACTER > 0.7 * width
    with drawing.look():
        figure = drawing.new_figure(width, _HEIGHT + upright * _CHARACTER * longest, fitted=True)
        axes = figure.subplots()
        size = float(np.clip(7.5 - len(layers) / 60, 3.5, 6.5))
        axes.axhspan(*USUAL, color=look.BAND, alpha=0.13, linewidth=0, label=USUAL_WORDS)
        if before:
            olds = [alpha_of(before[layer.name]) if layer.name in before else None for layer in layers]
            _draw_baseline(axes, olds, top, size)
        _draw_line(axes, layers, top)
        _draw_markers(axes, layers, size)
        _draw_beyond(axes, [alpha_of(layer) for layer in layers], top, look.LAYER, BEYOND)
        _draw_without_alpha(axes, layers, size)
        axes.set_xlim(-0.7, max(len(layers), 1) - 0.3)
        axes.set_ylim(LOWEST, top)
        axes.set_ylabel("alpha")
        axes.grid(False, axis="x")
        axes.set_xticks(places, names, rotation=90.0 if upright else 0.0, fontsize=8.5, parse_math=False)
        thinned = f", one in {places[1]} named" if len(places) < len(layers) else ""
        axes.set_xlabel(f"layers in file order{thinned}")
        count = f"{counted(len(layers), 'layer')}, {len(alphas_of(layers))} with a fit"
        axes.set_title(
            f"Alpha by depth   ·   {shown(title, 60)}   ·   {count}", weight="bold", parse_math=False
        )
        drawing.legend_below(figure, axes, LEGEND, 4 if width < _WIDE else 6)
    return figure


def _draw_baseline(axes: Axes, alphas: Sequence[float | None], top: float, size: float) -> None:
    axes.plot(
        range(len(alphas)),
        _inside(alphas, top),
        color=look.BASELINE,
        linewidth=1.0,
        marker="o",
        markersize=size * 0.75,
        label=BASELINE,
    )
    _draw_beyond(axes, alphas, top, look.BASELINE)


def _draw_line(axes: Axes, layers: Sequence[Plottable], top: float) -> None:
    values = _inside([alpha_of(layer) for layer in layers], top)
    axes.plot(range(len(values)), values, color=look.LAYER, linewidth=0.8, alpha=0.5)


def _inside(alphas: Sequence[float | None], top: float) -> list[float]:
    """NaN, which leaves a gap, where there is no alpha or it is beyond the axis."""
    return [np.nan if alpha is None or alpha > top else alpha for alpha in alphas]


def _draw_markers(axes: Axes, layers: Sequence[Plottable], size: float) -> None:
    fitted = [
        (position, layer.measurement.numbers)
        for position, layer in enumerate(layers)
        if layer.measurement and layer.measurement.numbers and alpha_of(layer) is not None
    ]
    styles: list[tuple[FitStatus, str, str, str]] = [(FitStatus.OK, "o", MEASURED, look.LAYER)]
    styles += [(status, marker, word, "white") for status, (marker, word) in UNRELIABLE.items()]
    for status, marker, word, face in styles:
        chosen = [(position, numbers) for position, numbers in fitted if numbers.fit_status is status]
        if chosen:
            axes.errorbar(
                [position for position, _ in chosen],
                [numbers.alpha or 0.0 for _, numbers in chosen],
                yerr=[_sigma(numbers) for _, numbers in chosen],
                linestyle="none",
                marker=marker,
                markersize=size,
                color=look.LAYER,
                markerfacecolor=face,
                elinewidth=1.0,
                label=word,
            )


def _sigma(numbers: SpectralNumbers) -> float:
    return numbers.alpha_sigma or 0.0


def _draw_beyond(
    axes: Axes, alphas: Sequence[float | None], top: float, colour: str, label: str | None = None
) -> None:
    beyond = [(position, alpha) for position, alpha in enumerate(alphas) if alpha is not None and alpha > top]
    if beyond:
        largest = number(max(alpha for _, alpha in beyond), 1)
        axes.plot(
            [position for position, _ in beyond],
            [1.0] * len(beyond),
            transform=axes.get_xaxis_transform(),
            linestyle="none",
            marker="^",
            markersize=7.0,
            color=colour,
            clip_on=False,
            zorder=5,
            label=f"{label}, up to {largest}" if label else None,
        )


def _draw_without_alpha(axes: Axes, layers: Sequence[Plottable], size: float) -> None:
    unfitted = [at for at, layer in enumerate(layers) if layer.measurement and alpha_of(layer) is None]
    unmeasured = [at for at, layer in enumerate(layers) if layer.measurement is None]
    for places, colour, word in (
        (unfitted, look.FAINT_TEXT, NO_FIT),
        (unmeasured, look.PROBLEM, UNMEASURED),
    ):
        if places:
            axes.plot(
                places,
                [0.0] * len(places),
                transform=axes.get_xaxis_transform(),
                linestyle="none",
                marker="x",
                markersize=size + 1.0,
                markeredgewidth=1.8,
                color=colour,
                clip_on=False,
                zorder=5,
                label=word,
            )


def _named(layers: Sequence[Plottable]) -> tuple[list[int], list[str]]:
    """Positions and names of as many layers, evenly spaced, as can be read beside each other."""
    step = max(1, -(-len(layers) // _MOST_NAMES))
    places = list(range(0, len(layers), step))
    return places, [shown(layers[place].name, _NAME_WIDTH) for place in places]

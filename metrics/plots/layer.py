"""One layer as a figure."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.plots import drawing, look
from layerwatch.metrics.plots.facts import draw_facts, notes_on, why_no_spectrum
from layerwatch.metrics.plots.panels import LEGEND, draw_density, draw_tail_function
from layerwatch.metrics.plots.spectrum import spectrum_of
from layerwatch.metrics.plots.wording import dimensions, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 13.0, 4.8
_NAME_WIDTH = 90
_LONGEST_SENTENCE = 400
_LINE = 110

# Fixed, so that panels stay in place from layer to layer.
_BOTTOM, _PANEL_HEIGHT = 0.19, 0.66
_DENSITY = (0.056, _BOTTOM, 0.315, _PANEL_HEIGHT)
_TAIL = (0.436, _BOTTOM, 0.315, _PANEL_HEIGHT)
_FACTS = (0.778, _BOTTOM, 0.215, _PANEL_HEIGHT)


def plot_layer(measurement: Measurement, name: str, baseline: Measurement | None = None) -> Figure:
    """Spectrum of one layer: density and CCDF, both on logarithmic axes, with the numbers beside them.

    The density panel shows the fitted power law from xmin on, the Marchenko-Pastur bulk, and the randomised
    spectrum where the measurement has one (``MeasureOptions.shuffled``). A layer without a spectrum gives a
    figure that says why.

    Args:
        measurement: of the layer.
        name: for the title; may be any text.
        baseline: of the same layer in a baseline, drawn over both panels in grey unless it is of the same bytes.

    Raises:
        PlotError: ``missing_package``.
    """
    spectrum = spectrum_of(measurement)
    title = _title(name, measurement.shape, measurement.dtype)
    if spectrum is None:
        return _sentence(title, f"No spectrum to draw: {why_no_spectrum(measurement)}")
    # Of an unchanged layer there is nothing to compare.
    compared = None if baseline is None or baseline.digest == measurement.digest else baseline
    before = spectrum_of(compared) if compared is not None else None
    with drawing.look():
        figure = drawing.new_figure(_WIDTH, _HEIGHT)
        _head(figure, title)
        density = figure.add_axes(_DENSITY)
        draw_density(density, spectrum, before)
        draw_tail_function(figure.add_axes(_TAIL), spectrum, before)
        notes = notes_on(measurement, spectrum, baseline, before)
        draw_facts(figure.add_axes(_FACTS), measurement, compared, notes)
        drawing.legend_below(figure, density, LEGEND, len(LEGEND))
    return figure


def plot_unmeasured(name: str, shape: tuple[int, ...], dtype: str, problem: str) -> Figure:
    """A figure in place of a layer that could not be examined: its title, and why.

    Raises:
        PlotError: ``missing_package``.
    """
    return _sentence(_title(name, shape, dtype), f"Not measured: {problem}")


def _title(name: str, shape: tuple[int, ...], dtype: str) -> str:
    drawing.require_matplotlib()
    return f"{shown(name, _NAME_WIDTH)}   ·   {dimensions(shape)}   ·   {shown(dtype, 20)}"


def _sentence(title: str, sentence: str) -> Figure:
    with drawing.look():
        figure = drawing.new_figure(_WIDTH, _HEIGHT / 2)
        _head(figure, title)
        figure.text(
            0.5,
            0.45,
            textwrap.fill(shown(sentence, _LONGEST_SENTENCE), _LINE),
            color=look.PROBLEM,
            fontsize=12,
            horizontalalignment="center",
            verticalalignment="center",
            parse_math=False,
        )
    return figure


def _head(figure: Figure, title: str) -> None:
    figure.text(
        0.01,
        1.0 - 0.16 / figure.get_figheight(),
        title,
        fontsize=12.5,
        weight="bold",
        va="top",
        parse_math=False,
    )

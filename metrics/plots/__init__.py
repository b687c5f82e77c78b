"""Pictures of spectra: one per layer, and two of a whole model. Needs the extra ``plots`` (matplotlib).

Figures are plain ``matplotlib.figure.Figure`` objects: no window, no pyplot, no global setting is touched, and
matplotlib is imported when the first one is drawn.
"""

from layerwatch.metrics.plots.drawing import rendered, require_matplotlib
from layerwatch.metrics.plots.errors import PlotError, PlotReason
from layerwatch.metrics.plots.histogram import plot_alpha_histogram
from layerwatch.metrics.plots.layer import plot_layer, plot_unmeasured
from layerwatch.metrics.plots.plotted import Plottable, PlottedLayer
from layerwatch.metrics.plots.profile import plot_alpha_profile
from layerwatch.metrics.plots.writing import write_plots

__all__ = [
    "PlotError",
    "PlotReason",
    "Plottable",
    "PlottedLayer",
    "plot_alpha_histogram",
    "plot_alpha_profile",
    "plot_layer",
    "plot_unmeasured",
    "rendered",
    "require_matplotlib",
    "write_plots",
]

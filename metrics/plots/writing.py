"""All plots of a model as files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerwatch.metrics.plots import drawing
from layerwatch.metrics.plots.errors import PlotError, PlotReason
from layerwatch.metrics.plots.filenames import layer_file_name
from layerwatch.metrics.plots.histogram import plot_alpha_histogram
from layerwatch.metrics.plots.layer import plot_layer, plot_unmeasured
from layerwatch.metrics.plots.plotted import Plottable, by_name, with_spectrum
from layerwatch.metrics.plots.profile import plot_alpha_profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_plots(
    directory: Path | str,
    layers: Iterable[Plottable],
    baseline_layers: Iterable[Plottable] | None = None,
    format: str = "png",
    title: str = "model",
) -> list[Path]:
    """Write ``alpha_profile``, ``alpha_histogram`` and one file per layer; files of these names are replaced.

    The same measurements give the same bytes with the same release of matplotlib.

    Args:
        directory: created where missing, with its parents.
        layers: in file order; vectors are left out. Names may be any text.
        baseline_layers: of the baseline, matched by name and drawn over the model's.
        format: ``png`` or ``svg``.
        title: name of the model, for the plots about all layers.

    Returns:
        The files written, those of the model first, then layer by layer.

    Raises:
        PlotError: ``missing_package``, ``unknown_format``, or ``cannot_write``.
    """
    drawing.require_matplotlib()
    drawing.require_format(format)
    folder = Path(directory)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in _figures(with_spectrum(layers), with_spectrum(baseline_layers), format, title):
            path = folder / name
            path.write_bytes(drawing.rendered(figure, format))
            written.append(path)
    except OSError as error:
        raise PlotError(
            PlotReason.CANNOT_WRITE,
            f"plots cannot be written to {folder}: {error.strerror or error}; choose a folder with room "
            "where you may write",
        ) from error
    return written


def _figures(
    layers: Sequence[Plottable],
    baseline: Sequence[Plottable],
    file_format: str,
    title: str,
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of every file, drawn one at a time."""
    yield f"alpha_profile.{file_format}", plot_alpha_profile(layers, baseline, title)
    yield f"alpha_histogram.{file_format}", plot_alpha_histogram(layers, baseline, title)
    before = by_name(baseline)
    for position, layer in enumerate(layers, start=1):
        name = layer_file_name(position, len(layers), layer.name, file_format)
        old = before.get(layer.name)
        if layer.measurement is None:
            problem = str(layer.problem or "no measurement is at hand.")
            yield name, plot_unmeasured(layer.name, layer.shape, layer.dtype, problem)
        else:
            yield name, plot_layer(layer.measurement, layer.name, old.measurement if old else None)

"""Measured layers to draw, and what a figure shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from numpy.typing import NDArray

from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.options import MeasureOptions
from layerwatch.metrics.plots import PlottedLayer
from layerwatch.metrics.readers.detect import open_model
from layerwatch_testing.models import write_safetensors


def plotted(folder: Path, state: Mapping[str, NDArray[Any]], shuffled: bool = True) -> list[PlottedLayer]:
    """The layers of a model with these tensors, measured; vectors among them."""
    path = write_safetensors(folder / "plotted.safetensors", state)
    model = OpenModel(open_model(path), str(path))
    try:
        found = list(measure_layers(model, lambda digest: False, options=MeasureOptions(shuffled=shuffled)))
    finally:
        model.close()
    return [PlottedLayer(one.layer.name, one.layer.shape, one.layer.dtype, one.measurement) for one in found]


def measured(folder: Path, values: NDArray[Any], name: str = "layer", shuffled: bool = True) -> Measurement:
    """The measurement of one layer with these values."""
    (layer,) = plotted(folder, {f"{name}.weight": values}, shuffled)
    assert layer.measurement is not None
    return layer.measurement


def gaussian(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    """A matrix of independent standard normal elements."""
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def heavy_tailed(rows: int, columns: int, alpha: float = 3.0, seed: int = 0) -> NDArray[np.float32]:
    """A matrix whose eigenvalues follow a power law of this exponent from 1 on."""
    random = np.random.default_rng(seed)
    left, _ = np.linalg.qr(random.standard_normal((rows, columns)))
    right, _ = np.linalg.qr(random.standard_normal((columns, columns)))
    eigenvalues = (1.0 - random.random(columns)) ** (-1.0 / (alpha - 1.0))
    return np.asarray(left * np.sqrt(eigenvalues) @ right.T, dtype=np.float32)


def line(axes: Axes, label: str) -> Line2D:
    """The one line with this label."""
    (found,) = [one for one in axes.get_lines() if one.get_label() == label]
    return found


def points(axes: Axes, label: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of the line with this label."""
    found = line(axes, label)
    return np.asarray(found.get_xdata(), np.float64), np.asarray(found.get_ydata(), np.float64)


def outline(axes: Axes, label: str) -> StepPatch:
    """The one histogram with this label."""
    (found,) = [one for one in axes.patches if isinstance(one, StepPatch) and one.get_label() == label]
    return found


def labels(axes: Axes) -> set[str]:
    """Labels of everything that is drawn and stands in the legend."""
    return set(axes.get_legend_handles_labels()[1])


def texts(figure: Figure) -> str:
    """Every text in the figure, legends and tick labels aside."""
    inside = [text.get_text() for axes in figure.axes for text in axes.texts]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    return "\n".join([*(text.get_text() for text in figure.texts), *titles, *inside])

"""The histogram of alphas: every layer with a fit is counted once."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

from layerwatch.metrics.measurement import FitStatus
from layerwatch.metrics.plots import PlottedLayer, plot_alpha_histogram, rendered
from layerwatch.metrics.plots.histogram import BASELINE, CARE, GOOD, MEDIAN
from layerwatch_testing.examinations import measurement, numbers
from layerwatch_testing.plotting import labels, outline, points


def layer(alpha: float | None, status: FitStatus = FitStatus.OK) -> PlottedLayer:
    found = measurement(numbers=numbers(alpha=alpha, fit_status=status))
    return PlottedLayer(f"layer {alpha}", (64, 64), "F32", found)


def heights(axes: Axes, label: str) -> np.ndarray:
    (found,) = [one for one in axes.containers if isinstance(one, BarContainer) and one.get_label() == label]
    return np.array([bar.get_height() for bar in found])


def test_good_fits_and_others_are_stacked_and_each_is_counted_once() -> None:
    layers = [layer(2.1), layer(2.2), layer(3.4), layer(2.3, FitStatus.POOR_FIT), layer(None)]
    layers.append(PlottedLayer("x", (8, 8), "I4", None))

    (axes,) = plot_alpha_histogram(layers).axes

    assert heights(axes, GOOD).sum() == 3
    assert heights(axes, CARE).sum() == 1
    (stacked,) = [bar for bar in axes.containers[1] if bar.get_height()]
    assert stacked.get_y() == 2
    assert "4 layers, 2 without a fit" in axes.get_title(loc="left")


def test_the_median_is_marked_and_told() -> None:
    (axes,) = plot_alpha_histogram([layer(2.0), layer(3.0), layer(7.0)]).axes

    assert points(axes, f"{MEDIAN} 3.00")[0].tolist() == [3.0, 3.0]


def test_huge_alphas_are_in_the_last_bin_and_the_axis_says_so() -> None:
    (axes,) = plot_alpha_histogram([*(layer(2.0 + at / 10) for at in range(30)), layer(400.0)]).axes

    assert axes.get_xlim()[1] < 10.0
    assert heights(axes, GOOD).sum() == 31
    assert heights(axes, GOOD)[-1] == 1
    assert "up to 400.0" in axes.get_xlabel()


def test_the_baseline_is_an_outline_of_its_own_counts() -> None:
    (axes,) = plot_alpha_histogram([layer(2.0)], [layer(5.1), layer(5.2), layer(None)]).axes

    counts, edges, _ = outline(axes, BASELINE).get_data()
    assert counts.sum() == 2
    assert edges[int(np.argmax(counts))] == pytest.approx(5.0)
    assert not outline(axes, BASELINE).get_fill()


def test_a_model_without_a_fit_gives_an_empty_histogram() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_alpha_histogram([layer(None)], [])
        rendered(figure, "svg")

    (axes,) = figure.axes
    assert heights(axes, GOOD).sum() == 0
    assert BASELINE not in labels(axes)

"""Alpha by depth: what is drawn for which layer."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from layerwatch.metrics.measurement import FitStatus, Measurement
from layerwatch.metrics.plots import PlottedLayer, plot_alpha_profile, rendered
from layerwatch.metrics.plots.alphascale import USUAL_WORDS
from layerwatch.metrics.plots.profile import BASELINE, BEYOND, MEASURED, NO_FIT, UNMEASURED
from layerwatch_testing.examinations import measurement, numbers
from layerwatch_testing.plotting import labels, plotted, points


def layer(name: str, alpha: float | None, status: FitStatus = FitStatus.OK) -> PlottedLayer:
    sigma = None if alpha is None else 0.25
    return with_measurement(
        name, measurement(numbers=numbers(alpha=alpha, alpha_sigma=sigma, fit_status=status))
    )


def with_measurement(name: str, found: Measurement | None) -> PlottedLayer:
    return PlottedLayer(name, (64, 64), "F32", found)


def errorbars(figure: Figure, label: str) -> ErrorbarContainer:
    (found,) = [
        one
        for one in figure.axes[0].containers
        if isinstance(one, ErrorbarContainer) and one.get_label() == label
    ]
    return found


def test_every_fit_stands_at_its_depth_with_its_standard_error() -> None:
    figure = plot_alpha_profile([layer("a", 3.0), layer("b", 2.5), layer("c", 4.0)], title="net")

    marks, _, (bars,) = errorbars(figure, MEASURED).lines
    assert np.asarray(marks.get_xdata()).tolist() == [0, 1, 2]
    assert np.asarray(marks.get_ydata()).tolist() == [3.0, 2.5, 4.0]
    assert bars.get_segments()[1].tolist() == [[1.0, 2.25], [1.0, 2.75]]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]
    assert "net" in figure.axes[0].get_title(loc="left")


def test_the_marker_tells_how_far_a_fit_can_be_trusted() -> None:
    statuses = [FitStatus.OK, FitStatus.POOR_FIT, FitStatus.SHORT_TAIL, FitStatus.TOO_SMALL]

    figure = plot_alpha_profile([layer(str(status), 3.0, status) for status in statuses])

    containers = [one for one in figure.axes[0].containers if isinstance(one, ErrorbarContainer)]
    assert len({one.lines[0].get_marker() for one in containers}) == 4
    assert [np.asarray(one.lines[0].get_xdata()).tolist() for one in containers] == [[0], [1], [2], [3]]
    faces = [one.lines[0].get_markerfacecolor() for one in containers]
    assert faces[1:] == ["white"] * 3 and faces[0] != "white"


def test_layers_without_alpha_are_marked_on_the_axis() -> None:
    layers = [
        layer("a", 3.0),
        layer("b", None, FitStatus.DEGENERATE),
        PlottedLayer("c", (8, 8), "I4", None, "stored as I4"),
        with_measurement("d", measurement(non_finite=3, numbers=None)),
    ]

    (axes,) = plot_alpha_profile(layers).axes

    assert points(axes, NO_FIT)[0].tolist() == [1, 3]
    assert points(axes, UNMEASURED)[0].tolist() == [2]
    assert points(axes, UNMEASURED)[1].tolist() == [0.0]


def test_the_baseline_is_matched_by_name_and_gaps_stay_gaps() -> None:
    layers = [layer("a", 3.0), layer("b", 2.5), layer("c", 4.0)]
    baseline = [layer("c", 3.5), layer("gone", 9.0), layer("a", 2.0)]

    (axes,) = plot_alpha_profile(layers, baseline).axes

    assert points(axes, BASELINE)[1].tolist() == pytest.approx([2.0, np.nan, 3.5], nan_ok=True)


def test_one_huge_alpha_is_marked_at_the_end_of_the_axis_and_does_not_flatten_the_others() -> None:
    layers = [layer(f"l{at}", 2.0 + at / 20) for at in range(40)]
    layers[7] = layer("l7", 250.0)

    (axes,) = plot_alpha_profile(layers).axes

    assert axes.get_ylim()[1] < 10.0
    assert points(axes, f"{BEYOND}, up to 250.0")[0].tolist() == [7]


def test_the_usual_band_is_named_informational() -> None:
    (axes,) = plot_alpha_profile([layer("a", 3.0)]).axes

    assert USUAL_WORDS in labels(axes)
    assert "informational" in USUAL_WORDS


@pytest.mark.parametrize("count", [48, 49, 400])
def test_the_names_of_hundreds_of_layers_do_not_touch(count: int) -> None:
    figure = plot_alpha_profile([layer(f"model.layers.{at}.self_attn.q_proj", 3.0) for at in range(count)])
    rendered(figure, "png")

    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels()]
    assert 24 <= len(boxes) <= 48
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_legend_and_labels_stay_inside_the_picture() -> None:
    layers = [layer(f"model.layers.{at}.fc", 3.0, status) for at, status in enumerate(FitStatus)]
    layers += [layer("big", 1000.0), PlottedLayer("x", (8, 8), "I4", None)]
    layers += [replace(layers[0], name=f"more{at}") for at in range(30)]

    for shown in (layers[:7], layers):
        figure = plot_alpha_profile(shown, shown, "a model with a rather long name")
        rendered(figure, "png")
        (legend,) = figure.legends
        box, whole = legend.get_window_extent(), figure.bbox
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1
        drawn = figure.axes[0].get_tightbbox()
        assert drawn is not None and box.y1 <= drawn.y0


def test_vectors_are_left_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    state = {
        "fc.weight": random.standard_normal((64, 64)).astype(np.float32),
        "fc.bias": random.standard_normal(64).astype(np.float32),
    }

    (axes,) = plot_alpha_profile(plotted(tmp_path, state)).axes

    assert [text.get_text() for text in axes.get_xticklabels()] == ["fc"]


def test_a_model_without_layers_gives_an_empty_figure() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_alpha_profile([], [])
        rendered(figure, "png")

    assert "0 layers" in figure.axes[0].get_title(loc="left")

"""What the figure of one layer shows."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import same_color

from layerwatch.metrics.measurement import FitStatus, LayerKind
from layerwatch.metrics.plots import look, plot_layer, plot_unmeasured, rendered
from layerwatch.metrics.plots.panels import BASELINE, BULK, EIGENVALUES, FIT, SHUFFLED, XMIN
from layerwatch_testing.examinations import measurement
from layerwatch_testing.plotting import (
    gaussian,
    heavy_tailed,
    labels,
    line,
    measured,
    outline,
    points,
    texts,
)


def test_the_title_tells_name_shape_and_type(tmp_path: Path) -> None:
    figure = plot_layer(measured(tmp_path, gaussian(96, 64)), "blocks.3.fc1")

    title = figure.texts[0].get_text()
    assert title.startswith("blocks.3.fc1")
    assert "96 × 64" in title
    assert title.endswith("F32")


def test_both_panels_are_logarithmic_and_show_the_same_eigenvalues(tmp_path: Path) -> None:
    density, tail, _ = plot_layer(measured(tmp_path, heavy_tailed(256, 128)), "a").axes

    for axes in (density, tail):
        assert axes.get_xscale() == axes.get_yscale() == "log"
    assert density.get_xlim() == tail.get_xlim()


def test_the_fit_passes_through_the_empirical_curve_at_xmin_and_falls_with_alpha(tmp_path: Path) -> None:
    layer = measured(tmp_path, heavy_tailed(512, 256))
    assert layer.numbers is not None and layer.numbers.fit_status is FitStatus.OK
    density, tail, _ = plot_layer(layer, "a").axes

    x, shares = points(tail, EIGENVALUES)
    fit_x, fit = points(tail, FIT)

    assert fit_x[0] == layer.numbers.xmin
    assert shares[np.searchsorted(x, fit_x[0] * (1 - 1e-6))] == pytest.approx(fit[0])
    slope = np.diff(np.log(fit)) / np.diff(np.log(fit_x))
    assert slope == pytest.approx(1.0 - (layer.numbers.alpha or 0.0))
    fit_x, fit = points(density, FIT)
    assert np.diff(np.log(fit)) / np.diff(np.log(fit_x)) == pytest.approx(-(layer.numbers.alpha or 0.0))


def test_the_fitted_density_holds_the_share_of_the_tail(tmp_path: Path) -> None:
    layer = measured(tmp_path, heavy_tailed(512, 256))
    density, tail, _ = plot_layer(layer, "a").axes

    x, fitted = points(density, FIT)
    _, shares = points(tail, FIT)

    # Between xmin and the largest eigenvalue lies what the tail function loses on the way.
    assert np.trapezoid(fitted * x, np.log(x)) == pytest.approx(shares[0] - shares[-1], rel=5e-3)


def test_xmin_is_marked_in_both_panels(tmp_path: Path) -> None:
    layer = measured(tmp_path, heavy_tailed(256, 128))
    density, tail, _ = plot_layer(layer, "a").axes

    assert layer.numbers is not None
    for axes in (density, tail):
        assert points(axes, XMIN)[0].tolist() == [layer.numbers.xmin] * 2


def test_the_histogram_is_a_density_of_all_eigenvalues(tmp_path: Path) -> None:
    layer = measured(tmp_path, gaussian(512, 256))
    density, _, _ = plot_layer(layer, "a").axes

    heights, edges, _ = outline(density, EIGENVALUES).get_data()

    assert layer.spectrum is not None
    inside = np.mean((layer.spectrum >= edges[0]) & (layer.spectrum <= edges[-1]))
    assert np.sum(heights * np.diff(edges)) == pytest.approx(inside)
    assert inside > 0.95


def test_the_bulk_lies_on_the_histogram_of_a_random_layer(tmp_path: Path) -> None:
    layer = measured(tmp_path, gaussian(2000, 1000))
    density, _, _ = plot_layer(layer, "a").axes

    x, bulk = points(density, BULK)
    heights, edges, _ = outline(density, EIGENVALUES).get_data()

    assert layer.numbers is not None and x[-1] == layer.numbers.mp_bulk_edge
    centres = np.sqrt(edges[1:] * edges[:-1])
    middle = (centres > 1.5 * x[0]) & (centres < 0.8 * x[-1])
    assert np.interp(centres[middle], x, bulk) == pytest.approx(heights[middle], rel=0.25)
    assert 0.93 < np.trapezoid(bulk, x) < 1.0  # The axis leaves out the lowest twentieth.


def test_the_bulk_of_a_convolution_is_that_of_its_kernel_slices(tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((128, 64, 3, 3)).astype(np.float32)
    layer = measured(tmp_path, values)
    density, _, _ = plot_layer(layer, "a").axes

    x, bulk = points(density, BULK)

    assert layer.kind is LayerKind.CONV
    assert x[-1] == pytest.approx((128**0.5 + 64**0.5) ** 2, rel=0.02)
    assert 0.93 < np.trapezoid(bulk, x) < 1.0  # The axis leaves out the lowest twentieth.


def test_spikes_are_left_out_of_the_bulks_area(tmp_path: Path) -> None:
    spikes = 100.0 * np.eye(256, 128, dtype=np.float32) * (np.arange(128) < 32)
    layer = measured(tmp_path, gaussian(256, 128) + spikes.astype(np.float32))
    density, _, _ = plot_layer(layer, "a").axes

    x, bulk = points(density, BULK)

    assert layer.numbers is not None and layer.numbers.num_spikes == 32
    assert np.trapezoid(bulk, x) == pytest.approx(96 / 128, abs=0.05)


def test_no_bulk_is_drawn_where_half_of_the_eigenvalues_stand_out(tmp_path: Path) -> None:
    layer = measured(tmp_path, gaussian(256, 128))
    assert layer.numbers is not None
    figure = plot_layer(replace(layer, numbers=replace(layer.numbers, num_spikes=64)), "a")

    assert BULK not in labels(figure.axes[0])
    assert "No bulk is drawn" in texts(figure)


def test_the_randomised_spectrum_is_an_outline_where_it_was_measured(tmp_path: Path) -> None:
    values = heavy_tailed(256, 128)

    with_it, _, _ = plot_layer(measured(tmp_path, values), "a").axes
    without, _, _ = plot_layer(measured(tmp_path, values, shuffled=False), "a").axes

    assert not outline(with_it, SHUFFLED).get_fill()
    assert SHUFFLED not in labels(without)


def test_a_baseline_lies_over_both_panels_and_widens_them(tmp_path: Path) -> None:
    layer = measured(tmp_path, heavy_tailed(256, 128))
    baseline = measured(tmp_path, 1000 * heavy_tailed(256, 128, seed=1))

    figure = plot_layer(layer, "a", baseline)
    density, tail, _ = figure.axes

    assert baseline.spectrum is not None and layer.spectrum is not None
    heights, edges, _ = outline(density, BASELINE).get_data()
    assert np.nansum(heights * np.diff(edges)) == pytest.approx(1.0, abs=0.06)
    x, shares = points(tail, BASELINE)
    assert x[-1] == baseline.spectrum[-1]
    assert shares[-1] == 1 / 128
    for axes in (density, tail):
        assert axes.get_xlim()[1] > baseline.spectrum[-1]
        assert axes.get_xlim()[0] < layer.spectrum[0]
    assert "baseline" in texts(figure)
    assert same_color(line(tail, BASELINE).get_color(), look.BASELINE)


def test_a_baseline_of_the_same_bytes_is_told_and_not_drawn(tmp_path: Path) -> None:
    layer = measured(tmp_path, gaussian(96, 64))

    figure = plot_layer(layer, "a", layer)

    assert "Unchanged" in texts(figure)
    assert BASELINE not in labels(figure.axes[0]) | labels(figure.axes[1])


def test_a_baseline_without_a_spectrum_is_told(tmp_path: Path) -> None:
    broken = gaussian(96, 64)
    broken[0, 0] = np.nan

    figure = plot_layer(measured(tmp_path, gaussian(96, 64)), "a", measured(tmp_path, broken))

    assert "1 element is NaN or infinite" in texts(figure).replace("\n  ", "")
    assert BASELINE not in labels(figure.axes[0])


def test_the_numbers_stand_beside_the_panels(tmp_path: Path) -> None:
    layer = measured(tmp_path, heavy_tailed(256, 128))
    numbers = layer.numbers
    assert numbers is not None

    shown = texts(plot_layer(layer, "a")).splitlines()

    assert f"{numbers.alpha:.2f} ± {numbers.alpha_sigma:.2f}" in shown
    assert f"{numbers.ks_distance:.3f}" in shown
    assert f"{numbers.tail_size} of 128" in shown
    assert f"{numbers.stable_rank:.1f}" in shown
    assert str(numbers.num_spikes) in shown
    assert str(layer.traps) in shown


def test_eigenvalues_that_are_zero_up_to_rounding_do_not_stretch_the_axis(tmp_path: Path) -> None:
    low_rank = gaussian(256, 60, seed=1) @ gaussian(60, 128, seed=2)
    layer = measured(tmp_path, low_rank, shuffled=False)

    figure = plot_layer(layer, "a")

    low, high = figure.axes[0].get_xlim()
    assert layer.spectrum is not None and layer.spectrum[67] < 1e-9 * layer.spectrum[68]
    assert layer.numbers is not None and layer.numbers.rank_loss is not None and layer.numbers.rank_loss > 50
    assert high / low < 1e4
    assert "Left of the axis" in texts(figure)
    assert f"{layer.numbers.rank_loss} of them zero up to rounding" in texts(figure)


def test_one_tiny_eigenvalue_of_a_small_classifier_does_not_stretch_the_axis(tmp_path: Path) -> None:
    rows = gaussian(10, 64)
    layer = measured(tmp_path, rows - 0.999 * rows.mean(axis=0), shuffled=False)
    assert layer.spectrum is not None and layer.spectrum[0] < 1e-4 * layer.spectrum[1]

    low, high = plot_layer(layer, "fc").axes[0].get_xlim()

    assert layer.spectrum[0] < low < layer.spectrum[1]
    assert high < 30 * low


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.zeros((64, 64), np.float32), "every element is zero"),
        (np.full((64, 64), np.nan, np.float32), "4096 elements are NaN or infinite"),
        (np.where(np.eye(64) > 0, np.inf, 1.0).astype(np.float32), "64 elements are NaN or infinite"),
        (gaussian(96, 64) * np.float32(1e-30), "too small for float32"),
        (gaussian(96, 64) * np.float32(1e25), "too large for float32"),
    ],
    ids=["zero", "nan", "inf", "tiny", "huge"],
)
def test_a_layer_without_a_spectrum_gives_a_figure_that_says_why(
    tmp_path: Path, values: np.ndarray, sentence: str
) -> None:
    figure = plot_layer(measured(tmp_path, values), "a")

    assert sentence in texts(figure).replace("\n", " ")
    assert rendered(figure, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "values",
    [
        np.ones((64, 64), np.float32),
        np.eye(64, dtype=np.float32),
        gaussian(64, 1) @ gaussian(1, 64),
        gaussian(1, 64),
        gaussian(64, 1),
        gaussian(1, 1),
        np.linalg.qr(gaussian(64, 64))[0].astype(np.float32),
    ],
    ids=["constant", "identity", "rank 1", "row", "column", "single", "orthogonal"],
)
def test_a_layer_without_a_fit_is_drawn_and_says_so(tmp_path: Path, values: np.ndarray) -> None:
    layer = measured(tmp_path, values)
    assert layer.numbers is not None and layer.numbers.fit_status is FitStatus.DEGENERATE

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_layer(layer, "a")
        rendered(figure, "png")

    assert "No power law can be fitted" in texts(figure).replace("\n   ", " ")
    assert {EIGENVALUES} <= labels(figure.axes[0])
    assert not {FIT, XMIN} & labels(figure.axes[0])


def test_a_fit_of_few_eigenvalues_is_called_a_hint(tmp_path: Path) -> None:
    figure = plot_layer(measured(tmp_path, gaussian(40, 20)), "a")

    assert "too small" in texts(figure).splitlines()
    assert "Fewer than 50 eigenvalues" in texts(figure)
    assert FIT in labels(figure.axes[0])


def test_a_vector_says_that_it_has_no_spectrum() -> None:
    vector = measurement(kind=LayerKind.BIAS, shape=(10,), numbers=None, folded=None)

    assert "a vector has no spectrum" in texts(plot_layer(vector, "bias"))


def test_a_layer_that_could_not_be_examined_gives_a_figure_with_the_reason() -> None:
    figure = plot_unmeasured("fc1", (10, 20), "I4", "stored as I4, which cannot be undone $x^2$ \x1b[2J")

    assert "stored as I4, which cannot be undone $x^2$ ?[2J" in texts(figure)
    assert rendered(figure, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name", ["$\\frac{", "a\nb\x1b[2J", "层.0.权重", "\udcff\udc80", "x" * 5000, "", "{}%s_^"], ids=ascii
)
def test_any_name_can_be_drawn_on_one_line(tmp_path: Path, name: str) -> None:
    layer = measured(tmp_path, gaussian(60, 8))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_layer(layer, name)
        rendered(figure, "svg")

    title = figure.texts[0].get_text()
    assert title.isprintable()
    assert len(title) < 150

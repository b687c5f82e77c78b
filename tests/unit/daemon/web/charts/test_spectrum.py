"""Pictures of one layer: where its eigenvalues lie, what the fit says of them, and the norms of its units."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from drawn import legend, of_class, places, read, texts
from layerwatch.daemon.web.charts.spectrum import (
    column_norm_profile,
    randomised,
    row_norm_profile,
    spectrum_density,
    spectrum_tail,
)
from layerwatch.metrics.measurement import FitStatus, Measurement
from layerwatch_testing.examinations import measurement, numbers
from layerwatch_testing.plotting import gaussian, heavy_tailed, measured
from layerwatch_testing.processes import environment

ALL = (spectrum_density, spectrum_tail, row_norm_profile, column_norm_profile)
BOTH = ALL[:2]
NORMS = ALL[2:]
BOTTOM, TOP = 296.0, 36.0


@pytest.fixture(scope="module")
def tailed(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    return measured(tmp_path_factory.mktemp("tailed"), heavy_tailed(300, 200))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    return measured(tmp_path_factory.mktemp("noise"), gaussian(300, 200), shuffled=False)


def spread(values: Any, **other: Any) -> Measurement:
    """A layer with these eigenvalues."""
    spectrum = np.sort(np.asarray(values, dtype=np.float32))
    return measurement(spectrum=spectrum, numbers=numbers(num_eigenvalues=len(spectrum), **other))


def with_norms(values: Any, **other: Any) -> Measurement:
    norms = np.asarray(values, dtype=np.float32)
    return measurement(row_norms=norms, column_norms=norms, **other)


@pytest.mark.parametrize("draw", ALL)
def test_a_layer_without_what_is_drawn_has_no_picture(draw: Any) -> None:
    assert draw(measurement(), None) == ""
    assert draw(measurement(numbers=None, non_finite=3), measurement()) == ""


@pytest.mark.parametrize("draw", ALL)
def test_equal_layers_give_equal_pictures(draw: Any, tailed: Measurement, noise: Measurement) -> None:
    assert draw(tailed, noise) == draw(tailed, noise) != ""
    assert draw(tailed, noise) != draw(noise, tailed)


@pytest.mark.parametrize("draw", ALL)
def test_an_image_is_named_and_described(draw: Any, tailed: Measurement) -> None:
    (image,) = (svg for svg in read(draw(tailed, None)).iter("svg") if svg.get("class") == "chart half")
    assert image.get("role") == "img"
    assert all(child.text for child in image[:2])


def test_the_description_has_the_numbers(tailed: Measurement) -> None:
    (image,) = (svg for svg in read(spectrum_density(tailed, None)).iter("svg") if svg.get("role"))
    assert tailed.numbers is not None
    described = image[1].text or ""
    assert "200 eigenvalues" in described
    assert f"alpha {tailed.numbers.alpha:.2f}" in described
    assert f"xmin {tailed.numbers.xmin:.3g}" in described


@pytest.mark.parametrize("draw", BOTH)
def test_xmin_is_marked_where_it_is(draw: Any) -> None:
    layer = spread(np.geomspace(0.1, 10.0, 100), xmin=1.0, tail_size=50, alpha=1.5)
    root = read(draw(layer, None))
    (mark,) = of_class(root, "xmin")
    (fit,) = of_class(root, "fit")
    ticks = {tick.text: float(tick.get("x") or 0) for tick in of_class(root, "tick", "middle")}
    assert places(mark)[0][0] == pytest.approx(ticks["1"], abs=0.1)
    assert ticks["2"] - ticks["1"] == pytest.approx(ticks["10"] - ticks["5"], abs=0.2)
    assert places(fit)[0][0] == pytest.approx(ticks["1"], abs=0.1)
    assert places(fit)[-1][0] == pytest.approx(ticks["10"], abs=0.1)
    assert "xmin" in texts(root)


def test_the_fitted_density_falls_by_alpha_per_decade() -> None:
    layer = spread(np.geomspace(1.0, 100.0, 100), xmin=1.0, tail_size=100, alpha=2.0)
    root = read(spectrum_density(layer, None))
    (fit,) = of_class(root, "fit")
    x = {tick.text: float(tick.get("x") or 0) for tick in of_class(root, "tick", "middle")}
    y = {tick.text: float(tick.get("y") or 0) for tick in of_class(root, "tick", "end")}
    (begin_x, begin_y), (end_x, end_y) = places(fit)[0], places(fit)[-1]
    assert (end_x - begin_x) / (x["10"] - x["1"]) == pytest.approx(2.0, abs=0.02)
    assert (end_y - begin_y) / (y["10⁻⁴"] - y["10⁻³"]) == pytest.approx(4.0, abs=0.05)


def test_the_tail_function_begins_with_all_and_ends_with_one() -> None:
    layer = spread(np.geomspace(0.1, 10.0, 100), xmin=1.0, tail_size=50)
    root = read(spectrum_tail(layer, None))
    (curve,) = of_class(root, "layer")
    y = {tick.text: float(tick.get("y") or 0) - 4 for tick in of_class(root, "tick", "end")}
    assert places(curve)[0][1] == pytest.approx(y["1"], abs=1.5)
    assert places(curve)[-1][1] == pytest.approx(y["0.01"], abs=0.1)
    heights = [height for _, height in places(curve)]
    assert heights == sorted(heights)


def test_a_fit_that_falls_below_the_axis_ends_there() -> None:
    layer = spread(np.geomspace(1.0, 100.0, 60), xmin=1.0, tail_size=60, alpha=9.0)
    (fit,) = of_class(read(spectrum_tail(layer, None)), "fit")
    heights = [y for _, y in places(fit)]
    assert max(heights) <= BOTTOM
    assert all(second > first for first, second in pairwise(heights))


def test_the_fit_meets_the_tail_function_at_xmin(tailed: Measurement) -> None:
    root = read(spectrum_tail(tailed, None))
    (curve,), (fit,) = of_class(root, "layer"), of_class(root, "fit")
    begin = places(fit)[0]
    nearest = min(places(curve), key=lambda point: abs(point[0] - begin[0]) + abs(point[1] - begin[1]))
    assert nearest == pytest.approx(begin, abs=1.5)


def test_a_poor_fit_is_called_so() -> None:
    layer = spread(np.geomspace(0.1, 10.0, 100), xmin=1.0, tail_size=50, fit_status=FitStatus.POOR_FIT)
    assert "power law, alpha 3.00 ± 0.40 (poor fit)" in legend(read(spectrum_tail(layer, None)))


def test_a_layer_without_fit_has_neither_line_nor_xmin() -> None:
    layer = spread(np.full(60, 2.0), alpha=None, xmin=None, tail_size=None, fit_status=FitStatus.DEGENERATE)
    for draw in BOTH:
        root = read(draw(layer, None))
        assert of_class(root, "fit") == of_class(root, "xmin") == []
        assert legend(root)[0] == "eigenvalues"


def test_the_bulk_ends_at_its_edge(noise: Measurement) -> None:
    root = read(spectrum_density(noise, None))
    (bulk,), (edge,) = of_class(root, "bulk"), of_class(root, "edge")
    assert places(bulk)[-1][0] == pytest.approx(places(edge)[0][0], abs=2.0)
    assert "bulk edge" in texts(root)


def test_where_the_weights_were_not_shuffled_the_bulk_stands_for_it_and_says_so(
    noise: Measurement, tailed: Measurement
) -> None:
    root = read(spectrum_density(noise, None))
    assert of_class(root, "shuffled") == []
    assert (
        "randomised: Marchenko-Pastur" in legend(root) and randomised(noise) == "randomised: Marchenko-Pastur"
    )
    shuffled = read(spectrum_density(tailed, None))
    assert len(of_class(shuffled, "shuffled")) == 1
    assert {"randomised (elements shuffled)", "Marchenko-Pastur bulk"} <= set(legend(shuffled))


def test_a_spectrum_without_bulk_shows_the_edge_alone() -> None:
    layer = spread(np.geomspace(0.1, 10.0, 100), xmin=1.0, tail_size=50, mp_bulk_edge=0.5, num_spikes=80)
    root = read(spectrum_density(layer, None))
    assert of_class(root, "bulk") == []
    assert len(of_class(root, "edge")) == 1
    assert "randomised: Marchenko-Pastur, its edge alone" in legend(root)


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert randomised(spread(np.geomspace(0.1, 10.0, 100))) == ""
    assert randomised(measurement()) == ""


@pytest.mark.parametrize("draw", ALL)
def test_a_baseline_is_drawn_over_the_layer(draw: Any, tailed: Measurement, noise: Measurement) -> None:
    root = read(draw(tailed, noise))
    assert of_class(root, "baseline")
    assert "baseline" in legend(root)
    assert of_class(read(draw(tailed, None)), "baseline") == []


@pytest.mark.parametrize("draw", ALL)
def test_of_an_unchanged_layer_there_is_nothing_to_compare(draw: Any, tailed: Measurement) -> None:
    root = read(draw(tailed, tailed))
    assert of_class(root, "baseline") == []
    assert "baseline: the same bytes" in legend(root)


def test_a_baseline_without_spectrum_is_told(tailed: Measurement) -> None:
    assert "baseline: no spectrum" in legend(read(spectrum_density(tailed, measurement(digest="11"))))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("draw", BOTH)
def test_eigenvalues_of_any_size_lie_inside_the_picture(draw: Any, scale: float) -> None:
    values = np.geomspace(1e-4, 1e3, 64) * scale
    root = read(
        draw(
            spread(
                values, xmin=float(values[30]), tail_size=34, mp_bulk_edge=float(values[40]), num_spikes=3
            ),
            None,
        )
    )
    for curve in (*of_class(root, "layer"), *of_class(root, "fit"), *of_class(root, "bulk")):
        assert all(78 <= x <= 546 and TOP <= y <= BOTTOM for x, y in places(curve))
    assert 4 <= len(of_class(root, "tick", "middle")) <= 8


@pytest.mark.parametrize("draw", BOTH)
@pytest.mark.parametrize("values", [[2.0], [0.0, 3.0], [0.0] * 5 + [1.0, 1.0]])
def test_the_smallest_spectra_are_drawn(draw: Any, values: list[float]) -> None:
    layer = spread(values, alpha=None, xmin=None, tail_size=None, rank_loss=values.count(0.0))
    assert of_class(read(draw(layer, None)), "layer")


def test_a_large_spectrum_is_no_large_picture() -> None:
    values = np.geomspace(1e-3, 1e2, 20_000)
    assert len(spectrum_tail(spread(values, xmin=1.0, tail_size=8000), None)) < 60_000


@pytest.mark.parametrize("draw", NORMS)
def test_norms_stand_in_order_over_an_axis_from_zero(draw: Any) -> None:
    root = read(draw(with_norms([1.0, 4.0, 2.0]), None))
    (curve,) = of_class(root, "layer")
    points = places(curve)
    heights = [212.0 - y for _, y in points]
    assert heights[1] == pytest.approx(heights[0], abs=0.1)
    assert heights[2] == pytest.approx(4 * heights[0], abs=0.5)
    assert heights[-1] == pytest.approx(2 * heights[0], abs=0.5)
    assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_rows_and_columns_are_not_mixed_up() -> None:
    layer = measurement(row_norms=np.ones(4, np.float32), column_norms=np.ones(9, np.float32))
    assert "4 rows" in row_norm_profile(layer, None) and "9 columns" in column_norm_profile(layer, None)


def test_of_many_rows_each_step_reaches_from_the_lowest_to_the_highest() -> None:
    norms = np.ones(4096)
    norms[2000] = 0.0
    root = read(row_norm_profile(with_norms(norms), None))
    high, low = of_class(root, "layer")
    assert len({y for _, y in places(high)}) == 1
    hole = min(x for x, y in places(low) if y == 212.0)
    assert hole == pytest.approx(78 + (546 - 78) * 2000 / 4096, abs=3)
    assert "rows in order, 18 per step: lowest and highest" in texts(root)
    assert "1 of them zero" in row_norm_profile(with_norms(norms), None)


def test_one_huge_row_is_marked_beyond_the_axis_and_does_not_flatten_the_others() -> None:
    norms = np.ones(100)
    norms[40] = 5000.0
    root = read(row_norm_profile(with_norms(norms), None))
    (curve,) = of_class(root, "layer")
    assert 212.0 - places(curve)[0][1] > 30
    assert len(of_class(root, "beyond")) == 1
    assert "above the axis, up to 5e+03" in legend(root)


@pytest.mark.parametrize("draw", NORMS)
def test_norms_that_are_no_numbers_are_gaps(draw: Any) -> None:
    (curve,) = of_class(read(draw(with_norms([1.0, np.nan, 2.0, np.inf, 3.0]), None)), "layer")
    assert (curve.get("d") or "").count("M") == 3
    assert draw(with_norms([np.nan, np.inf]), None) == ""


@pytest.mark.parametrize("draw", NORMS)
def test_a_layer_of_zeros_is_a_line_on_the_axis(draw: Any) -> None:
    (curve,) = of_class(read(draw(with_norms(np.zeros(8)), None)), "layer")
    assert {y for _, y in places(curve)} == {212.0}


def test_a_baseline_of_another_width_is_drawn_too() -> None:
    root = read(row_norm_profile(with_norms(np.ones(8)), with_norms(np.ones(16), digest="11")))
    (old,), (new,) = of_class(root, "baseline"), of_class(root, "layer")
    assert places(old)[-1][0] - 78 == pytest.approx(2 * (places(new)[-1][0] - 78), abs=0.2)


def test_matplotlib_is_not_needed() -> None:
    script = "import sys; import layerwatch.daemon.web.charts.spectrum; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True, timeout=120)

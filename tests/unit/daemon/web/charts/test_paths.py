"""Paths: gaps where there is no number, and no point twice."""

from __future__ import annotations

import numpy as np

from layerwatch.daemon.web.charts import paths

NAN = np.nan


def test_a_line_has_gaps_and_lone_points() -> None:
    x = np.arange(6.0)
    assert paths.line(x, np.array([1.0, 2.0, NAN, 3.0, NAN, 4.0])) == "M0 1L1 2M3 3h0M5 4h0"


def test_points_on_the_same_spot_are_written_once() -> None:
    assert paths.line(np.array([0.0, 0.01, 0.02, 5.0]), np.zeros(4)) == "M0 0L5 0"


def test_nothing_but_gaps_is_nothing() -> None:
    gaps = np.full(3, NAN)
    assert paths.line(np.arange(3.0), gaps) == ""
    assert paths.steps(np.arange(4.0), gaps) == ""
    assert paths.area(np.arange(3.0), gaps, gaps) == ""


def test_an_area_runs_there_above_and_back_below() -> None:
    x, low, high = np.array([0.0, 1.0]), np.array([1.0, 2.0]), np.array([3.0, 4.0])
    assert paths.area(x, low, high) == "M0 3L1 4L1 2L0 1Z"


def test_steps_are_level_between_edges() -> None:
    edges, heights = np.arange(5.0), np.array([1.0, 1.0, 3.0, NAN])
    assert paths.steps(edges, heights) == "M0 1H2V3H3"


def test_filled_steps_close_along_the_lower_line() -> None:
    edges, low, high = np.arange(3.0), np.array([9.0, 8.0]), np.array([1.0, 2.0])
    assert paths.filled_steps(edges, low, high) == "M0 1H1V2H2V8H1V9H0Z"


def test_a_distribution_is_level_up_to_each_value_and_then_changes() -> None:
    assert (
        paths.falling_steps(np.array([0.0, 2.0, 2.0, 5.0]), np.array([0.0, 1.0, 2.0, 3.0]))
        == "M0 0H2V1V2H5V3"
    )

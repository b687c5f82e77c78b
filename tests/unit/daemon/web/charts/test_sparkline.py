"""Sparklines: what a line as small as a word tells."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn import moved, names, of_class, places, read, titles
from layerwatch.daemon.web.charts.sparkline import sparkline
from layerwatch.metrics.findings import Verdict

VALUES = st.lists(st.one_of(st.none(), st.floats()), max_size=30)


def test_a_line_goes_up_where_the_number_does_and_its_last_point_bears_the_verdict() -> None:
    root = read(sparkline([2.0, 4.0, 3.0], "alpha of fc", [None, None, Verdict.WARN]))
    (course,) = of_class(root, "course")
    first, second, third = places(course)
    assert first[0] < second[0] < third[0]
    assert second[1] < third[1] < first[1]
    assert third[1] == pytest.approx((first[1] + second[1]) / 2, abs=0.1)
    (mark,) = of_class(root, "mark")
    assert mark.get("class") == "mark suspect"
    assert moved(next(group for group in root.iter("g"))) == third


def test_its_name_is_the_label_and_its_title_has_the_ends() -> None:
    root = read(sparkline([2.0, 4.5], "alpha of fc"))
    assert (root[0].get("role"), root[0].get("aria-label")) == ("img", "alpha of fc")
    assert titles(root) == ["alpha of fc: first 2, last 4.5"]


@pytest.mark.parametrize("gap", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_gap(gap: float | None) -> None:
    (course,) = of_class(read(sparkline([1.0, 2.0, gap, 2.0, 1.0], "x")), "course")
    assert (course.get("d") or "").count("M") == 2


def test_a_newest_version_without_a_number_is_told() -> None:
    root = read(sparkline([1.0, 2.0, None], "x", [Verdict.PASS, Verdict.PASS, Verdict.FAIL]))
    assert titles(root) == ["x: first 1, last 2, none in the newest"]
    assert [mark.get("class") for mark in of_class(root, "mark")] == ["mark ok"]


def test_earlier_points_are_marked_only_where_they_did_not_pass() -> None:
    verdicts = [Verdict.PASS, Verdict.FAIL, None, Verdict.UNDECIDED, Verdict.PASS]
    root = read(sparkline([1.0, 2.0, 3.0, 4.0, 5.0], "x", verdicts))
    assert [mark.get("class") for mark in of_class(root, "mark")] == [
        "mark broken",
        "mark undecided",
        "mark ok",
    ]


def test_a_number_that_never_moves_lies_in_the_middle() -> None:
    (course,) = of_class(read(sparkline([3.0, 3.0], "x")), "course")
    assert {y for _, y in places(course)} == {14.0}


@pytest.mark.parametrize("values", [[], [None], [math.nan, None]])
def test_without_numbers_it_says_so(values: list[float | None]) -> None:
    root = read(sparkline(values, "x"))
    assert titles(root) == ["x: no values"]
    assert of_class(root, "mark") == []


@given(VALUES, names, st.lists(st.sampled_from([None, *Verdict]), max_size=40))
def test_any_values_under_any_name_stay_in_the_picture(
    values: list[float | None], label: str, verdicts: list[Verdict | None]
) -> None:
    drawn = sparkline(values, label, verdicts)
    assert drawn == sparkline(values, label, verdicts)
    root = read(drawn)
    assert (root[0].get("aria-label") or "").isprintable() and root[0].get("aria-label")
    for course in of_class(root, "course"):
        assert all(0.0 <= x <= 120.0 and 0.0 <= y <= 28.0 for x, y in places(course))


def test_of_many_versions_the_newest_are_shown() -> None:
    root = read(sparkline([float(value) for value in range(1000)], "x"))
    assert titles(root) == ["x: first 760, last 999"]

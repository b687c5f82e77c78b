"""Rows and lanes of a graph of versions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layerwatch.daemon.web.charts.lanes import lay_out


def test_a_line_of_versions_is_one_lane_with_the_newest_above() -> None:
    layout = lay_out([[], [0], [1]])
    assert (layout.order, layout.lanes, layout.width) == ((2, 1, 0), (0, 0, 0), 1)
    assert layout.edges == ((2, 1), (1, 0))


def test_a_branch_has_a_lane_of_its_own() -> None:
    layout = lay_out([[], [0], [0]])
    assert layout.order == (2, 1, 0)
    assert layout.lanes == (0, 1, 0)


def test_a_merge_opens_a_lane_for_its_second_parent() -> None:
    layout = lay_out([[], [0], [0], [1, 2]])
    assert layout.order == (3, 2, 1, 0)
    assert layout.lanes[1] != layout.lanes[2]
    assert layout.width == 2


def test_a_lane_is_used_again_when_its_line_has_ended() -> None:
    # Three versions of the same parent, one after the other.
    assert lay_out([[], [0], [0], [0]]).width == 2


def test_children_stand_above_parents_whatever_the_order_of_the_list_is() -> None:
    assert lay_out([[1], [2], []]).order == (0, 1, 2)


def test_versions_that_have_nothing_to_do_with_each_other_stand_in_one_lane() -> None:
    layout = lay_out([[], [], []])
    assert (layout.order, layout.width, layout.edges) == ((2, 1, 0), 1, ())


def test_a_circle_ends_and_shows_every_version() -> None:
    layout = lay_out([[1], [0], [1]])
    assert sorted(layout.order) == [0, 1, 2]
    assert set(layout.edges) == {(0, 1), (1, 0), (2, 1)}


def test_parents_outside_the_list_and_itself_are_passed_over() -> None:
    assert lay_out([[0, 7, -1], [0, 0]]).edges == ((1, 0),)


def test_no_versions_have_an_empty_layout() -> None:
    assert lay_out([]).order == ()


GRAPHS = st.integers(1, 12).flatmap(
    lambda count: st.lists(st.lists(st.integers(0, count - 1), max_size=3), min_size=count, max_size=count)
)


@given(GRAPHS)
def test_every_version_has_one_row_and_every_edge_is_there_once(parents: list[list[int]]) -> None:
    layout = lay_out(parents)
    assert sorted(layout.order) == list(range(len(parents)))
    wanted = {(child, parent) for child, row in enumerate(parents) for parent in row if parent != child}
    assert len(layout.edges) == len(wanted)
    assert set(layout.edges) == wanted
    assert all(0 <= lane < layout.width for lane in layout.lanes)


@given(GRAPHS)
def test_nothing_stands_in_the_lane_of_a_parent_between_it_and_its_children(parents: list[list[int]]) -> None:
    older = [[parent for parent in row if parent < child] for child, row in enumerate(parents)]
    layout = lay_out(older)
    row = {place: at for at, place in enumerate(layout.order)}
    for child, parent in layout.edges:
        assert row[child] < row[parent]
        between = [place for place in layout.order if row[child] < row[place] < row[parent]]
        assert layout.lanes[parent] not in [layout.lanes[place] for place in between]

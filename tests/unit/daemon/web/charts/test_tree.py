"""Trees of versions: nodes, verdicts, and where each came from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn import HOSTILE, legend, moved, names, of_class, read, texts, titles
from layerwatch.daemon.web.charts.model import TreeVersion
from layerwatch.daemon.web.charts.tree import lineage_tree
from layerwatch.metrics.findings import Verdict

PASS = Verdict.PASS


def test_without_versions_there_is_nothing() -> None:
    assert lineage_tree([], "Lineage") == ""


def test_the_newest_version_is_above_its_parent() -> None:
    root = read(
        lineage_tree([TreeVersion("v1", PASS), TreeVersion("v2", PASS, ((0, "finetuned"),))], "Lineage")
    )
    assert [name.text for name in of_class(root, "version")] == ["v2", "v1"]
    above, below = (
        moved(group) for row in of_class(root, "version-row") for group in row.iter("g") if group is not row
    )
    assert above[0] == below[0] and above[1] < below[1]


@pytest.mark.parametrize(
    ("verdict", "mark", "word"),
    [
        (Verdict.PASS, "ok", "pass"),
        (Verdict.WARN, "suspect", "warn"),
        (Verdict.FAIL, "broken", "fail"),
        (Verdict.UNDECIDED, "undecided", "undecided"),
        (None, "unjudged", "not judged"),
    ],
)
def test_a_verdict_is_told_by_mark_and_word(verdict: Verdict | None, mark: str, word: str) -> None:
    root = read(lineage_tree([TreeVersion("v1", verdict)], "Lineage"))
    assert [drawn.get("class") for drawn in of_class(root, "mark")] == [f"mark {mark}"]
    assert word in texts(root)
    assert legend(root) == [word]
    assert f"v1: {word}" in titles(root)


def test_an_edge_and_its_row_say_what_was_done() -> None:
    versions = [
        TreeVersion("v1", PASS),
        TreeVersion("v2", PASS, ((0, "quantized"),)),
        TreeVersion("v3", PASS, ((0, None),)),
    ]
    root = read(lineage_tree(versions, "Lineage"))
    assert {"quantized from v1", "made from v1"} <= set(texts(root))
    assert {"v2: quantized from v1", "v3: made from v1"} <= set(titles(root))


def test_a_merge_has_an_edge_to_each_parent_and_names_them_together() -> None:
    versions = [
        TreeVersion("base", PASS),
        TreeVersion("a", PASS, ((0, "finetuned"),)),
        TreeVersion("b", PASS, ((0, "finetuned"),)),
        TreeVersion("c", PASS, ((1, "merged"), (2, "merged"), (0, "distilled"))),
    ]
    root = read(lineage_tree(versions, "Lineage"))
    assert len(of_class(root, "edge")) == 5
    assert "merged from a, b; distilled from base" in texts(root)


def test_of_many_parents_the_first_are_named() -> None:
    versions = [TreeVersion(f"p{place}", PASS) for place in range(6)]
    versions.append(TreeVersion("all", PASS, tuple((place, "merged") for place in range(6))))
    assert "merged from p0, p1, p2 and 3 more" in texts(read(lineage_tree(versions, "Lineage")))


def test_a_parent_outside_the_list_is_named_and_its_edge_ends_open() -> None:
    root = read(lineage_tree([TreeVersion("v1", PASS, parent_outside="meta/base")], "Lineage"))
    assert len(of_class(root, "edge", "outside")) == 1
    assert "made from meta/base (not shown)" in texts(root)


def test_baseline_and_current_version_are_said_in_words() -> None:
    root = read(
        lineage_tree(
            [TreeVersion("v1", PASS, is_baseline=True), TreeVersion("v2", PASS, is_current=True)], "x"
        )
    )
    assert [flag.text for flag in of_class(root, "flag-name")] == ["current", "baseline"]
    assert len(of_class(root, "current")) == 1


def test_versions_link_to_where_they_lead() -> None:
    root = read(
        lineage_tree([TreeVersion("v1", PASS, href="version?a=1&b=2"), TreeVersion("v2", PASS)], "Lineage")
    )
    assert [link.get("href") for link in root.iter("a")] == ["version?a=1&b=2"]


def test_text_begins_right_of_every_lane() -> None:
    versions = [
        TreeVersion("base", PASS),
        *(TreeVersion(f"v{place}", PASS, ((0, "finetuned"),)) for place in range(5)),
    ]
    versions.append(TreeVersion("m", PASS, tuple((place, "merged") for place in range(1, 6))))
    root = read(lineage_tree(versions, "Lineage"))
    nodes = [
        moved(group)[0]
        for row in of_class(root, "version-row")
        for group in row.iter("g")
        if group is not row
    ]
    assert len(set(nodes)) > 3
    assert max(nodes) + 8 < min(float(name.get("x") or 0) for name in of_class(root, "version"))


def test_sixty_versions_fit() -> None:
    versions = [
        TreeVersion(f"v{place}", PASS, ((place - 1, "finetuned"),) if place else ()) for place in range(60)
    ]
    drawn = lineage_tree(versions, "Lineage")
    assert len(of_class(read(drawn), "version")) == 60
    assert len(drawn) < 60_000


@pytest.mark.parametrize("name", HOSTILE)
def test_versions_of_any_name_are_harmless_and_shortened(name: str) -> None:
    versions = [TreeVersion(name, PASS, parent_outside=name), TreeVersion(name, PASS, ((0, name),))]
    root = read(lineage_tree(versions, name))
    assert all(len(version.text or "") <= 30 for version in of_class(root, "version"))
    assert all(text.isprintable() for text in (*texts(root), *titles(root)))


@given(st.data())
def test_any_graph_is_drawn_inside_the_picture_and_the_same_again(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    parent = st.tuples(st.integers(-1, count), st.one_of(st.none(), names))
    one = st.builds(
        TreeVersion,
        names,
        st.sampled_from([None, *Verdict]),
        st.lists(parent, max_size=3).map(tuple),
        names,
        st.booleans(),
        st.booleans(),
    )
    versions = data.draw(st.lists(one, min_size=count, max_size=count))
    drawn = lineage_tree(versions, "Lineage")
    assert drawn == lineage_tree(versions, "Lineage")
    root = read(drawn)
    _, _, width, height = (float(number) for number in (next(root.iter("svg")).get("viewBox") or "").split())
    nodes = [
        moved(group) for row in of_class(root, "version-row") for group in row.iter("g") if group is not row
    ]
    assert len(nodes) == count
    assert all(0 < x < width and 0 < y < height for x, y in nodes)

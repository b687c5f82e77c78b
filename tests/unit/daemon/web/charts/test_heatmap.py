"""Heatmaps: the colour of every cell, what stands out, and how large they may become."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from drawn import HOSTILE, legend, moved, names, of_class, read, texts, titles
from layerwatch.daemon.web.charts.heatmap import heatmap
from layerwatch.daemon.web.charts.heatscale import class_of
from layerwatch.daemon.web.charts.model import HeatCell, HeatScale
from layerwatch.metrics.findings import LayerStatus

OK = LayerStatus.OK


def cell(value: float | None = 3.5, status: LayerStatus | None = OK, href: str | None = None) -> HeatCell:
    return HeatCell(status, value, href)


def classes(markup: Markup) -> list[list[str]]:
    """Class of every cell by rows; those of the usual class take that of their row."""
    rows = [row for row in read(markup).iter("g") if "scale(" in (row.get("transform") or "")]
    return [[(rect.get("class") or row.get("class") or "") for rect in row.iter("rect")] for row in rows]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1.99, "a"),
        (2.0, "b"),
        (2.99, "b"),
        (3.0, "c"),
        (4.5, "d"),
        (5.0, "e"),
        (6.0, "e"),
        (6.01, "f"),
        (math.inf, "f"),
    ],
)
def test_classes_of_alpha(value: float, name: str) -> None:
    assert class_of(cell(value), HeatScale.ALPHA) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0.0, "a"),
        (1e-9, "b"),
        (0.0099, "b"),
        (0.01, "c"),
        (0.05, "d"),
        (0.2, "e"),
        (0.499, "e"),
        (0.5, "f"),
        (math.inf, "f"),
    ],
)
def test_classes_of_relative_change(value: float, name: str) -> None:
    assert class_of(cell(value), HeatScale.RELATIVE_CHANGE) == name


def test_classes_of_statuses() -> None:
    found = [class_of(cell(None, status), HeatScale.STATUS) for status in (*LayerStatus, None)]
    assert found == ["a", "b", "c", "d", "e", "n"]


@pytest.mark.parametrize("value", [None, math.nan, -math.inf])
@pytest.mark.parametrize("scale", [HeatScale.ALPHA, HeatScale.RELATIVE_CHANGE])
def test_what_is_no_number_has_a_class_of_its_own(value: float | None, scale: HeatScale) -> None:
    assert class_of(cell(value), scale) == "n"


def test_rows_are_layers_and_columns_are_versions_with_the_oldest_on_the_left() -> None:
    drawn = heatmap(
        ["a", "b"],
        ["v1", "v2", "v3"],
        [[cell(1.5), cell(2.5), cell(3.5)], [cell(7), cell(7), cell(4.5)]],
        HeatScale.ALPHA,
        "x",
    )
    assert classes(drawn) == [["a", "b", "c"], ["f", "f", "d"]]
    first, second = (moved(row) for row in read(drawn).iter("g"))
    assert first[0] == second[0] and first[1] < second[1]
    written = {name.text: float(name.get("x") or 0) for name in of_class(read(drawn), "name")}
    assert written["a"] == written["b"] < written["v1"] < written["v2"] < written["v3"]
    assert "b, v3: alpha 4.50, ok" in titles(read(drawn))


def test_a_cell_that_is_not_in_the_version_is_blank_and_the_legend_says_so() -> None:
    drawn = heatmap(["a"], ["v1", "v2"], [[None, cell()]], HeatScale.ALPHA, "x")
    assert [rect.get("x") for rect in read(drawn).iter("rect") if rect.find("title") is not None] == ["1"]
    assert "not in the version" in legend(read(drawn))


def test_broken_cells_are_outlined_and_signed_whatever_their_colour_is() -> None:
    row = [cell(3.5), cell(3.5), cell(3.5, LayerStatus.BROKEN)]
    for scale in HeatScale:
        drawn = heatmap(["a"], ["v1", "v2", "v3"], [row], scale, "x")
        assert classes(drawn)[0][2].endswith(" x")
        assert not any(" x" in name for name in classes(drawn)[0][:2])
        (sign,) = of_class(read(drawn), "sign", "broken")
        assert sign.text == "×"
        assert "broken" in legend(read(drawn))


def test_each_status_that_is_not_well_has_a_sign_over_its_own_cell() -> None:
    row = [
        cell(status=status)
        for status in (OK, LayerStatus.SUSPECT, OK, LayerStatus.UNDECIDED, LayerStatus.SUSPECT)
    ]
    drawn = heatmap(["a"], list("12345"), [row], HeatScale.ALPHA, "x")
    left, width = moved(next(read(drawn).iter("g")))[0], float(re.findall(r"scale\((\S+) ", drawn)[0])
    (suspect,) = of_class(read(drawn), "sign", "suspect")
    columns = [int((float(x) - left) // width) for x in (suspect.get("x") or "").split()]
    assert (suspect.text, columns) == ("!!", [1, 4])
    (undecided,) = of_class(read(drawn), "sign", "undecided")
    assert undecided.text == "?"
    assert not of_class(read(drawn), "sign", "ok")


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (
            HeatScale.ALPHA,
            ["alpha below 2", "2 to 3", "3 to 4", "4 to 5", "5 to 6", "above 6: little learned"],
        ),
        (
            HeatScale.RELATIVE_CHANGE,
            [
                "unchanged",
                "changed by less than 1 %",
                "less than 5 %",
                "less than 20 %",
                "less than 50 %",
                "50 % or more",
            ],
        ),
        (HeatScale.STATUS, ["ok", "info", "suspect", "broken", "undecided"]),
    ],
)
def test_the_legend_has_words_for_every_colour(scale: HeatScale, words: list[str]) -> None:
    root = read(heatmap(["a"], ["v1"], [[cell(3.5)]], scale, "x"))
    assert legend(root) == words


def test_the_titles_of_changes_are_in_percent() -> None:
    row = [cell(0.0), cell(0.0421), cell(None)]
    root = read(heatmap(["a"], ["v1", "v2", "v3"], [row], HeatScale.RELATIVE_CHANGE, "x"))
    assert titles(root)[-3:] == [
        "a, v1: unchanged, ok",
        "a, v2: changed by 4.2 %, ok",
        "a, v3: not compared, ok",
    ]


def test_cells_link_to_where_they_lead() -> None:
    root = read(heatmap(["a"], ["v1", "v2"], [[cell(href="layer?a=1&b=2"), cell()]], HeatScale.ALPHA, "x"))
    assert [link.get("href") for link in root.iter("a")] == ["layer?a=1&b=2"]


@pytest.mark.parametrize(("layers", "versions"), [(0, 0), (0, 3), (3, 0)])
def test_without_layers_or_versions_there_is_nothing(layers: int, versions: int) -> None:
    cells = [[cell()] * versions] * layers
    assert heatmap(["a"] * layers, ["v"] * versions, cells, HeatScale.ALPHA, "x") == ""


def test_cells_that_do_not_fit_the_names_are_refused() -> None:
    with pytest.raises(ValueError, match="a cell per version"):
        heatmap(["a"], ["v1", "v2"], [[cell()]], HeatScale.ALPHA, "x")


@pytest.mark.parametrize("status", [OK, LayerStatus.BROKEN, LayerStatus.UNDECIDED])
def test_the_largest_heatmap_stays_below_a_megabyte_and_a_half(status: LayerStatus) -> None:
    layers = [
        f"model.layers.{place // 12}.mixture.experts.{place % 12}.down_proj.weight" for place in range(400)
    ]
    versions = [f"2026-{place:02d}-release-candidate-0123456789abcdef" for place in range(60)]
    href = "layer?" + "registry=production&model=fraud-detector&version=2026-07&layer=" + "x" * 60
    cells = [
        [cell(2 + (row * 7 + column) % 50 / 10, status, href) for column in range(60)] for row in range(400)
    ]
    drawn = heatmap(layers, versions, cells, HeatScale.ALPHA, "All layers")
    assert len(drawn) < 1_500_000
    assert [len(row) for row in classes(drawn)] == [60] * 400
    # Every cell has a title, the picture has one too.
    assert len(titles(read(drawn))) == 400 * 60 + 1


def test_where_not_all_can_be_told_in_full_what_is_broken_is() -> None:
    layers, versions = [f"layer.{place}.weight" for place in range(400)], [f"v{place}" for place in range(60)]
    cells = [[cell(3.5, OK, "layer") for _ in versions] for _ in layers]
    cells[390][2] = cell(3.5, LayerStatus.BROKEN, "layer?broken")
    root = read(heatmap(layers, versions, cells, HeatScale.ALPHA, "x"))
    assert "layer.390.weight, v2: alpha 3.50, broken" in titles(root)
    assert "layer?broken" in [link.get("href") for link in root.iter("a")]
    assert "v2 3.5" in titles(root)


@given(st.data())
def test_any_names_and_numbers_are_harmless_and_drawn_the_same_again(data: st.DataObject) -> None:
    layers = data.draw(st.lists(names, min_size=1, max_size=4))
    versions = data.draw(st.lists(names, min_size=1, max_size=4))
    one = st.builds(
        HeatCell,
        st.sampled_from([None, *LayerStatus]),
        st.one_of(st.none(), st.floats()),
        st.one_of(st.none(), st.sampled_from(["layer", 'x"><script>'])),
    )
    cells = [[data.draw(st.one_of(st.none(), one)) for _ in versions] for _ in layers]
    scale = data.draw(st.sampled_from(HeatScale))
    drawn = heatmap(layers, versions, cells, scale, layers[0])
    assert drawn == heatmap(layers, versions, cells, scale, layers[0])
    assert sum(map(len, classes(drawn))) == sum(one is not None for row in cells for one in row)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shortened(name: str) -> None:
    root = read(heatmap([name], [name], [[cell()]], HeatScale.ALPHA, name))
    assert all(len(text) <= 38 for text in texts(root))
    assert all(title.isprintable() and len(title) < 450 for title in titles(root))

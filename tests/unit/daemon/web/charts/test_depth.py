"""Alpha by depth: every layer in its place, whatever it has or lacks."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from drawn import HOSTILE, legend, moved, names, of_class, places, read, texts, titles
from layerwatch.daemon.web.charts.depth import MOST_LAYERS, alpha_by_depth
from layerwatch.daemon.web.charts.model import DepthPoint
from layerwatch.metrics.findings import LayerStatus

NUMBERS = st.one_of(st.none(), st.floats(), st.floats(1.0, 12.0))


def point(name: str = "fc", alpha: float | None = 3.0, **other: Any) -> DepthPoint:
    values: dict[str, Any] = {"status": LayerStatus.OK}
    return DepthPoint(layer=name, alpha=alpha, **(values | other))


def marks(markup: Markup) -> list[tuple[float, float]]:
    """Where the marks are, in the order of the layers."""
    groups = (group for element in of_class(read(markup), "point") for group in element.iter("g"))
    return [moved(group) for group in groups if "transform" in group.attrib]


def test_without_layers_there_is_nothing() -> None:
    assert alpha_by_depth([], "Alpha") == ""


def test_layers_stand_in_order_and_as_high_as_their_alpha() -> None:
    drawn = alpha_by_depth([point("a", 2.0), point("b", 4.0), point("c", 6.0)], "Alpha")
    (x1, y1), (x2, y2), (x3, y3) = marks(drawn)
    assert x1 < x2 < x3
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.2)
    assert y3 < y2 < y1
    # The guides are where layers of these alphas are.
    assert [places(guide)[0][1] for guide in of_class(read(drawn), "guide")] == pytest.approx(
        [y1, y3], abs=0.1
    )
    assert {"2", "6: little learned"} <= set(texts(read(drawn)))


def test_the_title_of_a_layer_has_its_numbers_and_its_status() -> None:
    one = point("fc.weight", 3.214, sigma=0.14, baseline=3.1, baseline_sigma=0.12, status=LayerStatus.BROKEN)
    assert "fc.weight: alpha 3.21 ±0.14 (baseline 3.10 ±0.12), broken" in titles(
        read(alpha_by_depth([one], "Alpha"))
    )


@pytest.mark.parametrize("status", list(LayerStatus))
def test_a_status_is_told_by_shape_class_and_word(status: LayerStatus) -> None:
    root = read(alpha_by_depth([point(status=status)], "Alpha"))
    (mark,) = of_class(root, "mark")
    assert mark.get("class") == f"mark {status.value}"
    assert legend(root) == [status.value]


def test_every_status_has_an_outline_of_its_own_or_is_hollow() -> None:
    outlines = {
        status: of_class(read(alpha_by_depth([point(status=status)], "x")), "mark")[0].get("d")
        for status in LayerStatus
    }
    # A ring and a disc have the same outline: only the disc is filled.
    assert outlines[LayerStatus.OK] == outlines[LayerStatus.INFO]
    assert len(set(outlines.values())) == len(LayerStatus) - 1
    assert len(of_class(read(alpha_by_depth([point(status=LayerStatus.BROKEN)], "x")), "cross")) == 1


def test_the_baseline_is_a_band_around_its_line() -> None:
    layers = [point(str(place), 3.0, baseline=4.0, baseline_sigma=0.5) for place in range(3)]
    root = read(alpha_by_depth(layers, "Alpha"))
    (line,) = of_class(root, "baseline")
    (band,) = of_class(root, "baseline-band")
    heights = sorted({y for _, y in places(band)})
    assert len(heights) == 2
    (middle,) = {y for _, y in places(line)}
    assert middle == pytest.approx(sum(heights) / 2, abs=0.1)
    assert middle < marks(alpha_by_depth(layers, "Alpha"))[0][1]
    assert "baseline ± standard error" in legend(root)


def test_an_error_bar_reaches_from_below_to_above() -> None:
    (bar,) = of_class(
        read(alpha_by_depth([point(alpha=4.0, sigma=1.0), point(alpha=3.0), point(alpha=5.0)], "x")), "error"
    )
    _, low, high = marks(
        alpha_by_depth([point(alpha=4.0, sigma=1.0), point(alpha=3.0), point(alpha=5.0)], "x")
    )
    assert [y for _, y in places(bar)] == pytest.approx([low[1], high[1]], abs=0.1)


@pytest.mark.parametrize("alpha", [None, math.nan, math.inf, -math.inf])
def test_a_layer_without_alpha_is_marked_below_the_axis(alpha: float | None) -> None:
    drawn = alpha_by_depth([point("a", 1.0), point("b", alpha, status=LayerStatus.BROKEN)], "Alpha")
    low, without = marks(drawn)
    assert without[1] > low[1] + 5
    assert "none" in texts(read(drawn))
    assert "b: no alpha, broken" in titles(read(drawn))


def test_a_huge_alpha_stays_at_the_end_of_the_axis_with_an_arrow_and_its_number() -> None:
    layers = [point(str(place), 3.0) for place in range(20)] + [point("huge", 250.0)]
    drawn = alpha_by_depth(layers, "Alpha")
    root = read(drawn)
    assert len(of_class(root, "beyond")) == 1
    assert "huge: alpha 250.00, ok" in titles(root)
    assert "above the axis, up to 250.0" in legend(root)
    top = min(y for _, y in marks(drawn))
    assert marks(drawn)[-1][1] == top
    # Others are not flattened by it.
    assert marks(drawn)[0][1] - top > 50


def test_an_alpha_below_the_axis_has_an_arrow_as_well() -> None:
    assert len(of_class(read(alpha_by_depth([point(alpha=0.2)], "x")), "beyond")) == 1


def test_layers_link_to_where_they_lead() -> None:
    root = read(alpha_by_depth([point("a", href="layer?layer=a&b=1"), point("b")], "Alpha"))
    assert [link.get("href") for link in root.iter("a")] == ["layer?layer=a&b=1"]
    assert next(root.iter("svg")).get("role") == "group"


def test_of_many_links_the_keyboard_stops_at_what_is_not_well() -> None:
    layers = [
        point(str(place), href="layer", status=LayerStatus.BROKEN if place == 70 else LayerStatus.OK)
        for place in range(100)
    ]
    links = list(read(alpha_by_depth(layers, "Alpha")).iter("a"))
    assert [place for place, link in enumerate(links) if link.get("tabindex") is None] == [70]
    assert all(link.get("tabindex") is None for link in read(alpha_by_depth(layers[:20], "x")).iter("a"))


@pytest.mark.parametrize("count", [1, 3, 12, 13, 40, 89, 90, 1000])
def test_any_number_of_layers_stands_side_by_side_inside_the_picture(count: int) -> None:
    drawn = alpha_by_depth(
        [point(f"model.layers.{place}.weight", 2.0 + place % 5) for place in range(count)], "Alpha"
    )
    found = marks(drawn)
    width = float((next(read(drawn).iter("svg")).get("viewBox") or "").split()[2])
    assert len(found) == count
    assert all(0 < x < width for x, _ in found)
    assert all(second[0] - first[0] >= 8.9 for first, second in pairwise(found))


def test_of_a_huge_model_every_layer_that_is_not_well_is_shown_and_the_rest_is_told() -> None:
    statuses = {7: LayerStatus.BROKEN, 20_011: LayerStatus.SUSPECT, 45_999: LayerStatus.UNDECIDED}
    layers = [
        point(f"fc{place}", status=statuses.get(place, LayerStatus.INFO if place % 2 else LayerStatus.OK))
        for place in range(46_000)
    ]

    drawn = alpha_by_depth(layers, "Alpha")

    told = titles(read(drawn))
    shown = [int(title.split(":")[0].removeprefix("fc")) for title in told if title.startswith("fc")]
    assert len(shown) == MOST_LAYERS
    assert shown == sorted(shown)
    assert set(statuses) <= set(shown)
    assert max(second - first for first, second in pairwise(shown)) <= 46_000 // MOST_LAYERS + 2
    assert "2,000 of 46,000 layers: those that are not well, and others at equal distances." in drawn
    assert "46000 layers:" in drawn


def test_of_a_huge_model_that_is_broken_throughout_the_worst_are_shown() -> None:
    layers = [
        point(str(place), status=LayerStatus.BROKEN if place >= 3000 else LayerStatus.UNDECIDED)
        for place in range(3000 + MOST_LAYERS)
    ]
    drawn = read(alpha_by_depth(layers, "Alpha"))
    assert len(of_class(drawn, "point")) == MOST_LAYERS
    assert all(title.endswith("broken") for title in titles(drawn) if ": alpha" in title)


def test_names_are_thinned_out_so_that_none_covers_another() -> None:
    root = read(alpha_by_depth([point(f"layer.{place}") for place in range(1000)], "Alpha"))
    at = [float(name.get("x") or 0) for name in of_class(root, "name")]
    assert 100 < len(at) < 1000
    assert all(second - first >= 12 for first, second in pairwise(at))


def test_few_short_names_are_written_level() -> None:
    root = read(alpha_by_depth([point("conv1"), point("fc")], "Alpha"))
    assert [(name.text, name.get("transform")) for name in of_class(root, "name")] == [
        ("conv1", None),
        ("fc", None),
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_layer_of_any_name_is_harmless_and_shortened(name: str) -> None:
    root = read(alpha_by_depth([point(name), point("other")], name))
    for shown in of_class(root, "name"):
        assert len(shown.text or "") <= 28
    assert all(len(title) <= 450 and title.isprintable() for title in titles(root))


@given(
    st.lists(
        st.builds(DepthPoint, names, st.sampled_from(LayerStatus), NUMBERS, NUMBERS, NUMBERS, NUMBERS),
        min_size=1,
        max_size=8,
    )
)
def test_any_numbers_are_drawn_inside_the_picture_and_the_same_again(points: list[DepthPoint]) -> None:
    drawn = alpha_by_depth(points, "Alpha")
    assert drawn == alpha_by_depth(points, "Alpha")
    _, _, width, height = (
        float(number) for number in (next(read(drawn).iter("svg")).get("viewBox") or "").split()
    )
    assert all(0 <= x <= width and 0 <= y <= height for x, y in marks(drawn))
    assert not re.search(r"nan|inf\b", str([element.get("d") for element in read(drawn).iter("path")]))

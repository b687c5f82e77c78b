"""Elements, labels and frames: what comes from strangers is harmless, and equal pictures are equal text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from drawn import HOSTILE, names, read, titles
from layerwatch.daemon.web.charts.drawing import (
    columns,
    figure,
    labels,
    linked,
    picture,
    scrolling,
    shortened,
    tag,
    told,
    units,
)


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    drawn = tag("text", "<b>", Markup("<i/>"), href="\"'<&", class_="a", text_anchor="end", x=None)
    assert str(drawn) == '<text href="&#34;&#39;&lt;&amp;" class="a" text-anchor="end">&lt;b&gt;<i/></text>'


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (3.14159, "3.1"), (-0.04, "0"), (-2.5, "-2.5"), (100.0, "100")]
)
def test_coordinates_have_a_tenth_at_most(value: float, text: str) -> None:
    assert units(value) == text


@given(names, st.integers(3, 40))
def test_a_shortened_name_is_one_line_that_fits(name: str, width: int) -> None:
    label = shortened(name, width)
    assert 0 < columns(label) <= width
    assert label.isprintable()


def test_a_long_name_is_cut_in_its_middle() -> None:
    assert shortened("encoder.attention.query.weight", 13) == "encode…weight"


def test_a_name_of_wide_characters_takes_as_many_columns_as_it_shows() -> None:
    assert shortened("漢字漢字漢字", 8) == "漢字…字"


def test_an_ending_that_all_share_is_left_out() -> None:
    assert labels(["fc1.weight", "fc2.weight"], 30) == ["fc1", "fc2"]


def test_an_ending_that_one_does_not_share_stays() -> None:
    assert labels(["fc1.weight", "fc2.bias"], 30) == ["fc1.weight", "fc2.bias"]
    assert labels(["fc1", "fc2"], 30) == ["fc1", "fc2"]


def test_the_only_name_is_whole() -> None:
    assert labels(["fc1.weight"], 30) == ["fc1.weight"]


def test_the_number_of_a_block_is_never_cut_out() -> None:
    blocks = [f"model.decoder.layers.{block}.self_attn.q_proj.weight" for block in range(32)]
    shown = labels(blocks, 28)
    assert len(set(shown)) == len(blocks)
    assert shown[31] == "model.de…31.self_attn.q_proj"


@given(st.lists(names, max_size=5), st.integers(10, 40))
def test_labels_fit_whatever_the_names_are(layers: list[str], width: int) -> None:
    for label in labels(layers, width):
        assert 0 < columns(label) <= width
        assert label.isprintable()


@given(names)
def test_a_picture_of_any_title_is_one_image_named_by_it(title: str) -> None:
    (image,) = read(picture(10, 20, title, title, [], css="x"))
    assert image.get("role") == "img"
    ids = {child.get("id"): child for child in image}
    assert (image.get("aria-labelledby") or "").split() == list(ids)
    assert (image[0].text or "").isprintable() and image[0].text


def test_equal_pictures_are_equal_and_others_have_other_ids() -> None:
    one, again, other = (picture(10, 20, name, "", [], css="x") for name in ("a", "a", "b"))
    assert one == again
    assert read(one)[0][0].get("id") != read(other)[0][0].get("id")


def test_a_picture_with_links_is_a_group_so_that_they_are_told() -> None:
    (image,) = read(picture(1, 1, "a", "b", [linked("layer?x=1&y=2", css="point")], css="x", has_links=True))
    assert image.get("role") == "group"
    (link,) = image.iter("a")
    assert link.get("href") == "layer?x=1&y=2"


def test_what_leads_nowhere_is_no_link() -> None:
    assert read(linked(None, css="point"))[0].tag == "g"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_box_for_wide_pictures_can_be_reached_and_has_a_name(name: str) -> None:
    (box,) = read(scrolling(Markup(""), name))
    assert (box.get("tabindex"), box.get("role")) == ("0", "region")
    assert box.get("aria-label")


def test_a_figure_without_legend_has_none() -> None:
    assert [child.tag for child in read(figure(tag("svg")))[0]] == ["svg"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_title_of_a_name_is_short_and_printable(name: str) -> None:
    (title,) = titles(read(tag("title", told(name))))
    assert 0 < len(title) <= 120
    assert title.isprintable()

"""File names of layers whose own names may be anything."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.plots.filenames import layer_file_name


@given(st.text(max_size=300), st.integers(1, 2000))
def test_a_name_is_one_plain_component_of_a_path(name: str, position: int) -> None:
    file = layer_file_name(position, 2000, name, "png")

    assert re.fullmatch(r"layer_\d{4}_[A-Za-z0-9._-]+\.png", file)
    assert len(file) <= 100


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("features.0.conv", "layer_007_features.0.conv.svg"),
        ("../../etc/passwd", "layer_007_etc_passwd.svg"),
        ("a/b\\c:d", "layer_007_a_b_c_d.svg"),
        ("..", "layer_007_unnamed.svg"),
        ("\udcff\udcfe", "layer_007_unnamed.svg"),
        ("", "layer_007_unnamed.svg"),
        ("nul\0byte", "layer_007_nul_byte.svg"),
    ],
    ids=ascii,
)
def test_what_a_file_system_or_shell_could_misread_is_left_out(name: str, file: str) -> None:
    assert layer_file_name(7, 20, name, "svg") == file


def test_names_that_look_alike_stay_apart_and_sort_by_depth() -> None:
    names = ["a/b", "a_b", "A_B", "a:b", "x" * 400, "x" * 401] * 300
    files = [layer_file_name(at, len(names), name, "png") for at, name in enumerate(names, start=1)]

    assert len({file.lower() for file in files}) == len(files)
    assert sorted(files) == files

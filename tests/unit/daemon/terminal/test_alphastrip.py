"""Alpha by depth as a few lines of text."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from layerwatch.daemon.terminal.alphastrip import alpha_strip
from layerwatch.daemon.terminal.screen import Screen
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import LayerMetrics, LayerPart
from layerwatch_testing.reportlayers import report_layer


def screen(width: int = 80, encoding: str = "utf-8") -> Screen:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Screen.of(Console(width=width, file=file, no_color=True))


def drawn(*layers: LayerPart, width: int = 80, encoding: str = "utf-8") -> list[str]:
    return [line.plain for line in alpha_strip(layers, screen(width, encoding))]


def without_numbers(name: str) -> LayerPart:
    return report_layer(name).model_copy(update={"metrics": LayerMetrics()})


def test_a_bar_is_an_eighth_of_a_line_for_every_quarter_of_alpha_and_guides_lie_at_2_and_6() -> None:
    layers = [report_layer(f"l{i}", alpha) for i, alpha in enumerate([1.25, 2.0, 3.0, 4.0, 6.5, 30.0])]

    assert drawn(*layers) == [
        "alpha by depth, 6 layers",
        " 8 │               ██ ",
        " 6 │┄┄┄┄┄┄┄┄┄┄┄┄▆▆┄██┄",
        " 4 │         ▄▄ ██ ██ ",
        " 2 │▁▁┄▄▄┄██┄██┄██┄██┄",
        "    1 l0          6 l5",
        "    below 2: 1   2 to 4: 3   above 6: 2 (up to 30.0)",
    ]


def test_every_status_has_a_sign_besides_its_colour() -> None:
    found = drawn(
        report_layer("a", 3.0, status=LayerStatus.BROKEN),
        report_layer("b", 3.0, status=LayerStatus.SUSPECT),
        report_layer("c", 3.0, status=LayerStatus.UNDECIDED),
        report_layer("d", 3.0, fit="poor_fit"),
        without_numbers("e"),
    )

    assert found[4] == " 2 │██┄██┄██┄░░┄┄┄┄"
    assert found[5] == "    ×  !  ?     ·"
    assert found[7] == ("    2 to 4: 3   ░ fit not ok: 1   × broken: 1   ! suspect: 1   ? undecided: 1")
    assert found[8] == "    · no alpha: 1"


def test_where_the_encoding_has_no_blocks_everything_is_ascii() -> None:
    layers = [
        report_layer("a", 6.5, status=LayerStatus.BROKEN),
        report_layer("b" * 200, 3.0, fit="poor_fit"),
        without_numbers("c"),
    ]

    found = drawn(*layers, encoding="ascii")

    assert "\n".join(found).isascii()
    assert found[2:6] == [" 6 |::-------", " 4 |##       ", " 2 |##-%%----", "    x     o"]


@pytest.mark.parametrize("count", [1, 2, 24, 37, 40, 76, 77, 300, 1000])
@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_each_of_hundreds_of_layers_has_its_bar_and_no_line_is_too_long(count: int, width: int) -> None:
    layers = [report_layer(f"layers.{number}.mlp.up_proj", 3.0) for number in range(count)]

    found = drawn(*layers, width=width)

    assert max(map(len, found)) <= max(width, len("alpha by depth, 1000 layers"))
    bottoms = [line for line in found if line.startswith(" 2 │")]
    bars = sum(line.count("█") for line in bottoms)
    # Few layers have bars of two cells, some a gap of one cell between them.
    assert bars == count * (2 if 3 * count <= min(width, 100) - 4 else 1)
    # The strips of many layers are of about the same length.
    assert max(map(len, bottoms)) - min(map(len, bottoms)) <= len(bottoms)


def test_the_first_and_the_last_layer_of_each_strip_are_named_with_their_place() -> None:
    found = drawn(*(report_layer(f"layers.{number}.up", 3.0) for number in range(150)), width=80)

    names = [line.split() for line in found if " layers." in line]
    assert names == [
        ["1", "layers.0.up", "75", "layers.74.up"],
        ["76", "layers.75.up", "150", "layers.149.up"],
    ]


def test_vectors_and_missing_layers_have_no_bar() -> None:
    vector = report_layer("bias").model_copy(update={"shape": (8,)})
    missing = report_layer("gone", kind="missing")

    assert drawn(vector, missing) == []
    assert drawn(vector, report_layer("fc"), missing)[0] == "alpha by depth, 1 layer"


@settings(max_examples=40)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=5), st.integers(30, 120))
def test_hostile_names_stay_one_line_of_printable_text(names: list[str], width: int) -> None:
    for line in drawn(*map(report_layer, names), width=width):
        assert line.isprintable()

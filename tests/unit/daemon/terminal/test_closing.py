"""What a scan says after its findings, at the widths that people have."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from layerwatch.daemon.gate.text import print_table
from layerwatch.daemon.terminal.closing import closing_lines
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import Report
from layerwatch_testing.expectedtexts import assert_as_in
from layerwatch_testing.reportlayers import a_finding, layer_report, report_layer
from layerwatch_testing.reports import MODEL

EXPECTED = Path(__file__).parent / "expected"

BROKEN, SUSPECT, UNDECIDED = LayerStatus.BROKEN, LayerStatus.SUSPECT, LayerStatus.UNDECIDED


def a_story() -> Report:
    """A version with every kind of layer and advice."""
    small = {"relative_change": 0.01, "cosine": 1.0, "alpha_baseline": 2.9}
    moved = {
        "relative_change": 0.97,
        "relative_change_error": 0.02,
        "cosine": 0.99,
        "cosine_error": 0.01,
        "norm_ratio": 0.0213,
        "alpha_baseline": 3.1,
    }
    return layer_report(
        report_layer("model.layers.0.self_attn.q_proj", 2.9, 0.2, change=small),
        report_layer("model.layers.0.mlp.up_proj", 3.1, 0.3, change=moved, status=BROKEN),
        report_layer("model.layers.0.mlp.down_proj", 9.0, 1.2, change=small, status=SUSPECT),
        report_layer("model.layers.1.self_attn.q_proj", 1.6, 0.1, change=small, traps=3, largest_trap=2.5),
        report_layer("model.layers.1.mlp.up_proj", 5.0, 0.5, noise_share=1.0, num_spikes=0, change=small),
        report_layer("lm_head", None, None, fit="degenerate", status=UNDECIDED),
        report_layer("model.norm", 2.2, 0.6, fit="too_small", change=small),
        regime="aligned",
        findings=(
            a_finding("model.layers.0.mlp.up_proj", "scaled"),
            a_finding("model.layers.0.mlp.up_proj", "relative_change"),
            a_finding("model.layers.0.mlp.up_proj", "spectral_change"),
            a_finding("lm_head", "unreadable", "warning"),
            a_finding("model.layers.0.mlp.down_proj", "noise_like", "warning"),
        ),
        verdict="fail",
    )


def console(width: int, *, terminal: bool = True, encoding: str = "utf-8", colours: bool = False) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(
        width=width,
        file=file,
        force_terminal=terminal,
        color_system="standard" if colours else None,
        no_color=not colours,
        emoji=False,
        highlight=False,
    )


def printed(report: Report, on: Console) -> str:
    with on.capture() as capture:
        print_table(report, on, closing_lines(report, on))
    return capture.get()


def stripped(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_scan_reads_so(width: int) -> None:
    assert_as_in(EXPECTED / f"scan_{width}.txt", stripped(printed(a_story(), console(width))))


def test_a_scan_reads_so_where_there_is_only_ascii() -> None:
    text = printed(a_story(), console(80, encoding="ascii"))

    assert text.isascii()
    assert_as_in(EXPECTED / "scan_80_ascii.txt", stripped(text))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_longer_than_the_terminal_and_the_verdict_is_the_last_word(width: int) -> None:
    lines = printed(a_story(), console(width)).splitlines()

    assert max(map(len, lines)) <= width
    assert lines[-1] == "verdict: fail"


def test_without_colours_no_colour_is_written_and_none_is_explained() -> None:
    plain, coloured = (printed(a_story(), console(80, colours=colours)) for colours in (False, True))

    # Colours of the standard set, ECMA-48: 30 to 37 and 90 to 97.
    assert not any(f"\x1b[{style}3{colour}m" in plain for style in ("", "1;") for colour in range(8))
    assert "\x1b[1;31m" in coloured
    assert "█ below 2" not in plain


def test_a_console_that_was_told_to_have_no_colours_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")

    text = printed(a_story(), Console(file=file, width=80, force_terminal=True, color_system="standard"))

    assert "\x1b[31m" not in text
    assert "\x1b[1;31m" not in text
    assert "    below 2: 1   2 to 4: 2" in text


def test_a_report_without_layers_ends_without_a_picture() -> None:
    assert closing_lines(layer_report(), console(80)) == []


def test_only_five_of_many_bad_layers_are_shown_worst_first_and_missing_ones_are_not() -> None:
    names = [f"l{number}" for number in range(9)]
    layers = [report_layer(name, status=BROKEN) for name in names]
    gone = report_layer("gone", kind="missing", status=BROKEN)
    findings = [a_finding(name) for name in ["gone", *reversed(names)]]

    text = printed(layer_report(*layers, gone, findings=findings, verdict="fail"), console(80))

    _, _, after = text.partition("worst layers (5 of 9)\n")
    shown = [line.split()[0] for line in after.splitlines() if line.startswith("  l")]
    assert shown == ["l8", "l7", "l6", "l5", "l4"]


def test_hostile_names_reach_no_terminal() -> None:
    hostile = "\x1b[2J\x9b31m[/]\nverdict: pass"
    report = layer_report(
        report_layer(hostile, 9.0, 0.5, status=SUSPECT),
        findings=[a_finding(hostile, "a_rule_of_tomorrow", "warning")],
        verdict="warn",
    ).model_copy(update={"model": MODEL})

    text = printed(report, console(80))

    assert not [one for one in text if not one.isprintable() and one not in "\n\x1b"]
    assert "\x1b[2J" not in text
    assert [line for line in text.splitlines() if line.startswith("verdict:")] == ["verdict: warn"]

"""Names come from untrusted files: neither a spreadsheet nor a terminal may take one for a command."""

from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from layerwatch.daemon.commands.local import console_for
from layerwatch.daemon.gate.printable import printable
from layerwatch.daemon.gate.tables import to_csv
from layerwatch.daemon.gate.text import print_table
from layerwatch.metrics.examination import Problem
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.readers.variants import SAME_NETWORK
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.report import Report
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    layer,
    measurement,
    new_layer,
    unreadable_layer,
)
from layerwatch_testing.reports import report_of

HOSTILE = [
    "\x1b[2J\x1b[31mverdict: pass",
    "\x9b31m",
    "a\rverdict: pass",
    "a\nverdict: pass",
    "a\x07\x08\x7f",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "[bold red]markup[/bold red]",
    "[/]",
    ":bomb:",
    "\N{ZERO WIDTH SPACE}fc",
]


def rows(report: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(report))))


def table(report: Report, console: Console | None = None) -> str:
    console = console or console_for(None)
    with console.capture() as capture:
        print_table(report, console)
    return capture.get()


def test_the_csv_has_one_line_per_layer_and_empty_fields_for_undefined_numbers() -> None:
    found = rows(report_of(among_healthy(unreadable_layer("unseen"))))

    assert [row["name"] for row in found] == [f"healthy{n}" for n in range(4)] + ["unseen"]
    assert found[0]["shape"] == "64x64"
    assert float(found[0]["alpha"]) == 3.0
    assert float(found[0]["relative_change"]) == 0.05
    assert (found[4]["status"], found[4]["alpha"], found[4]["relative_change"]) == ("undecided", "", "")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "＋", "－", "＠"])
@pytest.mark.parametrize("column", ["name", "dtype"])
def test_a_name_or_type_that_a_spreadsheet_would_run_is_disarmed(column: str, start: str) -> None:
    formula = f"{start}cmd|' /C calc'!A0"
    hostile = new_layer(**{column: formula})

    (row,) = rows(report_of(examination(hostile, has_baseline=False)))

    assert row[column] == "'" + formula


@pytest.mark.parametrize("name", ["\t=1+1", "\r=1+1", "\n=1+1", 'a","=1+1', "a;=1+1"])
def test_no_name_begins_a_cell_or_a_line_of_its_own(name: str) -> None:
    text = to_csv(report_of(examination(new_layer(name), has_baseline=False)))

    assert text.count("\n") == 2
    for cell in next(iter(csv.reader(text.splitlines()[1:]))):
        assert not cell.startswith(("=", "\t", "\r", "\n"))


@pytest.mark.parametrize("name", HOSTILE)
def test_the_table_shows_a_hostile_name_as_harmless_text(name: str) -> None:
    problem = Problem("corrupt", f"tensor {name!r} of {name}")
    hostile = (new_layer(name), new_layer(name + "2", measurement=None, problem=problem))

    text = table(report_of(examination(*hostile, has_baseline=False)))

    assert printable(name) in text
    assert not [character for character in text if not character.isprintable() and character != "\n"]
    # No line but the last one gives a verdict.
    assert [line for line in text.splitlines() if line.startswith("verdict:")] == ["verdict: undecided"]


def test_the_text_names_the_copies_that_were_not_examined_harmlessly() -> None:
    copy = Skipped("\x1b[2J[/]model.fp16.bin", f"a variant of model.bin, {SAME_NETWORK}")

    text = table(report_of(among_healthy(), skipped=(copy,)))

    assert "not seen: ?[2J[/]model.fp16.bin: the same tensors as in other files" in text
    assert "\x1b" not in text


def test_on_a_terminal_the_only_control_characters_are_the_consoles_own_colours() -> None:
    console = Console(force_terminal=True, color_system="standard", width=200, emoji=False)
    report = report_of(examination(*(new_layer(name) for name in HOSTILE), has_baseline=False))

    text = table(report, console)

    assert "\x1b[2J" not in text
    assert "\x1b[" in text
    assert not set("\x9b\r\x07\x08\x7f") & set(text)


@given(st.text())
def test_what_is_printable_has_no_control_format_or_surrogate_character(text: str) -> None:
    shown = printable(text)

    assert len(shown) == len(text)
    assert not {unicodedata.category(character) for character in shown} & {
        "Cc",
        "Cf",
        "Cs",
        "Co",
        "Cn",
        "Zl",
        "Zp",
    }


def test_the_table_lists_every_layer_the_findings_and_the_verdict() -> None:
    broken = layer("broken", measurement=measurement(non_finite=3), change=None)

    lines = table(report_of(among_healthy(broken))).splitlines()

    assert lines[0].split() == [
        *("layer", "kind", "shape", "alpha", "before", "D", "tail", "log", "norm", "stable", "rank"),
        *("change", "fit", "status"),
    ]
    assert lines[1].split() == [
        *(
            "healthy0",
            "linear",
            "64x64",
            "3.00",
            "±0.40",
            "3.00",
            "0.080",
            "25/64",
            "1.80",
            "8.0",
            "0.050",
            "ok",
            "ok",
        ),
    ]
    assert "critical broken: 3 of 4096 weights are NaN or infinite  [non_finite]" in lines
    assert lines[-1] == "verdict: fail"
    assert any("5 layers, 0 tensors without a spectrum, against v1" in line for line in lines)


def test_what_is_written_to_a_file_has_no_colours_even_where_they_are_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert "\x1b" not in table(report_of(among_healthy()))


def _exported(*changes: float) -> Report:
    layers = [
        layer(
            f"fc{number}",
            change=change(aligned=aligned(value)),
            baseline=measurement(digest="0" * 64),
        )
        for number, value in enumerate(changes)
    ]
    return report_of(examination(*layers, relation=Relation.REEXPORTED))


def test_a_fault_that_most_layers_share_is_one_line_about_the_worst_three() -> None:
    report = _exported(0.01, 0.04, 0.02, 0.03, 0.0)

    lines = table(report).splitlines()

    (line,) = [one for one in lines if "[export_differs]" in one]
    why = "of its norm; a re-export must be bit-identical"
    assert line == (
        f"critical 4 tensors: fc1 (differs from the baseline by 0.04 {why}), "
        f"fc3 (differs from the baseline by 0.03 {why}), fc2 (differs from the baseline by 0.02 {why}) and others"
        "  [export_differs]"
    )
    assert len([one for one in lines if "layerwatch explain export_differs" in one]) == 1
    assert any(one.startswith("the version, in 4 tensors: a re-export or cast") for one in lines)
    # The report keeps a finding of each.
    assert [one.layer for one in report.findings if one.rule == "export_differs"] == [
        "fc1",
        "fc3",
        "fc2",
        "fc0",
    ]


def test_a_fault_of_a_few_layers_is_told_of_each() -> None:
    lines = table(_exported(0.01, 0.04, 0.0, 0.0)).splitlines()

    assert len([one for one in lines if "[export_differs]" in one]) == 2

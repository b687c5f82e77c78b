"""The words: verdict beside truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from layerwatch.daemon.demo.narration import Agreement, Judged, agreement, row, rows, summary, table
from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.daemon.demo.story import MLP, STORIES
from layerwatch.metrics.findings import Verdict

STEPS = {step.version: step for step in STORIES[0].steps}
HEALTHY = PreparedVersion(MLP, "v4", STEPS["v4"], 0.97, 0.975, Path("unused"))
BROKEN = PreparedVersion(MLP, "v5", STEPS["v5"], 0.10, 0.975, Path("unused"))
FIRST = PreparedVersion(MLP, "v1", STEPS["v1"], 0.97, None, Path("unused"))


@pytest.mark.parametrize(
    ("prepared", "judged", "expected"),
    [
        (HEALTHY, None, Agreement.WAITING),
        (HEALTHY, Judged(Verdict.PASS), Agreement.AGREES),
        (HEALTHY, Judged(Verdict.WARN), Agreement.FALSE_ALARM),
        (HEALTHY, Judged(Verdict.FAIL, "fc2"), Agreement.FALSE_ALARM),
        (HEALTHY, Judged(Verdict.UNDECIDED), Agreement.UNDECIDED),
        (BROKEN, Judged(Verdict.FAIL, "fc2"), Agreement.AGREES),
        (BROKEN, Judged(Verdict.FAIL, "fc3"), Agreement.WRONG_LAYER),
        (BROKEN, Judged(Verdict.FAIL), Agreement.WRONG_LAYER),
        (BROKEN, Judged(Verdict.WARN, "fc2"), Agreement.MISSED),
        (BROKEN, Judged(Verdict.PASS), Agreement.MISSED),
        (BROKEN, Judged(Verdict.UNDECIDED), Agreement.UNDECIDED),
        (FIRST, Judged(Verdict.PASS), Agreement.AGREES),
    ],
)
def test_a_verdict_agrees_only_when_it_says_what_the_test_images_say(
    prepared: PreparedVersion, judged: Judged | None, expected: Agreement
) -> None:
    assert agreement(prepared, judged) is expected


def test_the_truth_is_the_measured_accuracy_and_not_what_the_story_expects() -> None:
    harmless = PreparedVersion(MLP, "v5", STEPS["v5"], 0.97, 0.975, Path("unused"))
    assert agreement(harmless, Judged(Verdict.PASS)) is Agreement.AGREES
    assert agreement(harmless, Judged(Verdict.FAIL, "fc2")) is Agreement.FALSE_ALARM


def test_exactly_five_points_are_not_yet_broken() -> None:
    assert not PreparedVersion(MLP, "v5", STEPS["v5"], 0.5, 0.55 - 1e-9, Path("unused")).is_broken
    assert PreparedVersion(MLP, "v5", STEPS["v5"], 0.5, 0.5501, Path("unused")).is_broken


def test_a_row_names_the_layer_and_the_points_lost() -> None:
    told = row(BROKEN, Judged(Verdict.FAIL, "fc2"))
    assert (told.accuracy, told.verdict) == ("10.0% (-87.5 points)", "fail (fc2)")


def test_a_version_that_is_not_judged_yet_is_shown_as_waiting() -> None:
    told = row(HEALTHY, None)
    assert (told.accuracy, told.verdict, told.agreement) == ("97.0%", "...", Agreement.WAITING)


def test_rows_ask_the_judge_for_each_version_by_model_and_name() -> None:
    answers = {(MLP, "v4"): Judged(Verdict.PASS), (MLP, "v5"): None}
    told = rows([HEALTHY, BROKEN], lambda model, version: answers[model, version])
    assert [one.verdict for one in told] == ["pass", "..."]


def test_the_table_shows_every_row_without_reading_markup_in_it() -> None:
    console = Console(width=160)
    told = [row(HEALTHY, Judged(Verdict.PASS)), row(BROKEN, Judged(Verdict.FAIL, "[red]fc2[/red]"))]
    with console.capture() as captured:
        console.print(table(told))
    text = captured.get()
    assert "97.0%" in text
    assert "fail ([red]fc2[/red])" in text


def test_the_summary_counts_and_names_what_disagrees() -> None:
    told = [row(HEALTHY, Judged(Verdict.PASS)), row(BROKEN, Judged(Verdict.PASS))]
    assert summary(told) == "1 of 2 verdicts agree with the test accuracy; digits-mlp v5: missed"
    assert summary(told[:1]) == "1 of 1 verdicts agree with the test accuracy"

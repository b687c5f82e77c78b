"""The ignore file: every mistake with its line, and nothing ignored for ever."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.config.errors import ConfigError
from layerwatch.daemon.gate.ignorefile import IgnoreEntry, read_ignore_file
from layerwatch.daemon.gate.ignoring import EXPIRES_SOON, ignore
from layerwatch.metrics.report import FindingPart, Report
from layerwatch_testing.examinations import among_healthy
from layerwatch_testing.gating import TODAY, broken, entry, reshaped
from layerwatch_testing.reports import MODEL, report_of

GOOD = """\
ignore:
  - rule: non_finite
    layer: "decoder.*.bias"
    model: fraud-*
    reason: never used at inference,
      see ticket 12
    expires: 2027-01-31
  - {rule: zero_rows, reason: padding, expires: 2027-02-28}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "ignore.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_ignore_file(written(folder, text), TODAY)
    return [f"{one.line}: {one.path}: {one.message}" for one in caught.value.problems]


def test_entries_are_read_with_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)

    found = read_ignore_file(path, TODAY)

    assert found.entries == (
        IgnoreEntry(
            rule="non_finite",
            layer="decoder.*.bias",
            model="fraud-*",
            reason="never used at inference, see ticket 12",
            expires=date(2027, 1, 31),
            line=2,
        ),
        IgnoreEntry("zero_rows", None, None, "padding", date(2027, 2, 28), 8),
    )
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("text", ["", "ignore:\n", "ignore: []\n", "# nothing yet\n"])
def test_a_file_without_entries_ignores_nothing(tmp_path: Path, text: str) -> None:
    assert read_ignore_file(written(tmp_path, text), TODAY).entries == ()


def test_reason_and_expiry_are_required_and_unknown_keys_are_mistakes_all_told_at_once(
    tmp_path: Path,
) -> None:
    text = """\
ignore:
  - rule: non_finite
    layers: fc
  - rule: zero_row
    reason: " "
    expires: soon
  - rule: zero_rows
    reason: 7
    expires: 2027-02-30
"""
    assert problems(tmp_path, text) == [
        "2: ignore[0].reason: is missing",
        "2: ignore[0].expires: is missing",
        '3: ignore[0].layers: unknown key, did you mean "layer"?',
        '4: ignore[1].rule: there is no rule "zero_row"; did you mean "zero_rows"?',
        "5: ignore[1].reason: must not be empty",
        "6: ignore[1].expires: must be a day such as 2027-01-31",
        "8: ignore[2].reason: must be text, not a number; put it in quotes",
        "9: ignore[2].expires: there is no such day",
    ]


@pytest.mark.parametrize("day", ["2027-11-24", "2028-01-01", "2999-12-31", "9999-12-31"])
def test_nothing_is_accepted_for_more_than_a_year(tmp_path: Path, day: str) -> None:
    assert date.fromisoformat("2027-11-23") - TODAY == timedelta(days=366)
    text = "ignore:\n  - rule: non_finite\n    reason: x\n    expires: {}\n"

    assert problems(tmp_path, text.format(day)) == [
        "4: ignore[0].expires: must be at most 366 days ahead, 2027-11-23 or earlier; renew the entry then"
    ]
    (entry,) = read_ignore_file(written(tmp_path, text.format("2027-11-23")), TODAY).entries
    assert entry.expires == date(2027, 11, 23)


@pytest.mark.parametrize("blank", ["\u200b", "\u2060\u200d", "\u3164", "\u2800", "...", "-", "\u202e"])
def test_a_reason_that_says_nothing_is_none(tmp_path: Path, blank: str) -> None:
    text = f'ignore:\n  - rule: non_finite\n    reason: "{blank}"\n    expires: 2027-01-01\n'

    (problem,) = problems(tmp_path, text)

    assert problem.startswith("3: ignore[0].reason: must ")


def test_a_reason_may_be_in_any_script(tmp_path: Path) -> None:
    text = 'ignore: [{rule: non_finite, reason: "既知", expires: 2027-01-01}]\n'

    (entry,) = read_ignore_file(written(tmp_path, text), TODAY).entries
    assert entry.reason == "既知"


def test_what_was_not_examined_cannot_be_ignored(tmp_path: Path) -> None:
    text = "ignore: [{rule: unreadable, reason: x, expires: 2027-01-01}]\n"

    (problem,) = problems(tmp_path, text)
    assert problem.startswith("1: ignore[0].rule: unreadable says that something was not examined")
    assert "--allow-undecided" in problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "- rule: non_finite\n",
            "1: : must hold ignore: and a list of entries below it, not a single value or list",
        ),
        ("ignore: {rule: non_finite}\n", "1: ignore: must be a list, not a group of keys"),
        ("ignroe: []\n", '1: ignroe: unknown key, did you mean "ignore"?'),
        ("ignore: [\n", "2: : is not valid YAML: expected the node content, but found '<stream end>'"),
        ("a: 1\n---\nb: 2\n", "2: : holds a second document (---); an ignore file is one document"),
    ],
)
def test_a_file_of_another_form_is_told_what_it_must_be(tmp_path: Path, text: str, told: str) -> None:
    assert problems(tmp_path, text) == [told]


def test_a_missing_file_is_told_what_one_looks_like(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; an ignore file holds ignore: and a list"):
        read_ignore_file(tmp_path / "none.yaml", TODAY)


def reported() -> Report:
    return report_of(among_healthy(broken("enc.fc"), broken("dec.fc"), reshaped("head")))


def suppressed(report: Report, *entries: IgnoreEntry, today: date = TODAY) -> list[tuple[str, str | None]]:
    found = ignore(report, entries, today).findings
    return sorted((one.rule, one.layer) for one in found if one.suppressed is not None)


def test_an_entry_suppresses_its_rule_in_the_layers_it_names() -> None:
    assert suppressed(reported(), entry(layer="enc.*")) == [("non_finite", "enc.fc")]
    assert suppressed(reported(), entry()) == [("non_finite", "dec.fc"), ("non_finite", "enc.fc")]
    assert suppressed(reported(), entry(layer="*", rule="structure_changed")) == [
        ("structure_changed", "head")
    ]


def test_the_findings_stay_in_their_order_with_the_reason_of_the_first_entry_that_matches() -> None:
    report = reported()

    found = ignore(report, (entry(layer="enc.*", reason="first"), entry(reason="second")), TODAY).findings

    assert [one.model_copy(update={"suppressed": None}) for one in found] == list(report.findings)
    reasons = {one.layer: one.suppressed.reason for one in found if one.suppressed is not None}
    assert reasons == {"enc.fc": "first", "dec.fc": "second"}


def test_a_finding_about_the_version_is_only_met_by_an_entry_without_a_layer() -> None:
    whole = FindingPart(rule="non_finite", severity="critical", layer=None, message="m", evidence={})
    report = reported().model_copy(update={"findings": (whole,)})

    assert suppressed(report, entry(layer="*")) == []
    assert suppressed(report, entry()) == [("non_finite", None)]


@pytest.mark.parametrize(
    ("pattern", "is_about"), [("v2", True), ("models/*", True), ("V2", False), ("fraud-*", False)]
)
def test_a_model_pattern_fits_the_name_or_the_source(pattern: str, is_about: bool) -> None:
    assert (MODEL.name, MODEL.source) == ("v2", "models/v2.safetensors")

    answer = ignore(reported(), (entry(model=pattern), entry(model=pattern, layer="gone")), TODAY)

    assert any(one.suppressed is not None for one in answer.findings) == is_about
    # An entry about another model is no stale one: it may have its findings there.
    assert len(answer.stale) == is_about


@given(st.integers(-40, 40))
def test_an_entry_is_in_force_through_its_last_day_and_warned_about_before(days: int) -> None:
    one = entry(expires=TODAY + timedelta(days=days))

    answer = ignore(reported(), (one,), TODAY)

    in_force = days >= 0
    assert any(found.suppressed is not None for found in answer.findings) == in_force
    assert answer.expired == (() if in_force else (one,))
    assert answer.expiring == ((one,) if in_force and timedelta(days=days) <= EXPIRES_SOON else ())
    assert answer.stale == ()


def test_an_entry_that_matches_nothing_is_stale() -> None:
    gone = entry(layer="gone")

    assert ignore(reported(), (entry(), gone), TODAY).stale == (gone,)

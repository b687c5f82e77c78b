"""The table of rules, their files, their settings and their explanations belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics import rules as package
from layerwatch.metrics.examination import Examination, InPlaceChange, MissingLayer
from layerwatch.metrics.findings import RuleGroup
from layerwatch.metrics.judge import judge
from layerwatch.metrics.rules import RULES, Rule
from layerwatch_testing.examinations import (
    aligned,
    change,
    examination,
    layer,
    measurement,
    numbers,
    rule_named,
    settings,
    unreadable_layer,
    vector,
)

NAMES = [rule.name for rule in RULES]

each_rule = pytest.mark.parametrize("rule", RULES, ids=NAMES)


def test_every_rule_has_its_file_and_every_file_its_rule() -> None:
    assert package.__file__ is not None
    files = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__", "base"}

    assert sorted(NAMES) == sorted(files)


def test_every_rule_has_its_settings_and_every_section_its_rule() -> None:
    with_switch = {
        name for name in RulesSettings.model_fields if hasattr(getattr(RulesSettings(), name), "enabled")
    }

    assert sorted(NAMES) == sorted(with_switch)


@each_rule
def test_a_rule_is_explained_to_whoever_meets_it_at_night(rule: Rule) -> None:
    assert rule.title
    assert len(rule.title) < 60
    assert "What to do:" in rule.explanation
    # A part that could not be read is not a number that could be misjudged: there is nothing it cannot see.
    assert "Cannot see:" in rule.explanation or rule.name == "unreadable"
    assert all(len(line) <= 120 for line in rule.explanation.splitlines())


@each_rule
def test_a_rule_belongs_to_the_group_of_its_purpose(rule: Rule) -> None:
    others = {"unreadable": RuleGroup.EXAMINATION, "content_changed_in_place": RuleGroup.INTEGRITY}

    assert rule.group is others.get(rule.name, RuleGroup.WEIGHTS)


def everything_wrong() -> Examination:
    """One version that violates every rule there is."""
    return examination(
        *(layer(f"healthy{number}") for number in range(8)),
        layer("nan", measurement=measurement(non_finite=1, numbers=None, folded=None), change=None),
        layer("empty", measurement=measurement(max_abs=0.0, norm=0.0)),
        layer("rows", change=change(new_zero_rows=20)),
        layer("huge", change=change(max_abs_ratio=1e6)),
        layer("scale", change=change(aligned=aligned(9.0), norm_ratio=10.0)),
        layer(
            "alpha",
            measurement=measurement(numbers=numbers(alpha=8.0)),
            change=change(alpha_shift=5.0, alpha_shift_sigmas=9.0),
        ),
        unreadable_layer("unreadable"),
        vector(),
        missing=(MissingLayer("missing", (3, 3)),),
        in_place=InPlaceChange("a" * 64, "b" * 64, True),
    )


def test_a_version_with_every_defect_violates_every_rule() -> None:
    found = {finding.rule for finding in judge(everything_wrong(), RulesSettings()).findings}

    assert found == set(NAMES)


@each_rule
def test_a_disabled_rule_is_silent_and_the_others_are_not(rule: Rule) -> None:
    judgement = judge(everything_wrong(), settings(rule.name, enabled=False))

    assert {finding.rule for finding in judgement.findings} == set(NAMES) - {rule.name}


@each_rule
def test_without_a_baseline_only_rules_that_need_none_are_run(rule: Rule) -> None:
    version = everything_wrong()
    alone = examination(
        *version.everything, missing=version.missing, in_place=version.in_place, has_baseline=False
    )

    found = {finding.rule for finding in judge(alone, RulesSettings()).findings}

    assert (rule.name in found) is not rule.needs_baseline


def test_rules_can_be_found_by_name() -> None:
    assert rule_named("non_finite") is RULES[NAMES.index("non_finite")]
    assert len(set(NAMES)) == len(NAMES)

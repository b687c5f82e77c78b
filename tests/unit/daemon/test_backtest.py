"""Stored versions judged anew with other settings."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.backtest import Replay, replay_model
from layerwatch.daemon.store import tables
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch_testing.networks import finetuned, network, with_nan, with_wrong_scale
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld

_BUDGET = "false_alarms_per_1000_versions"
STORY = ("v1", "v2", "v3", "v4", "v5")


@pytest.fixture
def story(rig: Rig, world: DirectoryWorld) -> Rig:
    """Five versions: healthy, healthy, a wrong scale, a missing number, healthy."""
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()))
    world.publish("m", "v3", with_wrong_scale(finetuned(network())))
    world.publish("m", "v4", with_nan(finetuned(network())))
    world.publish("m", "v5", finetuned(network(), seed=5))
    rig.cycle()
    return rig


def replays(rig: Rig, severity: Severity = Severity.CRITICAL, **sections: Any) -> dict[str, Replay]:
    rules = RulesSettings.model_validate(sections)
    return {one.version: one for one in replay_model(rig.database, "reg", "m", rules, severity)}


def named(alarms: tuple[object, ...]) -> set[tuple[str | None, str]]:
    return {(alarm.layer, alarm.rule) for alarm in alarms}  # type: ignore[attr-defined]


def everything(rig: Rig) -> list[object]:
    """All that is in the store."""
    with rig.database.read() as connection:
        return [connection.execute(sa.select(table)).all() for table in tables.metadata.sorted_tables]


def test_the_settings_that_were_in_force_change_nothing(story: Rig) -> None:
    found = replays(story)
    assert tuple(found) == STORY
    assert all(one.is_unchanged for one in found.values())
    assert {name: one.new_verdict for name, one in found.items()} == {
        name: story.version("m", name).verdict for name in STORY
    }
    assert {name: one.baseline for name, one in found.items()} == {
        "v1": None,
        "v2": "v1",
        "v3": "v2",
        "v4": "v2",
        "v5": "v2",
    }
    assert ("fc2", "scaled") in named(found["v3"].alarms)


def test_the_findings_are_the_same_to_the_last_digit_because_exact_comparisons_are_kept(story: Rig) -> None:
    for replay in replays(story, Severity.INFO).values():
        assert replay.new_alarms == replay.alarms


def test_a_rule_that_is_switched_off_makes_its_alarms_vanish(story: Rig) -> None:
    every_rule: dict[str, Any] = {
        name: {"enabled": False} for name in RulesSettings.model_fields if name != _BUDGET
    }
    found = replays(story, **every_rule)
    assert found["v3"].new_alarms == ()
    assert found["v3"].vanished == found["v3"].alarms
    assert (found["v3"].verdict, found["v3"].new_verdict) == (Verdict.FAIL, Verdict.PASS)
    assert not found["v3"].is_unchanged
    assert found["v2"].is_unchanged


def test_a_stricter_limit_makes_an_alarm_appear(story: Rig) -> None:
    found = replays(story, relative_change={"limit": 0.001, "times_median": 0.1})
    assert {rule for _, rule in named(found["v2"].appeared)} == {"relative_change"}
    assert found["v2"].vanished == ()
    assert found["v2"].new_verdict is Verdict.FAIL


def test_what_fires_depends_on_the_severity_from_which_on_it_does(story: Rig) -> None:
    quiet = {"severity": "warning"}
    rules: dict[str, Any] = dict.fromkeys(
        (name for name in RulesSettings.model_fields if name not in (_BUDGET, "tail_exponent")), quiet
    )
    assert replays(story, Severity.CRITICAL, **rules)["v3"].new_alarms == ()
    assert replays(story, Severity.WARNING, **rules)["v3"].new_alarms != ()


def test_nothing_is_written(story: Rig) -> None:
    before = everything(story)
    replays(story, relative_change={"limit": 0.001})
    assert everything(story) == before


def test_without_the_files_and_the_kept_comparison_sketches_give_the_same_alarms(
    story: Rig, world: DirectoryWorld
) -> None:
    exact = replays(story)
    for version in STORY:
        world.remove("m", version)
    with story.database.write() as connection:
        connection.execute(sa.delete(tables.comparisons))
    sketched = replays(story)
    assert {name: one.new_verdict for name, one in sketched.items()} == {
        name: one.new_verdict for name, one in exact.items()
    }


@pytest.mark.parametrize("lost", ["contents", "measurements"])
def test_a_version_whose_numbers_were_dropped_is_not_replayed_and_says_so(story: Rig, lost: str) -> None:
    with story.database.write() as connection:
        connection.execute(sa.delete(tables.metadata.tables[lost]))
    found = replays(story)["v3"]
    assert found.not_replayed is not None
    assert "its measurements are not in the store" in found.not_replayed
    assert (found.new_verdict, found.new_alarms, found.vanished) == (None, (), ())


def test_a_version_whose_baseline_was_measured_by_an_older_metric_set_is_not_replayed(story: Rig) -> None:
    with story.database.write() as connection:
        connection.execute(
            sa.update(tables.contents)
            .where(tables.contents.c.fingerprint == story.version("m", "v1").fingerprint)
            .values(metric_set="1")
        )
    found = replays(story)["v2"]
    assert found.not_replayed is not None
    assert "its baseline v1" in found.not_replayed
    assert "older metric set" in found.not_replayed


def test_a_version_whose_report_was_dropped_is_not_replayed(story: Rig) -> None:
    with story.database.write() as connection:
        connection.execute(sa.update(tables.versions).values(report=None))
    assert all("report" in (one.not_replayed or "") for one in replays(story).values())


def test_a_change_in_place_fires_in_the_replay_too(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    rig.cycle()
    world.publish("m", "v1", finetuned(network()))
    rig.cycle()
    found = list(replay_model(rig.database, "reg", "m", RulesSettings(), Severity.CRITICAL))
    assert [(one.revision, named(one.new_alarms)) for one in found] == [
        (1, set()),
        (2, {(None, "content_changed_in_place")}),
    ]


def test_a_version_that_could_not_be_read_fires_in_the_replay_too(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    (world.folder("m", "v1") / "model.safetensors").write_bytes(b"not a model at all")
    rig.cycle()
    (found,) = replays(rig).values()
    assert found.is_unchanged
    assert named(found.new_alarms) == {(None, "unreadable")}


def test_verdicts_of_another_rule_set_are_told_apart(story: Rig) -> None:
    assert not any(one.was_judged_by_other_rules for one in replays(story).values())
    with story.database.write() as connection:
        connection.execute(
            sa.update(tables.versions).values(
                report=sa.func.replace(tables.versions.c.report, '"rule_set":"', '"rule_set":"0.')
            )
        )
    assert all(one.was_judged_by_other_rules for one in replays(story).values())

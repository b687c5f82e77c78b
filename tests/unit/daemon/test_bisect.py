"""Where along a line of versions a layer broke."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from layerwatch.config.rules import RulesSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.config.settings import Settings
from layerwatch.daemon.bisect import Bisection, Break, Link, StepStatus, bisect
from layerwatch.daemon.bisecting import (
    bisect_files,
    bisect_stored,
    layers_of_files,
    stored_layers,
    stored_line,
    versions_in,
)
from layerwatch.daemon.store import baselines, tables
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.judge import Judgement, judge
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    layer,
    unreadable_layer,
)
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network, with_nan, with_wrong_scale
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld

WHOLE, BROKEN, GONE, UNREAD = "whole", "broken", "gone", "unread"

KINDS: Mapping[str, Examination] = {
    WHOLE: among_healthy(layer("fc")),
    BROKEN: among_healthy(layer("fc", change=change(aligned=aligned(9.0), norm_ratio=10.0))),
    GONE: among_healthy(),
    UNREAD: among_healthy(unreadable_layer("fc")),
}


def along(*kinds: str, accepted: int | None = None) -> tuple[Bisection, list[str | None]]:
    """Bisect versions v1, v2 ... of these kinds; the bisection, and what each was held against."""
    held: list[str | None] = []

    def judged(version: tuple[str, str], good: tuple[str, str] | None) -> tuple[Examination, Judgement] | str:
        held.append(good[0] if good is not None else None)
        if version[1] == "lost":
            return "its measurements are not in the store"
        return KINDS[version[1]], judge(KINDS[version[1]], RulesSettings())

    links = [
        Link(f"v{number}", (f"v{number}", kind), accepted == number)
        for number, kind in enumerate(kinds, start=1)
    ]
    return bisect("fc", links, judged), held


def brief(found: Break | None) -> tuple[str | None, str, str | None] | None:
    return None if found is None else (found.good, found.step.name, found.mended)


# The walk


def test_a_line_of_good_versions_has_no_break() -> None:
    found, held = along(WHOLE, WHOLE, WHOLE)
    assert (found.breaks, found.standing) == ((), None)
    assert held == [None, "v1", "v2"]


def test_the_first_broken_version_is_named_and_the_later_ones_are_held_against_the_last_good_one() -> None:
    found, held = along(WHOLE, WHOLE, BROKEN, BROKEN, BROKEN)
    assert brief(found.standing) == ("v2", "v3", None)
    assert len(found.breaks) == 1
    assert held == [None, "v1", "v2", "v2", "v2"]
    assert [step.status for step in found.steps][2:] == [StepStatus.BROKEN] * 3


def test_a_layer_that_was_mended_does_not_stand_broken() -> None:
    found, _ = along(WHOLE, BROKEN, WHOLE, WHOLE)
    assert found.standing is None
    assert [brief(one) for one in found.breaks] == [("v1", "v2", "v3")]


def test_a_layer_that_broke_twice_is_told_by_its_last_break() -> None:
    found, _ = along(WHOLE, BROKEN, WHOLE, BROKEN)
    assert [brief(one) for one in found.breaks] == [("v1", "v2", "v3"), ("v3", "v4", None)]
    assert brief(found.standing) == ("v3", "v4", None)


def test_a_layer_that_vanished_broke_there() -> None:
    found, _ = along(WHOLE, GONE)
    assert brief(found.standing) == ("v1", "v2", None)
    assert found.steps[1].status is StepStatus.MISSING


def test_versions_that_could_not_be_examined_between_good_and_bad_are_named() -> None:
    found, held = along(WHOLE, UNREAD, "lost", BROKEN)
    assert brief(found.standing) == ("v1", "v4", None)
    assert found.standing is not None
    assert found.standing.unexamined == ("v2", "v3")
    assert held == [None, "v1", "v1", "v1"]
    assert [step.problem is not None for step in found.steps] == [False, True, True, False]


def test_a_version_that_a_person_accepted_is_good_whatever_it_looks_like() -> None:
    found, held = along(WHOLE, BROKEN, WHOLE, accepted=2)
    assert found.breaks == ()
    assert found.steps[1].status is StepStatus.ACCEPTED
    assert held == [None, "v1", "v2"]


def test_a_break_in_the_first_version_has_no_good_one_before_it() -> None:
    found, _ = along(BROKEN, BROKEN)
    assert brief(found.standing) == (None, "v1", None)


def test_a_step_holds_the_evidence() -> None:
    found, _ = along(WHOLE, BROKEN)
    step = found.steps[1]
    assert (step.relative_change, step.method, step.against) == (9.0, "exact", "v1")
    assert step.alpha is not None
    assert {finding.layer for finding in step.findings} == {"fc"}
    assert step.findings


def test_a_version_that_could_not_be_opened_at_all_is_undecided() -> None:
    found = bisect("fc", [Link("v1", 1)], lambda version, good: "it is not there")
    assert found.steps[0].status is StepStatus.UNDECIDED
    assert found.steps[0].problem == "it is not there"


# The store


def stored(rig: Rig, layer_name: str, to: str | None = None) -> Bisection:
    links = stored_line(rig.database, "reg", "m", to)
    return bisect_stored(rig.database, links, layer_name, RulesSettings())


@pytest.fixture
def story(rig: Rig, world: DirectoryWorld) -> Rig:
    """fc2 gets a wrong scale in v3, from which v4 is made; v5 goes back to v2."""
    healthy = finetuned(network())
    broken = with_wrong_scale(finetuned(healthy, 3))
    world.publish("m", "v1", network())
    world.publish("m", "v2", healthy)
    world.publish("m", "v3", broken, lineage=b'{"parent": "v2", "relation": "quantized"}')
    world.publish("m", "v4", finetuned(broken, 4))
    world.publish("m", "v5", finetuned(healthy, 5))
    rig.cycle()
    return rig


def test_the_store_knows_the_step_although_a_later_version_inherited_the_damage(story: Rig) -> None:
    found = stored(story, "fc2", to="v4")
    assert brief(found.standing) == ("v2", "v3", None)
    assert found.standing is not None
    assert found.standing.step.origin == "quantized from v2"
    assert "scaled" in {finding.rule for finding in found.standing.step.findings}
    assert [step.against for step in found.steps] == [None, "v1", "v2", "v2"]


def test_another_layer_of_the_same_versions_broke_nowhere(story: Rig) -> None:
    assert stored(story, "fc1", to="v4").breaks == ()


def test_the_newest_version_ends_the_line_and_shows_that_the_layer_is_good_again(story: Rig) -> None:
    found = stored(story, "fc2")
    assert [brief(one) for one in found.breaks] == [("v2", "v3", "v5")]
    assert found.standing is None


def test_a_missing_number_is_found_without_any_version_before_it(rig: Rig, world: DirectoryWorld) -> None:
    world.publish("m", "v1", with_nan(network()))
    rig.cycle()
    assert brief(stored(rig, "fc1").standing) == (None, "v1", None)


def test_the_files_need_not_be_there_any_more(story: Rig, world: DirectoryWorld) -> None:
    for version in ("v1", "v2", "v3", "v4", "v5"):
        world.remove("m", version)
    story.cycle()
    assert brief(stored(story, "fc2", to="v4").standing) == ("v2", "v3", None)


def test_an_accepted_version_is_good_in_the_store_too(story: Rig) -> None:
    with story.database.write() as connection:
        baselines.accept(connection, "reg", "m", "v3", "ann", "meant so", story.clock())
    assert stored(story, "fc2", to="v4").breaks == ()


def test_a_version_whose_numbers_are_lost_is_told(story: Rig) -> None:
    with story.database.write() as connection:
        connection.execute(
            sa.delete(tables.contents).where(
                tables.contents.c.fingerprint == story.version("m", "v3").fingerprint
            )
        )
    found = stored(story, "fc2", to="v4")
    assert brief(found.standing) == ("v2", "v4", None)
    assert found.standing is not None
    assert found.standing.unexamined == ("v3",)


def test_a_version_is_held_against_its_parent_as_what_it_is_declared_to_be(
    rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", finetuned(network()), lineage=b'{"parent": "v1", "relation": "reexported"}')
    rig.cycle()

    found = stored(rig, "fc2").standing

    assert brief(found) == ("v1", "v2", None)
    assert found is not None
    assert "export_differs" in {finding.rule for finding in found.step.findings}


def test_the_layers_of_a_line_are_those_of_all_its_versions(story: Rig) -> None:
    links = stored_line(story.database, "reg", "m", None)
    assert {"fc1", "fc2", "fc3"} <= set(stored_layers(story.database, links))
    assert stored_line(story.database, "reg", "m", "v9") == []
    assert stored_line(story.database, "reg", "nothing", None) == []


# Files


def test_files_are_compared_with_the_last_good_one_element_by_element(tmp_path: Path) -> None:
    healthy = finetuned(network())
    broken = with_wrong_scale(finetuned(healthy, 3))
    states = {"v1": network(), "v2": healthy, "v3": broken, "v10": finetuned(broken, 4)}
    for name, state in states.items():
        write_safetensors(tmp_path / f"{name}.safetensors", state)
    (tmp_path / ".hidden.safetensors").write_bytes(b"")
    (tmp_path / "README.md").write_text("no version")
    paths = versions_in(tmp_path)
    assert [path.stem for path in paths] == ["v1", "v2", "v3", "v10"]
    seen: list[str] = []
    settings = Settings(scan=ScanSettings(niceness=0, threads=1))
    assert {"fc1", "fc2", "fc3"} <= set(layers_of_files(paths))
    found = bisect_files(paths, "fc2", settings, lambda name, progress: seen.append(name))
    assert brief(found.standing) == ("v2.safetensors", "v3.safetensors", None)
    assert {step.method for step in found.steps[1:]} == {"exact"}
    assert set(seen) == {path.name for path in paths}


def test_a_file_that_cannot_be_read_has_no_layers_and_hides_none(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "v1.safetensors", network())
    (tmp_path / "v2.safetensors").write_bytes(b"torn")
    assert layers_of_files([tmp_path / "gone.pt", *versions_in(tmp_path)]) == layers_of_files(
        [tmp_path / "v1.safetensors"]
    )

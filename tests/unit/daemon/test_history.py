"""The healthy history of a model, out of a real store."""

from __future__ import annotations

import sqlalchemy as sa

from layerwatch.daemon.history import ModelHistory, load_history
from layerwatch.daemon.store import tables
from layerwatch_testing.networks import Network, finetuned, network, with_wrong_scale
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld


def publish_chain(world: DirectoryWorld, count: int, state: Network | None = None, first: int = 1) -> Network:
    """Consecutive fine-tunes v1, v2 ...; the last of them."""
    state = state or network()
    for number in range(first, first + count):
        world.publish("m", f"v{number}", state)
        state = finetuned(state, seed=number)
    return state


def history(rig: Rig, version: str) -> ModelHistory:
    with rig.database.read() as connection:
        return load_history(connection, rig.version("m", version))


def spots(rig: Rig, version: str) -> list[str]:
    return [spot for spot in rig.report("m", version).blind_spots if spot.startswith("Immature history")]


def test_the_first_version_has_no_history_and_nothing_is_said(rig: Rig, world: DirectoryWorld) -> None:
    publish_chain(world, 1)
    rig.cycle()
    assert history(rig, "v1") == ModelHistory()
    assert spots(rig, "v1") == []


def test_until_four_calm_versions_the_report_says_immature(rig: Rig, world: DirectoryWorld) -> None:
    publish_chain(world, 5)
    rig.cycle()
    (spot,) = spots(rig, "v2")
    assert "1 healthy version before this one, 4 are needed" in spot
    (spot,) = spots(rig, "v4")
    assert "3 healthy versions before this one, 4 are needed" in spot
    assert spots(rig, "v5") == []


def test_four_calm_versions_make_a_history_of_every_layer(rig: Rig, world: DirectoryWorld) -> None:
    publish_chain(world, 5)
    rig.cycle()
    found = history(rig, "v5")
    assert found.remark is None
    assert {name: one.versions for name, one in found.layers.items()} == {"fc1": 4, "fc2": 4, "fc3": 4}


def test_no_more_than_eight_versions_are_looked_back_at(rig: Rig, world: DirectoryWorld) -> None:
    publish_chain(world, 10)
    rig.cycle()
    assert {one.versions for one in history(rig, "v10").layers.values()} == {8}


def test_a_version_that_failed_is_no_part_of_it(rig: Rig, world: DirectoryWorld) -> None:
    state = publish_chain(world, 4)
    world.publish("m", "v5", with_wrong_scale(state))
    world.publish("m", "v6", state)
    rig.cycle()
    assert {one.versions for one in history(rig, "v6").layers.values()} == {4}


def test_copies_of_one_version_count_once(rig: Rig, world: DirectoryWorld) -> None:
    for number in range(1, 6):
        world.publish("m", f"v{number}", network())
    rig.cycle()
    remark = history(rig, "v5").remark
    assert remark is not None
    assert "1 healthy version before this one" in remark


def test_after_a_retrain_the_history_begins_anew(rig: Rig, world: DirectoryWorld) -> None:
    publish_chain(world, 4)
    publish_chain(world, 2, network(9), first=5)
    rig.cycle()
    assert rig.version("m", "v5").verdict == "pass"
    remark = history(rig, "v6").remark
    assert remark is not None
    assert "the median layer still changed by 1." in remark


def test_versions_measured_with_an_older_metric_set_do_not_count(rig: Rig, world: DirectoryWorld) -> None:
    publish_chain(world, 5)
    rig.cycle()
    with rig.database.write() as connection:
        connection.execute(
            sa.update(tables.contents)
            .where(tables.contents.c.fingerprint == rig.version("m", "v1").fingerprint)
            .values(metric_set="older")
        )
    remark = history(rig, "v5").remark
    assert remark is not None
    assert "3 healthy versions" in remark

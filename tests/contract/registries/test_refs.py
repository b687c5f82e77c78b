"""How every kind of registry tells where refs point, with and without authentication."""

from __future__ import annotations

import pytest

from layerwatch_testing.worlds.base import RegistryWorld
from layerwatch_testing.worlds.properties import Property, kinds_with

NEWEST_BY_RULE = kinds_with(Property.NEWEST_BY_RULE)


def test_latest_is_the_newest_version_of_each_model(world: RegistryWorld) -> None:
    world.publish("a", "v9")
    world.publish("a", "v10")
    world.publish("b", "v1")
    assert world.refs() == {"a@latest": "v10", "b@latest": "v1"}


@pytest.mark.parametrize("world", NEWEST_BY_RULE, indirect=True)
def test_latest_falls_back_when_the_newest_version_is_removed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    assert world.refs() == {"a@latest": "v2"}
    world.remove("a", "v2")
    assert world.refs() == {"a@latest": "v1"}


def test_a_ref_follows_where_it_is_pointed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    world.point("a", "champion", "v1")
    assert world.refs()["a@champion"] == "v1"
    world.point("a", "champion", "v2")
    assert world.refs()["a@champion"] == "v2"


def test_a_look_for_changes_sees_a_ref_move_there_and_back(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    world.point("a", "champion", "v1")
    world.look()
    for version in ("v2", "v1"):
        world.point("a", "champion", version)
        assert world.refs(world.look(everything=False)) == {"a@latest": "v2", "a@champion": version}


def test_a_ref_that_is_taken_away_is_not_listed_any_more(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.point("a", "champion", "v1")
    assert world.refs() == {"a@latest": "v1", "a@champion": "v1"}
    world.unpoint("a", "champion")
    assert world.refs(world.look(everything=False)) == {"a@latest": "v1"}
    assert world.refs() == {"a@latest": "v1"}


def test_a_ref_that_nobody_watches_is_not_listed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.point("a", "shadow", "v1")
    assert world.refs() == {"a@latest": "v1"}


def test_only_the_refs_of_the_patterns_are_listed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.point("a", "champion", "v1")
    world.point("a", "challenger", "v1")
    listing = world.restarted(refs=["champ*"]).listing(world.later)
    assert world.refs(listing) == {"a@champion": "v1"}


def test_refs_of_two_models_do_not_mix(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("b", "v1")
    world.publish("b", "v2")
    world.point("a", "champion", "v1")
    world.point("b", "champion", "v2")
    assert world.refs() == {
        "a@latest": "v1",
        "a@champion": "v1",
        "b@latest": "v2",
        "b@champion": "v2",
    }


def test_every_ref_points_at_a_version_that_exists(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.point("a", "champion", "v1")
    world.publish("a", "v2")
    world.remove("a", "v1")
    for everything in (False, True):
        listing = world.look(everything)
        present = {(one.model, one.version) for one in world.look().versions}
        assert {(one.model, one.version) for one in listing.refs} <= present

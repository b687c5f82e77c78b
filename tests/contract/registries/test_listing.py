"""What every kind of registry lists, whatever lies behind it, with and without authentication."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from layerwatch.config.registries import RegistrySettings
from layerwatch.daemon.registries import KINDS
from layerwatch.daemon.registries.base import Listing
from layerwatch.metrics.relation import Relation
from layerwatch_testing.networks import finetuned, network
from layerwatch_testing.worlds import WORLDS
from layerwatch_testing.worlds.base import RegistryWorld
from layerwatch_testing.worlds.properties import EXCLUDED, Property, kinds_with

IN_PLACE = kinds_with(Property.IN_PLACE)
TELLING_UNFINISHED = kinds_with(Property.TELLS_UNFINISHED)


def test_every_kind_of_registry_has_a_world_to_be_tested_in() -> None:
    union, _ = get_args(RegistrySettings)
    configurable = {get_args(one.model_fields["kind"].annotation)[0] for one in get_args(union)}
    assert set(WORLDS) == set(KINDS) == configurable


def test_every_exclusion_names_a_kind_and_leaves_others() -> None:
    for excluded in EXCLUDED.values():
        assert set(excluded) < set(WORLDS)
        assert all(excluded.values())


def test_an_empty_registry_has_an_empty_listing(world: RegistryWorld) -> None:
    listing = world.look()
    assert (listing.versions, listing.refs, listing.unfinished, listing.unlisted) == ((), (), (), ())


def test_a_registry_carries_the_name_from_its_configuration(world: RegistryWorld) -> None:
    assert world.registry.name == "reg"


def test_versions_of_all_models_are_listed_by_model_and_age(world: RegistryWorld) -> None:
    for model, version in [("b", "v2"), ("b", "v9"), ("a", "v1"), ("b", "v10")]:
        world.publish(model, version)
    assert world.names() == ["a/v1", "b/v2", "b/v9", "b/v10"]


def test_two_looks_at_the_same_state_give_the_same_listing(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    assert world.look() == world.look()


def test_a_look_for_changes_tells_what_is_new_and_all_refs(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("b", "v1")
    before = world.look()
    world.publish("b", "v2")
    changes = world.look(everything=False)
    assert "b/v2" in world.names(changes)
    assert world.refs(changes) == {"a@latest": "v1", "b@latest": "v2"}
    assert set(world.names(changes)) <= {"a/v1", "b/v1", "b/v2"}
    if changes.complete:
        assert set(world.names(changes)) == {*world.names(before), "b/v2"}


def test_a_look_for_changes_in_a_quiet_registry_tells_of_nothing_unknown(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    before = world.look()
    after = world.look(everything=False)
    assert set(after.versions) <= set(before.versions)
    assert after.refs == before.refs


@pytest.mark.parametrize("world", TELLING_UNFINISHED, indirect=True)
def test_a_version_that_is_being_written_is_named_as_unfinished(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.begin("a", "v2")
    listing = world.look()
    assert world.unfinished(listing) == ["a/v2"]
    world.finish("a", "v2")
    assert world.unfinished() == []


def test_a_version_that_is_half_written_is_listed_once_it_is_complete(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.begin("a", "v2")
    half = world.look()
    assert world.names(half) == ["a/v1"]
    assert world.refs(half)["a@latest"] == "v1"
    world.finish("a", "v2")
    assert "a/v2" in world.names(world.look(everything=False))
    assert world.names() == ["a/v1", "a/v2"]


def test_the_token_stays_while_the_files_do(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    found = world.found("a", "v1")
    assert found.token
    world.publish("a", "v2")
    world.point("a", "champion", "v1")
    assert world.found("a", "v1").token == found.token
    assert world.registry.token(found.location) == found.token


@pytest.mark.parametrize("world", IN_PLACE, indirect=True)
def test_the_token_changes_with_the_files(world: RegistryWorld) -> None:
    world.publish("a", "v1", network())
    before = world.found("a", "v1")
    world.publish("a", "v1", finetuned(network()))
    after = world.registry.token(before.location)
    assert after is not None
    assert after != before.token


def test_a_version_that_vanished_is_no_longer_listed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    found = world.found("a", "v1")
    world.remove("a", "v1")
    assert world.names() == ["a/v2"]
    assert world.registry.token(found.location) is None


def test_a_version_to_which_no_ref_leads_any_more_is_there_until_it_is_removed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    world.point("a", "champion", "v1")
    watching = world.restarted(refs=["champion"])
    found = next(
        one for one in watching.listing(world.later).versions if one.version == world.version_name("a", "v1")
    )

    def offered(listing: Listing) -> bool:
        return found.location in listing.still_there or found in listing.versions

    world.unpoint("a", "champion")
    assert offered(watching.listing(world.later))
    again = world.restarted(refs=["champion"])
    again.recall({found.location: found.token})
    assert offered(again.listing(world.later))
    world.remove("a", "v1")
    assert not offered(watching.listing(world.later))
    assert not offered(again.listing(world.later))


def test_after_a_restart_the_same_is_listed(world: RegistryWorld) -> None:
    for version in ("v1", "v2", "v3"):
        world.publish("a", version)
    world.point("a", "champion", "v2")
    before = world.look()
    again = world.restarted()
    again.recall({one.location: one.token for one in before.versions})
    assert again.listing(world.later) == before


def test_a_declared_parent_is_told_with_its_relation(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2", lineage=json.dumps({"parent": "v1", "relation": "quantized"}).encode())
    world.publish("a", "v3", lineage=json.dumps({"parent": "v2"}).encode())

    def declared(version: str) -> list[tuple[str, Relation | None]]:
        told = world.registry.lineage(world.found("a", version))
        assert all(one.source for one in told)
        return [(one.parent, one.relation) for one in told]

    assert declared("v1") == []
    assert declared("v2") == [("v1", Relation.QUANTIZED)]
    assert declared("v3") == [("v2", None)]

"""What every registry must do, whatever lies behind it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwatch.daemon.registries import REGISTRIES
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundRef,
    RegistryReason,
    RegistryUnavailable,
)
from layerwatch.metrics.relation import Relation
from layerwatch_testing.networks import finetuned, network
from layerwatch_testing.registryworlds import WORLDS, RegistryWorld


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistryWorld]:
    yield WORLDS[request.param](tmp_path)


def names(world: RegistryWorld) -> list[str]:
    return [f"{found.model}/{found.version}" for found in world.look().versions]


def refs(world: RegistryWorld) -> dict[str, str]:
    return {f"{found.model}@{found.ref}": found.version for found in world.look().refs}


def test_every_kind_of_registry_has_a_world_to_be_tested_in() -> None:
    assert set(WORLDS) == set(REGISTRIES)


def test_an_empty_registry_has_an_empty_listing(world: RegistryWorld) -> None:
    listing = world.look()
    assert (listing.versions, listing.refs, listing.unfinished, listing.unlisted) == ((), (), (), ())


def test_a_registry_carries_the_name_from_its_configuration(world: RegistryWorld) -> None:
    assert world.registry.name == "reg"


def test_versions_of_all_models_are_listed_by_model_and_age(world: RegistryWorld) -> None:
    for model, version in [("b", "v10"), ("b", "v9"), ("b", "v2"), ("a", "v1")]:
        world.publish(model, version)
    assert names(world) == ["a/v1", "b/v2", "b/v9", "b/v10"]


def test_two_looks_at_the_same_state_give_the_same_listing(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    assert world.look() == world.look()


def test_latest_is_the_newest_version_of_each_model(world: RegistryWorld) -> None:
    world.publish("a", "v9")
    world.publish("a", "v10")
    world.publish("b", "v1")
    assert refs(world) == {"a@latest": "v10", "b@latest": "v1"}


def test_a_ref_follows_where_it_is_pointed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    world.point("a", "champion", "v1")
    assert refs(world)["a@champion"] == "v1"
    world.point("a", "champion", "v2")
    assert refs(world)["a@champion"] == "v2"


def test_a_ref_that_nobody_watches_is_not_listed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.point("a", "shadow", "v1")
    assert refs(world) == {"a@latest": "v1"}


def test_a_version_that_is_being_written_is_named_as_unfinished_and_not_listed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.begin("a", "v2")
    listing = world.look()
    assert [found.version for found in listing.versions] == ["v1"]
    assert listing.unfinished == (("a", "v2"),)
    assert FoundRef("a", "latest", "v1") in listing.refs


def test_the_token_stays_while_the_files_do(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    found = world.found("a", "v1")
    assert found.token
    world.publish("a", "v2")
    world.point("a", "champion", "v1")
    assert world.found("a", "v1").token == found.token
    assert world.registry.token(found.location) == found.token


def test_the_token_changes_with_the_files(world: RegistryWorld) -> None:
    world.publish("a", "v1", network())
    before = world.found("a", "v1")
    world.publish("a", "v1", finetuned(network()))
    after = world.found("a", "v1")
    assert after.token != before.token
    assert world.registry.token(before.location) == after.token


def test_the_fingerprint_depends_on_the_bytes_alone(world: RegistryWorld) -> None:
    world.publish("a", "v1", network(1))
    world.publish("a", "v2", network(2))
    world.publish("b", "copy", network(1))

    def fingerprint(model: str, version: str) -> str:
        return world.registry.manifest(world.found(model, version)).fingerprint

    assert fingerprint("a", "v1") == fingerprint("b", "copy")
    assert fingerprint("a", "v1") != fingerprint("a", "v2")


def test_an_open_version_holds_the_bytes_that_the_manifest_names(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    found = world.found("a", "v1")
    (entry,) = world.registry.manifest(found).entries
    with world.registry.open(found.location) as path:
        data = (path / entry.path if path.is_dir() else path).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.size_bytes, entry.sha256)


def test_a_version_that_vanished_is_no_longer_listed_and_says_so_when_opened(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    found = world.found("a", "v2")
    world.remove("a", "v2")
    assert names(world) == ["a/v1"]
    assert refs(world) == {"a@latest": "v1"}
    assert world.registry.token(found.location) is None
    with pytest.raises(RegistryUnavailable) as opened, world.registry.open(found.location):
        pass
    assert opened.value.reason is RegistryReason.VERSION_GONE
    with pytest.raises(RegistryUnavailable) as hashed:
        world.registry.manifest(found)
    assert hashed.value.reason is RegistryReason.VERSION_GONE


def test_a_declared_parent_is_listed_with_its_relation(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2", lineage=json.dumps({"parent": "v1", "relation": "quantized"}).encode())
    world.publish("a", "v3", lineage=json.dumps({"parent": "v2"}).encode())
    assert world.found("a", "v1").lineage is None
    declared = world.found("a", "v2").lineage
    assert declared is not None
    assert (declared.parent, declared.relation) == ("v1", Relation.QUANTIZED)
    assert declared.source
    undeclared = world.found("a", "v3").lineage
    assert isinstance(undeclared, DeclaredLineage)
    assert undeclared.relation is None


def test_every_ref_points_at_a_version_that_exists(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.point("a", "champion", "v1")
    world.remove("a", "v1")
    world.publish("a", "v2")
    listing = world.look()
    present = {(found.model, found.version) for found in listing.versions} | set(listing.unfinished)
    assert {(found.model, found.version) for found in listing.refs} <= present


def test_a_registry_that_cannot_be_reached_says_why_and_what_to_do(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.hide()
    with pytest.raises(RegistryUnavailable) as refused:
        world.look()
    assert refused.value.reason is RegistryReason.NOT_FOUND
    assert str(refused.value).startswith("not_found: ")
    assert len(refused.value.detail.split()) > 4

"""What every kind of registry promises of the bytes, and how it hands them out, with and without authentication."""

from __future__ import annotations

import hashlib

import pytest

from layerwatch.daemon.registries.base import FoundVersion, RegistryReason, RegistryUnavailable
from layerwatch.metrics.manifest import Manifest
from layerwatch_testing.networks import finetuned, network
from layerwatch_testing.worlds.base import WEIGHTS, RegistryWorld
from layerwatch_testing.worlds.directory import DirectoryWorld
from layerwatch_testing.worlds.properties import Property, kinds_with

REMOTE = kinds_with(Property.NETWORK)
IN_PLACE = kinds_with(Property.IN_PLACE)


def content(world: RegistryWorld, found: FoundVersion) -> bytes:
    """The weights of a version, through the registry."""
    with world.registry.open(found.location) as path:
        return (path / WEIGHTS if path.is_dir() else path).read_bytes()


def test_the_fingerprint_depends_on_the_bytes_alone(world: RegistryWorld) -> None:
    world.publish("a", "v1", network(1))
    world.publish("a", "v2", network(2))
    world.publish("b", "copy", network(1))

    def fingerprint(model: str, version: str) -> str:
        return world.registry.manifest(world.found(model, version)).fingerprint

    assert fingerprint("a", "v1") == fingerprint("b", "copy")
    assert fingerprint("a", "v1") != fingerprint("a", "v2")


@pytest.mark.parametrize("world", REMOTE, indirect=True)
def test_the_same_weights_in_two_registries_have_the_same_fingerprint(world: RegistryWorld) -> None:
    place = world.scratch / "tree"
    place.mkdir()
    other = DirectoryWorld(place)
    for one in (world, other):
        one.publish("a", "v1", network(3))
    promised, hashed = (one.registry.manifest(one.found("a", "v1")) for one in (world, other))
    assert promised == hashed
    assert promised.fingerprint == hashed.fingerprint


def test_a_manifest_is_the_same_when_the_bytes_are_read_anew(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    found = world.found("a", "v1")
    assert world.registry.manifest(found) == world.registry.manifest(found, anew=True)


def test_an_open_version_holds_the_bytes_that_the_manifest_names(world: RegistryWorld) -> None:
    world.publish("a", "v1", network(4))
    found = world.found("a", "v1")
    (entry,) = world.registry.manifest(found).entries
    data = content(world, found)
    assert data == world.weights(network(4))
    assert (entry.path, entry.size_bytes, entry.sha256) == (
        WEIGHTS,
        len(data),
        hashlib.sha256(data).hexdigest(),
    )


def test_a_version_is_opened_again_and_again(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2", finetuned(network()))
    first, second = world.found("a", "v1"), world.found("a", "v2")
    contents = [content(world, one) for one in (first, second, first, second)]
    assert contents[:2] == contents[2:]
    assert contents[0] != contents[1]


@pytest.mark.parametrize("world", IN_PLACE, indirect=True)
def test_bytes_that_were_overwritten_are_found_when_they_are_read_anew(world: RegistryWorld) -> None:
    world.publish("a", "v1", network())
    before = world.found("a", "v1")
    old: Manifest = world.registry.manifest(before)
    world.publish("a", "v1", finetuned(network()))
    new = world.registry.manifest(before, anew=True)
    assert new.fingerprint != old.fingerprint
    (entry,) = new.entries
    assert entry.sha256 == hashlib.sha256(world.weights(finetuned(network()))).hexdigest()
    assert content(world, before) == world.weights(finetuned(network()))


def test_a_version_that_vanished_says_so_when_it_is_opened_or_hashed(world: RegistryWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    found = world.found("a", "v1")
    world.remove("a", "v1")
    with pytest.raises(RegistryUnavailable) as opened, world.registry.open(found.location):
        pass
    assert opened.value.reason is RegistryReason.VERSION_GONE
    for anew in (False, True):
        with pytest.raises(RegistryUnavailable) as hashed:
            world.registry.manifest(found, anew)
        assert hashed.value.reason is RegistryReason.VERSION_GONE


@pytest.mark.parametrize("world", REMOTE, indirect=True)
def test_whoever_waits_is_told_that_bytes_arrive_and_can_end_it(world: RegistryWorld) -> None:
    class EnoughError(Exception):
        pass

    def stop() -> None:
        raise EnoughError

    world.publish("a", "v1")
    found = world.found("a", "v1")
    with pytest.raises(EnoughError), world.registry.open(found.location, stop):
        pass
    assert content(world, found)

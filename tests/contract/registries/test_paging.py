"""Many versions on ten pages: none is missed and none is listed twice, whatever happens meanwhile.

A thousand are listed once; what happens meanwhile is tried with a hundred, because they are listed forty times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from layerwatch.daemon.registries.base import Listing, Registry, RegistryReason, RegistryUnavailable
from layerwatch_testing.servers import ServerMissing
from layerwatch_testing.unreliable import Passed
from layerwatch_testing.worlds import world_of
from layerwatch_testing.worlds.base import RemoteWorld
from layerwatch_testing.worlds.properties import Property, kinds_with

pytestmark = pytest.mark.slow

_PAGES = 10
_THOUSAND = 1000
_HUNDRED = {"objectstore": _THOUSAND}
"""A client of object stores asks for pages of a thousand, however few are taken from it: fewer are one request."""


class Crowd:
    """A world with many versions.

    Attributes:
        names: of all that were published and not removed.
        page: versions on a page.
    """

    def __init__(self, world: RemoteWorld, count: int) -> None:
        self.world = world
        self.page = count // _PAGES
        self._next = 1
        self.names: set[str] = set()
        self.publish(count)

    def publish(self, count: int) -> set[str]:
        """Publish more; their names."""
        fresh = set(self.world.publish_many(self._next, count))
        assert len(fresh) == count
        self._next += count
        self.names |= fresh
        return fresh

    def remove(self, names: Sequence[str]) -> None:
        """Take some away."""
        for name in names:
            self.world.remove(*name.rsplit("/", 1))
            self.names.remove(name)

    def registry(self) -> Registry:
        """A new registry that asks for ten pages."""
        registry = self.world.restarted()
        registry.source.page_size = self.page  # type: ignore[attr-defined] # every source has it
        self.world.front.forget()
        return registry

    def list(self, registry: Registry, everything: bool = True) -> tuple[list[str], Listing]:
        """The names in a listing, and the listing."""
        listing = registry.listing(self.world.later, everything)
        return self.world.names(listing), listing


def _published(kind: str, folder: Path, count: int) -> Iterator[Crowd]:
    try:
        world = world_of(kind, folder)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    assert isinstance(world, RemoteWorld)
    yield Crowd(world, count)
    world.close()


@pytest.fixture(params=kinds_with(Property.PAGES))
def thousand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Crowd]:
    """A thousand versions."""
    yield from _published(request.param, tmp_path, _THOUSAND)


@pytest.fixture(scope="module", params=kinds_with(Property.PAGES))
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """A hundred versions, published once for all tests of this file."""
    count = _HUNDRED.get(request.param, 100)
    yield from _published(request.param, tmp_path_factory.mktemp(request.param), count)


@pytest.fixture
def crowd(published: Crowd) -> Iterator[Crowd]:
    """The same; its server behaves again afterwards."""
    yield published
    published.world.front.before = lambda passed: None
    published.world.front.behave()


def at_request(crowd: Crowd, number: int, act: Callable[[], object]) -> list[Passed]:
    """Do something just before a request is answered; the list holds that request once it was done."""
    done: list[Passed] = []

    def before(passed: Passed) -> None:
        if not done and len(crowd.world.front.requests) >= number:
            done.append(passed)
            act()

    crowd.world.front.before = before
    return done


def test_a_thousand_are_listed_once(thousand: Crowd) -> None:
    names, listing = thousand.list(thousand.registry())
    assert len(names) == len(set(names))
    assert set(names) == thousand.names
    assert listing.complete
    assert len(thousand.world.front.requests) >= _PAGES, "it was not listed in pages"


def test_no_more_than_four_requests_are_under_way_at_once(crowd: Crowd) -> None:
    registry = crowd.registry()
    crowd.world.front.delay(0.01)
    crowd.list(registry)
    assert 1 <= crowd.world.front.most_at_once <= 4


@pytest.mark.parametrize("request_number", [2, 10])
def test_versions_published_while_pages_are_read_are_found_and_hide_no_others(
    crowd: Crowd, request_number: int
) -> None:
    registry = crowd.registry()
    before = set(crowd.names)
    done = at_request(crowd, request_number, lambda: crowd.publish(5))
    names, _ = crowd.list(registry)
    assert done
    assert len(names) == len(set(names))
    assert before <= set(names) <= crowd.names
    missed = crowd.names - set(names)
    changes, _ = crowd.list(registry, everything=False)
    assert missed <= set(changes)
    everything, _ = crowd.list(registry)
    assert set(everything) == crowd.names


@pytest.mark.parametrize("request_number", [2, 10])
def test_versions_removed_while_pages_are_read_hide_no_others(crowd: Crowd, request_number: int) -> None:
    registry = crowd.registry()
    first, _ = crowd.list(registry)
    crowd.world.front.forget()
    victims = [first[0], first[1], first[len(first) // 2], first[-1]]
    done = at_request(crowd, request_number, lambda: crowd.remove(victims))
    names, _ = crowd.list(registry)
    assert done
    assert len(names) == len(set(names))
    assert crowd.names <= set(names) <= crowd.names | set(victims)
    everything, _ = crowd.list(registry)
    assert set(everything) == crowd.names


def test_a_look_for_changes_among_many_finds_exactly_the_new_ones(crowd: Crowd) -> None:
    registry = crowd.registry()
    old, _ = crowd.list(registry)
    fresh = crowd.publish(10)
    names, listing = crowd.list(registry, everything=False)
    assert fresh <= set(names)
    assert len(names) == len(set(names))
    if listing.complete:
        assert set(names) == crowd.names
    assert set(names) <= {*old, *fresh}


@pytest.mark.parametrize("requests", [0, 4, 9])
def test_an_outage_in_the_middle_of_a_listing_is_told_and_nothing_is_half_taken(
    crowd: Crowd, requests: int
) -> None:
    registry = crowd.registry()
    crowd.world.front.refuse_after(requests)
    with pytest.raises(RegistryUnavailable) as told:
        crowd.list(registry)
    assert told.value.reason is RegistryReason.UNREACHABLE
    crowd.world.front.behave()
    names, _ = crowd.list(registry)
    assert sorted(names) == sorted(crowd.names)


def test_what_an_outage_hid_is_found_by_the_next_look_for_changes(crowd: Crowd) -> None:
    registry = crowd.registry()
    crowd.list(registry)
    for requests in (0, 1, 2):
        fresh = crowd.publish(3)
        crowd.world.front.refuse_after(requests)
        try:
            seen, _ = crowd.list(registry, everything=False)
        except RegistryUnavailable as error:
            assert error.reason is RegistryReason.UNREACHABLE
            seen = []
        crowd.world.front.behave()
        again, _ = crowd.list(registry, everything=False)
        assert fresh <= {*seen, *again}
    names, _ = crowd.list(registry)
    assert sorted(names) == sorted(crowd.names)


def test_a_server_fault_in_the_middle_of_a_listing_is_told(crowd: Crowd) -> None:
    registry = crowd.registry()
    at_request(crowd, 5, lambda: crowd.world.front.answer(500))
    # The request that was at work when the fault began is still answered; one after it is not.
    with pytest.raises(RegistryUnavailable) as told:
        crowd.list(registry)
    assert told.value.reason is RegistryReason.SERVER_ERROR
    crowd.world.front.behave()
    names, _ = crowd.list(registry)
    assert sorted(names) == sorted(crowd.names)

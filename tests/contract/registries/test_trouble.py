"""What every registry behind a network does when the network, the server or its answers are bad."""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import timedelta

import numpy as np
import pytest

from layerwatch.daemon.registries import pace
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable
from layerwatch_testing.models import State
from layerwatch_testing.networks import network
from layerwatch_testing.servers import free_port
from layerwatch_testing.worlds.base import TINY, WEIGHTS, RegistryWorld, RemoteWorld
from layerwatch_testing.worlds.properties import Property, kinds_with

NETWORK = kinds_with(Property.NETWORK)
over_the_network = pytest.mark.parametrize("world", NETWORK, indirect=True)

_CUT = 256 * 1024
_SECONDS = 20
"""A server that is down must not hold a look up; clients are known to try for minutes if they are let."""


def large() -> State:
    """8 MiB of weights."""
    generator = np.random.default_rng(5)
    return {"layer.weight": generator.standard_normal((1024, 2048)).astype(np.float32)}


def refusal(world: RegistryWorld) -> RegistryUnavailable:
    """What a look says."""
    with pytest.raises(RegistryUnavailable) as refused:
        world.look()
    assert str(refused.value).startswith(f"{refused.value.reason}: ")
    assert len(refused.value.detail.split()) > 4, "it does not say what was asked, or what to do"
    return refused.value


def test_a_registry_that_cannot_be_reached_says_why_and_is_listed_again_afterwards(
    world: RegistryWorld,
) -> None:
    world.publish("a", "v1")
    world.look()
    world.hide()
    error = refusal(world)
    wanted = RegistryReason.UNREACHABLE if isinstance(world, RemoteWorld) else RegistryReason.NOT_FOUND
    assert error.reason is wanted
    assert not error.reason.misconfigured
    world.show()
    assert world.names() == ["a/v1"]
    assert world.refs(world.look(everything=False)) == {"a@latest": "v1"}


@over_the_network
def test_whatever_is_asked_of_a_server_that_is_down_fails_in_seconds(remote: RemoteWorld) -> None:
    remote.publish("a", "v1")
    found = remote.found("a", "v1")
    remote.hide()
    begin = time.monotonic()
    for ask in (
        lambda: remote.registry.token(found.location),
        lambda: remote.registry.lineage(found),
        lambda: remote.look(everything=False),
    ):
        with pytest.raises(RegistryUnavailable) as refused:
            ask()
        assert refused.value.reason is RegistryReason.UNREACHABLE
    assert time.monotonic() - begin < _SECONDS


@over_the_network
def test_a_server_that_takes_requests_and_never_answers_is_given_up(remote: RemoteWorld) -> None:
    impatient = remote.restarted(timeout="1s")
    remote.front.silence()
    begin = time.monotonic()
    with pytest.raises(RegistryUnavailable) as refused:
        impatient.listing(remote.later)
    assert refused.value.reason is RegistryReason.UNREACHABLE
    assert time.monotonic() - begin < _SECONDS


@over_the_network
def test_a_server_whose_answers_dribble_is_given_up(
    remote: RemoteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SHORTEST", timedelta(seconds=1))
    for number in range(20):
        remote.publish("a", f"v{number}", TINY)
    impatient = remote.restarted(timeout="1s")
    remote.front.dribble()
    with pytest.raises(RegistryUnavailable) as refused:
        impatient.listing(remote.later)
    assert refused.value.reason is RegistryReason.UNREACHABLE


@over_the_network
def test_a_download_that_dribbles_is_given_up_and_told_of_until_then(
    remote: RemoteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PATIENCE", 1)
    remote.publish("a", "v1", large())
    found = remote.found("a", "v1")
    impatient = remote.restarted(timeout="1s")
    impatient.listing(remote.later)
    signs = []
    # Longer than every answer but that with the weights.
    remote.front.dribble(longer_than=2**20)
    with (
        pytest.raises(RegistryUnavailable) as refused,
        impatient.open(found.location, lambda: signs.append(1)),
    ):
        pass
    assert refused.value.reason is RegistryReason.UNREACHABLE
    assert signs
    remote.front.behave()
    with remote.registry.open(found.location) as path:
        assert (path / WEIGHTS).read_bytes() == remote.weights(large())


@over_the_network
def test_a_small_file_without_an_end_is_not_read_on(remote: RemoteWorld) -> None:
    declaration = json.dumps({"parent": "v0", "relation": "finetuned"}).encode()
    remote.publish("a", "v1", lineage=declaration)
    found = remote.found("a", "v1")
    wanted = remote.registry.lineage(found)
    assert wanted
    remote.front.forget()
    remote.front.flood()
    try:
        assert remote.registry.lineage(found) == wanted
    except RegistryUnavailable as error:
        assert error.reason in (RegistryReason.UNREACHABLE, RegistryReason.BAD_RESPONSE)
    assert remote.front.bytes_sent < 32 * 2**20


@over_the_network
def test_a_name_that_leads_nowhere_is_told(remote: RemoteWorld) -> None:
    registry = remote.through("http://registry.invalid:80")
    with pytest.raises(RegistryUnavailable) as refused:
        registry.listing(remote.later)
    assert refused.value.reason is RegistryReason.UNREACHABLE
    assert "registry.invalid" in refused.value.detail


@over_the_network
@pytest.mark.parametrize("cuts", [1, 3])
def test_a_download_that_breaks_off_is_resumed_where_it_broke(remote: RemoteWorld, cuts: int) -> None:
    remote.publish("a", "v1", large())
    found = remote.found("a", "v1")
    wanted = remote.weights(large())
    remote.front.forget()
    remote.front.cut(_CUT, times=cuts)
    with remote.registry.open(found.location) as path:
        assert (path / WEIGHTS).read_bytes() == wanted
    assert remote.front.cuts == cuts
    assert remote.front.bytes_sent < 1.5 * len(wanted)


@over_the_network
def test_an_outage_in_the_middle_of_a_download_is_told_and_what_came_is_kept(remote: RemoteWorld) -> None:
    remote.publish("a", "v1", large())
    found = remote.found("a", "v1")
    wanted = remote.weights(large())
    arrived = []

    def progress() -> None:
        arrived.append(remote.front.bytes_sent)
        if remote.front.bytes_sent > len(wanted) // 2:
            remote.front.refuse()

    with pytest.raises(RegistryUnavailable) as refused, remote.registry.open(found.location, progress):
        pass
    assert refused.value.reason is RegistryReason.UNREACHABLE
    before = remote.front.bytes_sent
    assert before < 1.5 * len(wanted)
    remote.front.behave()
    with remote.registry.open(found.location) as path:
        assert (path / WEIGHTS).read_bytes() == wanted
    assert remote.front.bytes_sent < 1.5 * len(wanted)


@over_the_network
def test_what_was_downloaded_is_not_downloaded_again(remote: RemoteWorld) -> None:
    remote.publish("a", "v1", large())
    found = remote.found("a", "v1")
    with remote.registry.open(found.location):
        pass
    remote.front.forget()
    with remote.registry.open(found.location) as path:
        assert (path / WEIGHTS).stat().st_size == len(remote.weights(large()))
    assert remote.front.bytes_sent < 2**20


@over_the_network
def test_a_server_that_asks_for_patience_is_told_from_one_that_is_broken(remote: RemoteWorld) -> None:
    remote.front.answer(429, headers={"Retry-After": "7"})
    begin = time.monotonic()
    error = refusal(remote)
    assert error.reason is RegistryReason.RATE_LIMITED
    assert not error.reason.misconfigured
    assert time.monotonic() - begin < _SECONDS, "it waits by itself, although only the watcher shall"


@pytest.mark.parametrize("world", kinds_with(Property.NETWORK, Property.RETRY_AFTER), indirect=True)
def test_a_server_that_asks_for_patience_says_how_long(remote: RemoteWorld) -> None:
    remote.front.answer(429, headers={"Retry-After": "7"})
    assert refusal(remote).retry_after == timedelta(seconds=7)


@over_the_network
@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_fault_of_the_server_is_told_as_one(remote: RemoteWorld, status: int) -> None:
    remote.publish("a", "v1")
    remote.front.answer(status, b"<html>the proxy is down</html>", {"Content-Type": "text/html"})
    begin = time.monotonic()
    assert refusal(remote).reason is RegistryReason.SERVER_ERROR
    assert time.monotonic() - begin < _SECONDS
    remote.front.behave()
    assert remote.names() == ["a/v1"]


@over_the_network
@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_does_not_permit_it_is_a_matter_for_people(remote: RemoteWorld, status: int) -> None:
    remote.front.answer(status, b"{}", {"Content-Type": "application/json"})
    error = refusal(remote)
    assert error.reason is RegistryReason.NOT_PERMITTED
    assert error.reason.misconfigured


GARBAGE = {
    "a login page": b"<html><body>Please log in</body></html>",
    "nothing": b"",
    "a list": b"[]",
    "a number": b"17",
    "other keys": b'{"unexpected": {"things": [1, 2]}}',
    "other types": json.dumps(
        {
            "model_versions": 3,
            "registered_models": "x",
            "repositories": {"a": 1},
            "tags": {"a": 1},
            "name": 7,
            "branches": 5,
        }
    ).encode(),
    "cut off": b'{"model_versions": [{"name": "a',
    "deeply nested": b"[" * 100_000,
    "bytes": bytes(range(256)) * 4,
}


@over_the_network
@pytest.mark.parametrize("what", GARBAGE)
@pytest.mark.parametrize("content_type", ["application/json", "application/xml"])
def test_answers_that_are_none_are_told_and_never_taken_for_an_empty_registry(
    remote: RemoteWorld, what: str, content_type: str
) -> None:
    remote.publish("a", "v1")
    remote.look()
    remote.front.answer(200, GARBAGE[what], {"Content-Type": content_type})
    for everything in (True, False):
        with pytest.raises(RegistryUnavailable) as refused:
            remote.look(everything)
        assert refused.value.reason is RegistryReason.BAD_RESPONSE
        assert refused.value.reason.misconfigured
        assert len(refused.value.detail) < 1000
    remote.front.behave()
    assert remote.names() == ["a/v1"]


@over_the_network
def test_something_that_does_not_speak_http_is_told(remote: RemoteWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        registry = remote.through(f"http://127.0.0.1:{port}", timeout="2s")

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(RegistryUnavailable) as refused:
            registry.listing(remote.later)
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert refused.value.reason in (RegistryReason.BAD_RESPONSE, RegistryReason.UNREACHABLE)


@over_the_network
def test_the_proxy_of_the_environment_is_used(remote: RemoteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.publish("a", "v1", network(6))
    _set_proxy(monkeypatch, "HTTP_PROXY", remote.front.url)
    # Nobody listens there: whatever comes back came through the proxy.
    registry = remote.through(f"http://127.0.0.1:{free_port()}")
    remote.front.forget()
    listing = registry.listing(remote.later)
    assert remote.names(listing) == ["a/v1"]
    with registry.open(listing.versions[0].location) as path:
        assert (path / WEIGHTS).read_bytes() == remote.weights(network(6))
    assert all(passed.proxied for passed in remote.front.requests)


@over_the_network
def test_no_proxy_is_used_for_what_the_environment_excludes(
    remote: RemoteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.publish("a", "v1")
    _set_proxy(monkeypatch, "HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    assert remote.names(remote.restarted().listing(remote.later)) == ["a/v1"]


def _set_proxy(monkeypatch: pytest.MonkeyPatch, variable: str, url: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, url)
    # The spelling in small letters is the older one, and the only one that some programs read.
    monkeypatch.setenv(variable.lower(), url)

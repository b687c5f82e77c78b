"""Credentials, certificates and secrets, the same for every registry that has them."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Iterator

import pytest

from layerwatch.daemon.registries.base import Registry, RegistryReason, RegistryUnavailable
from layerwatch_testing.networks import network
from layerwatch_testing.servers import free_port
from layerwatch_testing.unreliable import UnreliableServer, private_authority
from layerwatch_testing.worlds.base import SECRET, WEIGHTS, WRONG_SECRET, RegistryWorld, RemoteWorld
from layerwatch_testing.worlds.properties import EXCLUDED, Property, kinds_with

NETWORK = kinds_with(Property.NETWORK)
LOCKED = [
    pytest.param(f"{one.values[0]}+auth", marks=one.marks)  # type: ignore[attr-defined] # pytest.param
    for one in kinds_with(Property.AUTH)
]
over_the_network = pytest.mark.parametrize("world", NETWORK, indirect=True)
behind_a_lock = pytest.mark.parametrize("world", LOCKED, indirect=True)


@pytest.fixture
def tls(remote: RemoteWorld) -> Iterator[UnreliableServer]:
    """The server of a world behind TLS, with a certificate that a private authority signed; `remote.scratch` has it."""
    authority = private_authority(remote.scratch)
    authority.ca_file.rename(remote.scratch / "ca.pem")
    front = UnreliableServer(remote.server_url, authority.context)
    yield front
    front.close()


def refusal(registry: Registry, world: RegistryWorld) -> RegistryUnavailable:
    """What a look says."""
    with pytest.raises(RegistryUnavailable) as refused:
        registry.listing(world.later)
    return refused.value


@behind_a_lock
def test_wrong_credentials_are_a_matter_for_people(remote: RemoteWorld) -> None:
    remote.publish("a", "v1")
    error = refusal(remote.restarted(**remote.wrong_credentials), remote)
    assert error.reason is RegistryReason.NOT_PERMITTED
    assert error.reason.misconfigured
    assert remote.names() == ["a/v1"]


@behind_a_lock
def test_an_account_is_not_locked_by_trying_wrong_credentials_often(remote: RemoteWorld) -> None:
    remote.front.forget()
    refusal(remote.restarted(**remote.wrong_credentials), remote)
    assert len(remote.front.requests) <= 6


@behind_a_lock
def test_two_registries_of_one_process_keep_their_credentials_apart(remote: RemoteWorld) -> None:
    remote.publish("a", "v1")
    wrong = remote.restarted(**remote.wrong_credentials)
    right = remote.restarted()
    for _ in range(2):
        assert refusal(wrong, remote).reason is RegistryReason.NOT_PERMITTED
        assert remote.names(right.listing(remote.later)) == ["a/v1"]


@over_the_network
def test_a_private_authority_is_believed_where_it_is_configured(
    remote: RemoteWorld, tls: UnreliableServer
) -> None:
    remote.publish("a", "v1", network(7))
    registry = remote.through(tls.url, ca_file=remote.scratch / "ca.pem")
    listing = registry.listing(remote.later)
    assert remote.names(listing) == ["a/v1"]
    with registry.open(listing.versions[0].location) as path:
        assert (path / WEIGHTS).read_bytes() == remote.weights(network(7))


@over_the_network
def test_a_private_authority_is_not_believed_otherwise(remote: RemoteWorld, tls: UnreliableServer) -> None:
    error = refusal(remote.through(tls.url), remote)
    assert error.reason is RegistryReason.CERTIFICATE
    assert error.reason.misconfigured
    assert "ca_file" in error.detail
    assert tls.requests == []


@over_the_network
def test_one_registry_s_authority_is_not_believed_by_another(
    remote: RemoteWorld, tls: UnreliableServer
) -> None:
    remote.publish("a", "v1")
    believing = remote.through(tls.url, ca_file=remote.scratch / "ca.pem")
    other = remote.through(tls.url)
    for _ in range(2):
        assert remote.names(believing.listing(remote.later)) == ["a/v1"]
        assert refusal(other, remote).reason is RegistryReason.CERTIFICATE


@over_the_network
def test_a_certificate_of_another_host_is_refused(remote: RemoteWorld) -> None:
    authority = private_authority(remote.scratch, "elsewhere.example")
    front = UnreliableServer(remote.server_url, authority.context)
    try:
        error = refusal(remote.through(front.url, ca_file=authority.ca_file), remote)
    finally:
        front.close()
    assert error.reason is RegistryReason.CERTIFICATE
    assert front.requests == []


@over_the_network
def test_the_proxy_for_https_gets_a_tunnel_and_sees_nothing(
    remote: RemoteWorld, tls: UnreliableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.publish("a", "v1")
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    proxy = UnreliableServer(tls.url)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("https_proxy", proxy.url)
    try:
        # Nobody listens there: whatever comes back came through the proxy.
        registry = remote.through(f"https://127.0.0.1:{free_port()}", ca_file=remote.scratch / "ca.pem")
        listing = registry.listing(remote.later)
    finally:
        proxy.close()
    assert remote.names(listing) == ["a/v1"]
    assert {passed.method for passed in proxy.requests} == {"CONNECT"}


@behind_a_lock
def test_a_redirect_to_another_host_does_not_carry_the_secret_there(remote: RemoteWorld) -> None:
    remote.publish("a", "v1")
    thief = UnreliableServer(remote.server_url)
    # The same address under another name is another host.
    there = thief.url.replace("127.0.0.1", "localhost")
    try:
        for status in (301, 302, 307, 308):
            remote.front.answer(status, headers={"Location": f"{there}/"})
            with pytest.raises(RegistryUnavailable):
                remote.restarted().listing(remote.later)
        told = "\n".join(
            f"{passed.path} {name}: {value}"
            for passed in thief.requests
            for name, value in passed.headers.items()
        )
    finally:
        thief.close()
    for form in forms(SECRET):
        assert form not in told
    assert "authorization" not in told


def forms(secret: str) -> list[str]:
    """A secret as it is, and as it looks in base64 at any of the three places where it can begin."""
    found = [secret]
    for before in range(3):
        text = base64.b64encode(b"x" * before + secret.encode()).decode().rstrip("=")
        # The characters at both ends depend on what stands beside the secret.
        found.append(text[4 if before else 0 : -4])
    return found


@behind_a_lock
def test_secrets_are_in_no_message_no_log_and_no_representation(
    remote: RemoteWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    remote.publish("a", "v1")
    told: list[str] = []

    def attempt(registry: Registry) -> None:
        source = getattr(registry, "source")  # noqa: B009 - of no protocol
        told.extend([repr(registry), str(registry), repr(source), str(source)])
        try:
            found = registry.listing(remote.later).versions[0]
            told.append(repr(found))
            registry.manifest(found, anew=True)
            registry.lineage(found)
        except RegistryUnavailable as error:
            told.extend(["".join(traceback.format_exception(error)), repr(error), error.detail])

    wrong = remote.restarted(**remote.wrong_credentials)
    right = remote.restarted()
    for registry in (right, wrong):
        attempt(registry)
        for status in (400, 401, 403, 404, 429, 500):
            # Some servers repeat what they were sent.
            remote.front.answer(status, f"you sent {SECRET} or {WRONG_SECRET}".encode())
            attempt(registry)
        remote.front.answer(200, b"<html>")
        attempt(registry)
        remote.front.refuse()
        attempt(registry)
        remote.front.behave()
    told.extend(f"{record.getMessage()} {record.args}" for record in caplog.records)
    everything = "\n".join(told)
    assert "not_permitted" in everything
    hidden = [*forms(SECRET), *forms(WRONG_SECRET)]
    leaks = [line for line in everything.splitlines() if any(form in line for form in hidden)]
    assert leaks == []


def test_every_kind_without_credentials_is_named_with_the_reason() -> None:
    assert set(EXCLUDED[Property.AUTH]) == {"directory"}

"""The address of the daemon that is followed."""

from __future__ import annotations

import pytest

from layerwatch.config.server import ServerSettings
from layerwatch.daemon.following.address import (
    AddressError,
    checked_address,
    configured_address,
    is_address,
)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:9466",
        "https://watch.example/behind/a/proxy",
        "http://[::1]:9466",
        "http://user:pass@watch.example",
    ],
)
def test_an_address_is_taken_without_its_last_slash(text: str) -> None:
    assert is_address(text)
    assert checked_address(text + "/") == checked_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:9466",
        "ftp://host",
        "http://",
        "http://host:0",
        "http://host:99999",
        "http://host:x",
        "http://[::1",
        "http://host?registry=a",
        "http://host#a",
        "",
    ],
)
def test_what_is_no_address_of_a_daemon_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        checked_address(text)


def test_a_refused_address_is_told_without_its_password() -> None:
    with pytest.raises(AddressError) as caught:
        checked_address("http://user:hunter2@host?a")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:9466", "http://127.0.0.1:9466"),
        ("[::1]:9466", "http://[::1]:9466"),
        ("localhost:1", "http://localhost:1"),
    ],
)
def test_a_configured_daemon_is_asked_where_it_listens(listen: str, address: str) -> None:
    assert configured_address(ServerSettings(listen=listen)) == address


@pytest.mark.parametrize(
    ("listen", "address"), [("0.0.0.0:80", "http://127.0.0.1:80"), ("[::]:80", "http://[::1]:80")]
)
def test_a_daemon_that_listens_everywhere_is_asked_on_this_machine(listen: str, address: str) -> None:
    assert configured_address(ServerSettings(listen=listen, allow_non_loopback=True)) == address


def test_a_port_that_the_system_chooses_is_known_to_nobody() -> None:
    with pytest.raises(AddressError, match="--daemon"):
        configured_address(ServerSettings(listen="127.0.0.1:0"))

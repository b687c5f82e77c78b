"""Which addresses may be connected to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.alerts.addresses import AddressPolicy, literal_address

PUBLIC_ONLY = AddressPolicy()


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "this network"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.100.100.200", "carrier-grade NAT"),
        ("169.254.169.254", "link-local"),
        ("168.63.129.16", "cloud platform service"),
        ("192.0.0.192", "protocol assignments"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::127.0.0.1", "reserved"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b:1::1", "reserved"),
        ("2002:7f00:1::", "6to4 tunnel"),
        ("2001:0:7f00:1::", "protocol assignments"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("ff02::1", "multicast"),
    ],
)
def test_addresses_that_are_not_public_are_refused_by_kind(address: str, kind: str) -> None:
    assert PUBLIC_ONLY.refusal(address) == kind


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "172.32.0.1", "100.128.0.1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700::1111"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert PUBLIC_ONLY.refusal(address) is None


def test_only_the_networks_named_are_let_through() -> None:
    policy = AddressPolicy.from_cidrs(["10.0.0.0/8", "fd00::/8"])

    assert policy.refusal("10.9.8.7") is None
    assert policy.refusal("::ffff:10.9.8.7") is None
    assert policy.refusal("fd12::1") is None
    assert policy.refusal("192.168.0.1") == "private"
    assert policy.refusal("fc00::1") == "private"


def test_text_that_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="ten-slash-eight"):
        AddressPolicy.from_cidrs(["ten-slash-eight"])


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_nothing_that_python_calls_not_global_is_let_through(address: object) -> None:
    # An independent table of the same registries; it may be shorter than ours, so one direction only.
    if not address.is_global or address.is_multicast:  # type: ignore[attr-defined]
        assert PUBLIC_ONLY.refusal(str(address)) is not None


@settings(deadline=None)
@given(st.ip_addresses(v=6))
def test_nothing_in_ipv6_that_python_calls_not_global_is_let_through(address: object) -> None:
    carries_ipv4 = address.ipv4_mapped is not None  # type: ignore[attr-defined]
    if not carries_ipv4 and (not address.is_global or address.is_multicast):  # type: ignore[attr-defined]
        assert PUBLIC_ONLY.refusal(str(address)) is not None


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_ipv6_clothes_is_judged_as_what_it_is(address: object) -> None:
    assert PUBLIC_ONLY.refusal(f"::ffff:{address}") == PUBLIC_ONLY.refusal(str(address))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        # inet_aton(3): each part decimal, octal or hex, the last one fills what is left.
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.257", "127.0.1.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.0.0.0x1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("fe80::1%25eth0", "fe80::1%25eth0"),
        ("4294967296", None),
        ("127.0.0.256", None),
        ("1.2.3.4.5", None),
        ("127.0.0.1..", None),
        ("hooks.example", None),
        ("0x7g.1", None),
        ("", None),
    ],
)
def test_every_form_that_resolvers_take_for_an_address_is_one(host: str, address: str | None) -> None:
    assert literal_address(host) == address


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_an_address_as_one_number_is_the_same_address(address: object) -> None:
    for form in (str(int(address)), hex(int(address)), f"0{int(address):o}"):  # type: ignore[call-overload]
        assert literal_address(form) == str(address)

"""Which addresses a webhook may be sent to: public ones, and private ones only where the configuration says so.

A webhook URL is often written by someone with fewer rights than the daemon, and the daemon sits inside the
network; without this check it would talk to cloud metadata services and internal APIs on that person's behalf.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA special-purpose registries (RFC 6890 and updates). Written out because what ipaddress.is_global answers
# changes between patch releases of Python.
_REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), name)
    for network, name in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        # The one platform service with a public address: Azure's, reachable from inside every virtual machine.
        ("168.63.129.16/32", "cloud platform service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4 tunnel"),
        ("3fff::/20", "documentation"),
    )
)
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Public addresses, and whatever lies in ``allowed``."""

    allowed: tuple[Network, ...] = ()

    @classmethod
    def from_cidrs(cls, cidrs: Iterable[str]) -> Self:
        """A policy that also allows these networks, for example ``10.0.0.0/8``.

        Raises:
            ValueError: for text that is no network.
        """
        return cls(tuple(ip_network(cidr) for cidr in cidrs))

    def refusal(self, address: str) -> str | None:
        """Why ``address`` must not be connected to, in one or two words; None when it may be.

        IPv6 addresses that carry an IPv4 address to connect to (IPv4-mapped, RFC 4291 2.5.5.2; NAT64, RFC 6052)
        are judged by that address.

        Args:
            address: IPv4 or IPv6 address, the latter with or without a zone (``fe80::1%eth0``).

        Raises:
            ValueError: for text that is no address.
        """
        written = ip_address(address)
        reached = _reached(written)
        if any(candidate in network for candidate in (written, reached) for network in self.allowed):
            return None
        for network, name in _REFUSED:
            if reached in network:
                return name
        if isinstance(reached, IPv6Address) and reached not in _GLOBAL_IPV6:
            return "reserved"
        return None


def literal_address(host: str) -> str | None:
    """The address that ``host`` is, in its usual form; None when it is a name.

    Resolvers take more forms of IPv4 than four decimal numbers (inet_aton(3)): ``2130706433``, ``0x7f.1``,
    ``0177.0.0.1`` and ``127.1`` are all 127.0.0.1.

    Args:
        host: of a URL, in ASCII, with or without a dot at its end.
    """
    text = host.removesuffix(".")
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        return None


def _reached(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address

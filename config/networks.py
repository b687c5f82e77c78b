"""Networks as they are written in a configuration."""

from __future__ import annotations

import ipaddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(text: str) -> Network:
    """The network; raises ValueError unless it is written with its network address."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8 or fd00::/8") from None
    if ipaddress.ip_interface(text).ip != found.network_address:
        raise ValueError(f"has bits set beyond its prefix; write {found} for that network")
    return found

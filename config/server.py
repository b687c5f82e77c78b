"""Where the daemon listens, and who may change its state."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from layerwatch.config.base import NO_SWITCH, SettingsModel
from layerwatch.config.networks import network
from layerwatch.config.secrets import Secret

_BRACKETED = re.compile(r"\[([^\[\]]+)\]:([0-9]{1,5})")
_PLAIN = re.compile(r"([^\s:/@\[\]]+):([0-9]{1,5})")

_HEADER = r"^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$"
_OTHER_HEADERS = frozenset(
    (
        *(
            "accept",
            "authorization",
            "cookie",
            "forwarded",
            "host",
            "origin",
            "proxy-authorization",
            "referer",
        ),
        *("user-agent", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"),
    )
)


def _checked_proxies(text: str) -> str:
    found = network(text)
    if found.prefixlen == 0:
        raise ValueError(
            "is everybody: whoever reaches the port could say who they are; name the proxy's addresses"
        )
    return str(found)


def _checked_header(name: str) -> str:
    if re.fullmatch(_HEADER, name) is None:
        raise ValueError("must be the name of a header, such as X-Forwarded-User")
    if name.lower() in _OTHER_HEADERS or name.lower().startswith("sec-"):
        raise ValueError(
            "does not say who somebody is; name the header that the proxy sets, such as X-Forwarded-User"
        )
    return name


class ServerSettings(SettingsModel):
    """The one HTTP port: metrics, health, API, hooks, pages."""

    allow_non_loopback: bool = False
    """Whether `listen` may be an address that other machines can reach."""

    listen: str = "127.0.0.1:9466"
    """HOST:PORT to listen on; [HOST]:PORT for IPv6; port 0 takes any free port."""

    token: Secret | None = None
    """Bearer token that every request which changes state must carry; without one, such requests are refused."""

    external_url: str | None = None
    """The http(s) URL under which people reach this server, for links in alerts."""

    max_series_per_model: Annotated[int, Field(ge=0), NO_SWITCH] = 10_000
    """Gauges per layer that one model may export; beyond it the least conspicuous layers are left out."""

    trusted_proxies: tuple[Annotated[str, AfterValidator(_checked_proxies)], ...] = ()
    """Networks of the proxies that say in `user_header` who somebody is; nobody is believed by default."""

    user_header: (
        Annotated[
            str, AfterValidator(_checked_header), WithJsonSchema({"type": "string", "pattern": _HEADER})
        ]
        | None
    ) = None
    """Header in which these proxies name the person; they must take it out of what clients send."""

    @field_validator("listen")
    @classmethod
    def _checked_listen(cls, listen: str, info: ValidationInfo) -> str:
        host, _ = _split_listen(listen)
        # Absent when allow_non_loopback is itself wrong: that mistake is reported on its own.
        if info.data.get("allow_non_loopback") is False and not _is_loopback(host):
            raise ValueError(
                f"{host} can be reached from other machines; set server.allow_non_loopback: true if that is "
                "meant, or listen on 127.0.0.1"
            )
        return listen

    @field_validator("external_url")
    @classmethod
    def _checked_external_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("must be a URL such as https://layerwatch.example.org")
        if "@" in parts.netloc:
            raise ValueError("must not hold a user or password: it is shown in alerts")
        if parts.query or parts.fragment:
            raise ValueError("must not hold a ? or # part: paths are appended to it")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _proxies_and_their_header(self) -> Self:
        if bool(self.trusted_proxies) != (self.user_header is not None):
            raise ValueError("trusted_proxies and user_header belong together; give both, or neither")
        return self

    @property
    def host(self) -> str:
        """The host part of ``listen``; an IPv6 address without its brackets."""
        return _split_listen(self.listen)[0]

    @property
    def port(self) -> int:
        """The port part of ``listen``, 0 to 65535; 0 means any free port."""
        return _split_listen(self.listen)[1]


def _split_listen(listen: str) -> tuple[str, int]:
    bracketed = _BRACKETED.fullmatch(listen)
    match = bracketed or _PLAIN.fullmatch(listen)
    if match is None or int(match[2]) > 65_535 or (bracketed and not _is_ipv6(match[1])):
        raise ValueError(
            "must be HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:9466 or [::1]:9466"
        )
    return match[1], int(match[2])


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"

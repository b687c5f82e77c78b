"""Where the daemon listens that is to be followed."""

from __future__ import annotations

from urllib.parse import urlsplit

from layerwatch.config.secrets import redact_url
from layerwatch.config.server import ServerSettings
from layerwatch.config.wording import quote

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class AddressError(ValueError):
    """An address that cannot be a daemon's; the text says why."""


def is_address(text: str) -> bool:
    """Whether an argument is an address rather than the name of a model."""
    return text.startswith(("http://", "https://"))


def checked_address(text: str) -> str:
    """An address as a person gave it, without a slash at its end.

    Raises:
        AddressError.
    """
    shown = quote(redact_url(text))
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise AddressError(f"{shown}: {error}") from None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise AddressError(f"{shown}: must be the address of a daemon, such as http://127.0.0.1:9466")
    if url.query or url.fragment:
        raise AddressError(f"{shown}: must not hold a ? or # part: paths are appended to it")
    return text.rstrip("/")


def configured_address(server: ServerSettings) -> str:
    """Where a daemon with these settings listens, seen from this machine.

    Raises:
        AddressError: it chooses its port itself.
    """
    if server.port == 0:
        raise AddressError("server.listen leaves the port to the system: give the address with --daemon")
    host = _EVERYWHERE.get(server.host, server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"

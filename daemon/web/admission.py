"""In whose name a page changes something: with the server's token, or as the person that a trusted proxy names.

A proxy's word is with every request of a browser, whoever made the browser send it. So a form is only taken in its name
when it was posted by a page of this server, and carries what was given to that person not long ago.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from layerwatch.alerts.people import LONGEST_NAME, checked_name
from layerwatch.alerts.text import plain
from layerwatch.config.server import ServerSettings
from layerwatch.config.settings import Settings
from layerwatch.daemon.store.auditlog import Actor, Authentication
from layerwatch.daemon.web.access import require_token

FORM_LIFETIME = timedelta(hours=4)
"""A form that was open for longer is sent once more."""

_USUAL_PORTS = {"http": ":80", "https": ":443"}


class ForeignFormError(HTTPException):
    """A form that no page of this server posted."""

    def __init__(self) -> None:
        super().__init__(403, "This form was not posted by a page of this server. Nothing was changed.")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page, as far as forms are concerned.

    Attributes:
        user: as a trusted proxy names them; None where changes need the token.
        form_token: goes with what they post; empty without a user.
        may_change: False where nothing can be changed through pages.
    """

    user: str | None
    form_token: str
    may_change: bool


class FormTokens:
    """Signed tokens for forms, each for one person and for a while. They end with this process."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)

    def issue(self, user: str) -> str:
        """A token for what this person posts."""
        ends_at = int((self._clock() + FORM_LIFETIME).timestamp())
        return f"{ends_at}.{self._signature(user, ends_at)}"

    def is_valid(self, token: str, user: str) -> bool:
        """Whether it was issued to this person, and is not too old."""
        text, _, signature = token.partition(".")
        ends_at = int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else 0
        genuine = hmac.compare_digest(signature.encode(), self._signature(user, ends_at).encode())
        return genuine and self._clock().timestamp() < ends_at

    def _signature(self, user: str, ends_at: int) -> str:
        return hmac.new(self._secret, json.dumps([user, ends_at]).encode(), hashlib.sha256).hexdigest()


class Admission:
    """Knows visitors of pages, and admits what they post.

    Args:
        settings: gives the configuration in force.
        clock: tz-aware time now.
    """

    def __init__(self, settings: Callable[[], Settings], clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._tokens = FormTokens(clock)

    def visitor(self, request: Request) -> Visitor:
        """Who asks for a page."""
        server = self._settings().server
        user = proxy_user(request, server)
        if user is None:
            return Visitor(None, "", may_change=server.token is not None)
        return Visitor(user, self._tokens.issue(user), may_change=True)

    def actor(self, request: Request, fields: Mapping[str, str]) -> Actor:
        """In whose name what was posted is done.

        Args:
            fields: of the form: ``form_token`` from where a proxy names the person, else ``by`` and ``token``.

        Raises:
            ForeignFormError: a page of another site made the browser post it.
            HTTPException: 401 for a wrong token of the server, 403 for a form that is too old.
            EntryError: the name cannot be taken.
        """
        settings = self._settings()
        user = proxy_user(request, settings.server)
        if user is None:
            require_token(settings, f"Bearer {fields.get('token', '')}")
            return Actor(checked_name(fields.get("by", ""), "by"), Authentication.TOKEN)
        if not _is_own_page(request, settings.server):
            raise ForeignFormError
        if not self._tokens.is_valid(fields.get("form_token", ""), user):
            raise HTTPException(
                403, "This form was open for too long. Nothing was changed: send it once more."
            )
        return Actor(user, Authentication.PROXY)


def proxy_user(request: Request, server: ServerSettings) -> str | None:
    """The person that a trusted proxy names, or None.

    A name that is too long, given twice, or has characters that cannot be seen is none: it could be taken for another.
    """
    if server.user_header is None or request.client is None:
        return None
    if not _is_among(request.client.host, server.trusted_proxies):
        return None
    given = request.headers.getlist(server.user_header)
    if len(given) != 1:
        return None
    try:
        # Headers come as Latin-1, and proxies write UTF-8.
        name = given[0].encode("latin-1").decode("utf-8").strip()
    except UnicodeError:
        return None
    return name if name and name == plain(name, LONGEST_NAME) else None


def _is_among(host: str, networks: Iterable[str]) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        # How a socket for both kinds sees the peers of one.
        address = address.ipv4_mapped
    return any(address in ipaddress.ip_network(network) for network in networks)


def _is_own_page(request: Request, server: ServerSettings) -> bool:
    """Whether the browser says that a page of this server posts. Only behind a trusted proxy: its headers are believed."""
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site == "same-origin"
    # Browsers leave it out where the address is plain http.
    source = request.headers.get("origin") or request.headers.get("referer", "")
    own = {_host(f"//{request.headers.get(name, '')}") for name in ("host", "x-forwarded-host")}
    own.add(_host(server.external_url or ""))
    return _host(source) in own - {""}


def _host(url: str) -> str:
    """Host and port of a URL in lower case, without the port that goes without saying; empty where there is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = parts.netloc.lower()
    if any(character in host for character in "@, "):
        return ""
    usual = (_USUAL_PORTS.get(parts.scheme),) if parts.scheme else _USUAL_PORTS.values()
    return next((host.removesuffix(port) for port in usual if port and host.endswith(port)), host)

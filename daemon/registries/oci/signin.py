"""Signing in to an OCI registry: Basic and Bearer, with the credentials of one registry and for it alone."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from http.cookiejar import DefaultCookiePolicy
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import requests
from oras.auth.base import AuthBackend
from oras.auth.utils import parse_auth_header

from layerwatch.config.registries import OciRegistrySettings
from layerwatch.config.secrets import SecretError
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.oci.answers import (
    NotThere,
    explain,
    read_bounded,
    refusal,
    require_success,
    same_host,
    without_query,
)
from layerwatch.daemon.registries.pace import Deadline
from layerwatch.daemon.registries.sessions import BoundedSession

SCOPE = "X-Layerwatch-Scope"
"""Tells the sign-in which token a request needs; it is taken off before anything is sent."""

_REDIRECTS = 5
_CONNECTIONS = 10
_TOKEN_BODY = 256 * 1024
_MOST_TOKENS = 256


class Session(BoundedSession):
    """Waits no longer than the timeout, reads no ``~/.netrc``, and keeps credentials from other hosts."""

    def __init__(self, timeout: float) -> None:
        super().__init__(_CONNECTIONS)
        self._timeout = timeout
        self.max_redirects = _REDIRECTS
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.auth = _no_netrc

    def request(self, method: str | bytes, url: str | bytes, *rest: Any, **named: Any) -> requests.Response:
        """As in requests, within the timeout."""
        named.setdefault("timeout", self._timeout)
        named["headers"] = {key: value for key, value in (named.get("headers") or {}).items() if key != SCOPE}
        return super().request(method, url, *rest, **named)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Where a redirect leads to another host, credentials stay behind."""
        elsewhere: bool = self.should_strip_auth(  # type: ignore[no-untyped-call]
            response.request.url or "", prepared_request.url or ""
        )
        if elsewhere:
            prepared_request.headers.pop("Authorization", None)


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class SignIn(AuthBackend):  # type: ignore[misc]
    """Answers a registry's challenge, Basic or Bearer, with the credentials of this registry alone."""

    def __init__(self, settings: OciRegistrySettings, session: Session, verify: bool | str) -> None:
        super().__init__()
        self._settings = settings
        self._session = session
        self._verify = verify
        self._lock = Lock()
        self._basic = False
        self._server: str | None = None
        self._tokens: OrderedDict[str, str] = OrderedDict()

    def known(self, scope: str) -> dict[str, str]:
        """The header for a scope, as far as it is known what is asked for; raises RegistryUnavailable."""
        with self._lock:
            token, basic, server = self._tokens.get(scope), self._basic, self._server
        if token is None and server is not None and self._settings.username is not None:
            wanted = f"repository:{scope}:pull" if scope else "registry:catalog:*"
            token = self._new_token(scope, server, wanted)
        if token is not None:
            return {"Authorization": f"Bearer {token}"}
        return {"Authorization": self._credentials()} if basic else {}

    def authenticate_request(
        self, original: requests.Response, headers: dict[str, str], refresh: bool = False
    ) -> tuple[dict[str, str], bool]:
        """Called by oras after a 401 or 403.

        Raises:
            RegistryUnavailable: there is nothing better to answer.
        """
        scope = headers.get(SCOPE, "")
        challenge = original.headers.get("WWW-Authenticate", "")
        original.close()
        scheme = challenge.partition(" ")[0].lower()
        sent = headers.get("Authorization")
        if refresh or not same_host(original.url, self._settings.url):
            # Only the registry itself is told who asks, never the storage that it sends us to.
            raise self._refused(original)
        if scheme == "basic":
            if self._settings.username is None or sent == self._credentials():
                raise self._refused(original)
            with self._lock:
                self._basic = True
            return {**headers, "Authorization": self._credentials()}, True
        if scheme == "bearer":
            token = self._new_token(scope, challenge)
            return {**headers, "Authorization": f"Bearer {token}"}, True
        raise self._refused(original)

    def _credentials(self) -> str:
        password = ""
        if self._settings.password is not None:
            try:
                password = self._settings.password.reveal()
            except SecretError as error:
                detail = f"{self._settings.url}: its password cannot be read: {error.detail}"
                raise RegistryUnavailable(RegistryReason.NOT_PERMITTED, detail) from error
        pair = f"{self._settings.username}:{password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def _new_token(self, scope: str, challenge: str, wanted: str | None = None) -> str:
        token = self._token(challenge, wanted)
        with self._lock:
            self._server = challenge
            self._tokens[scope] = token
            if len(self._tokens) > _MOST_TOKENS:
                self._tokens.popitem(last=False)
        return token

    def _token(self, challenge: str, wanted: str | None) -> str:
        """A token from the server that the challenge names (the Docker token protocol)."""
        asked = parse_auth_header(challenge)
        realm = urlsplit(asked.realm or "")
        secure = self._settings.url.startswith("https:")
        if realm.scheme not in (("https",) if secure else ("http", "https")) or not realm.hostname:
            raise RegistryUnavailable(
                RegistryReason.BAD_RESPONSE,
                f"{self._settings.url} sends us to {realm.scheme or 'nowhere'}://{realm.hostname or ''} for a token; "
                "credentials are not sent there",
            )
        params = {
            key: value
            for key, value in (("service", asked.service), ("scope", wanted or asked.scope))
            if value
        }
        headers = {} if self._settings.username is None else {"Authorization": self._credentials()}
        address = f"{realm.scheme}://{realm.netloc.rpartition('@')[2]}{realm.path}"
        deadline = Deadline(f"GET {address}", self._settings.timeout)
        try:
            response = self._session.get(
                asked.realm,
                params=params,
                headers=headers,
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            )
            with response:
                require_success(response, "GET", address, self._settings)
                answer = json.loads(read_bounded(response, _TOKEN_BODY, address, deadline))
        except OSError as error:
            raise explain(error, "GET", address, self._settings) from error
        except NotThere as error:
            # The server of tokens is missing, not what a token was asked for.
            raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, error.detail) from error
        except (ValueError, RecursionError) as error:
            raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, f"GET {address}: no JSON came") from error
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryUnavailable(
                RegistryReason.BAD_RESPONSE, f"GET {address}: its answer holds no token"
            )
        return token

    def _refused(self, response: requests.Response) -> RegistryUnavailable:
        return refusal(response, "GET", without_query(response.url), self._settings)

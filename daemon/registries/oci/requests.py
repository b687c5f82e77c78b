"""Requests to one OCI registry, with bounded answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import Lock
from urllib.parse import parse_qs, urlsplit

import requests
from oras.provider import Registry as OrasRegistry

from layerwatch.config.registries import OciRegistrySettings
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.oci.answers import (
    NotThere,
    explain,
    first_byte,
    read_bounded,
    require_success,
    without_query,
)
from layerwatch.daemon.registries.oci.signin import SCOPE, Session, SignIn
from layerwatch.daemon.registries.pace import Deadline, paced
from layerwatch.daemon.registries.sessions import arriving, cutting, part_of


class _Oras(OrasRegistry):  # type: ignore[misc]
    """oras' client without its own retries, which would hold a look for two minutes."""

    once = OrasRegistry.do_request.__wrapped__


class Connection:
    """One registry. Safe for several threads.

    Args:
        settings: its address, credentials, authorities and timeout.
    """

    def __init__(self, settings: OciRegistrySettings) -> None:
        self._settings = settings
        self.url = settings.url
        self.host = urlsplit(settings.url).netloc
        verify = True if settings.ca_file is None else str(settings.ca_file)
        self._session = Session(settings.timeout.total_seconds())
        self._sign_in = SignIn(settings, self._session, verify)
        self._oras = _Oras(hostname=self.host, tls_verify=verify)
        self._oras.session = self._session
        self._oras.auth = self._sign_in
        self._greeted = settings.username is None
        self._greeting = Lock()

    def __repr__(self) -> str:
        return f"Connection({self.url})"

    def small(
        self, path: str, scope: str, limit: int, accept: str = "application/json", method: str = "GET"
    ) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of a small answer.

        Args:
            path: below ``/v2``, with its query.
            scope: what it is about (a repository's name, or nothing); tokens are kept for each.
            limit: larger bodies are refused.

        Raises:
            RegistryUnavailable: NOT_FOUND on 404, BAD_RESPONSE on a larger body, and all else that can go wrong.
        """
        deadline = Deadline(f"{method} {self._address(path)}", self._settings.timeout)
        with self._ask(method, path, scope, {"Accept": accept}) as response:
            try:
                return read_bounded(response, limit, self._address(path), deadline), response.headers
            except OSError as error:
                raise explain(error, method, self._address(path), self._settings) from error

    def stream(self, path: str, scope: str, begin: int, end: int) -> Iterator[bytes]:
        """Bytes ``begin`` to ``end`` of a blob, as they arrive; raises RegistryUnavailable."""
        if end <= begin:
            return
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "Range": f"bytes={begin}-{end - 1}"}
        address = self._address(path)
        with self._ask("GET", path, scope, headers) as response:
            position = first_byte(response, begin, address)
            try:
                blocks = paced(
                    arriving(response), f"GET {address}", self._settings.timeout, cutting(response)
                )
                yield from part_of(blocks, position, begin, end)
            except OSError as error:
                raise explain(error, "GET", address, self._settings) from error

    def _ask(self, method: str, path: str, scope: str, headers: dict[str, str]) -> requests.Response:
        self._greet()
        return self._once(method, path, scope, headers)

    def _once(self, method: str, path: str, scope: str, headers: dict[str, str]) -> requests.Response:
        """A successful answer whose body is not read yet."""
        address = self._address(path)
        sent = {**headers, SCOPE: scope, **self._sign_in.known(scope)}
        try:
            response: requests.Response = self._oras.once(
                f"{self.url}/v2/{path}", method, headers=sent, stream=True
            )
        except OSError as error:
            raise explain(error, method, address, self._settings) from error
        except ValueError as error:
            detail = f"{method} {address}: the answer cannot be understood"
            raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, detail) from error
        try:
            require_success(response, method, address, self._settings)
        except RegistryUnavailable:
            response.close()
            raise
        return response

    def _greet(self) -> None:
        """Sign in before the first request: some registries show a stranger less, without asking who he is."""
        with self._greeting:
            if self._greeted:
                return
            with suppress(NotThere):  # which is told by what is asked for next
                self._once("GET", "", "", {"Accept": "application/json"}).close()
            self._greeted = True

    def _address(self, path: str) -> str:
        return without_query(f"{self.url}/v2/{path}")


def next_query(link: str) -> tuple[str | None, str | None] | None:
    """``n`` and ``last`` of a ``Link`` header that leads to a next page, or None.

    Nothing else is taken from it: a registry cannot send us to another host or path by it.
    """
    for part in link.split(","):
        target, _, parameters = part.partition(";")
        if 'rel="next"' in parameters.replace(" ", "").lower() or "rel=next" in parameters.lower():
            query = parse_qs(urlsplit(target.strip().strip("<>")).query)
            return query.get("n", [None])[0], query.get("last", [None])[0]
    return None

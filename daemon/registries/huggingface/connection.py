"""How one Hub is spoken to: by its own client library, over connections that belong to one registry alone.

The library has one HTTP client for the whole process, repeats what fails for minutes, follows page links with
credentials wherever they lead, and reads answers of any size. Its documented hook for other clients
(``set_client_factory``) puts a client in that place which hands every request of a registry to that registry's own
connection: its certificates, its timeouts, at most one repetition, and nothing that leads to another host.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakSet

import httpx2
from huggingface_hub import HfApi, constants, is_offline_mode, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined] # public, though not in an __all__
    build_hf_headers,
    parse_ratelimit_headers,
)

from layerwatch import __version__
from layerwatch.config.secrets import Secret, SecretError
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.pace import Deadline, cut_off, longest, paced

# Else each header that is built tells which agent runs the process, after asking the public Hub for a list of them.
constants.HF_HUB_DISABLE_TELEMETRY = True

Answer = TypeVar("Answer")

_LIBRARY = "layerwatch"
_LONGEST_CONNECT = 10.0
"""Seconds after which a host that does not even accept a connection is given up."""

_LARGEST_ANSWER = 64 * 2**20
_MOST_PAGES = 10_000
_MOST_REDIRECTS = 5
_LONGEST_SILENCE = 3600.0
"""Seconds; a server that asks to be left alone for longer is asked again nevertheless."""

_BROKEN_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""Trouble of TLS that is none of certificates."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONNECTED = ("connect_tcp.complete", "start_tls.complete")
"""What the client tells of a connection once it is there; it has a socket then, and with TLS another one."""

_GONE_CODES = frozenset({"RevisionNotFound", "EntryNotFound"})
_NOT_OURS = frozenset({"content-encoding", "transfer-encoding", "content-length"})
"""Headers of the body as it came over the wire."""


class RepositoryGone(RegistryUnavailable):
    """The Hub says that there is no such repository, or none that this token may know of."""


class HubConnection:
    """The way to one Hub. Safe for several threads.

    Args:
        endpoint: its address; None for the public one, or what HF_ENDPOINT said when the process began.
        token: read anew for each question; None sends none, whatever the machine has stored.
        ca_file: authorities of its certificate; None for the usual ones.
        timeout: for each answer, and each piece of a download.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        endpoint: str | None,
        token: Secret | None,
        ca_file: Path | None,
        timeout: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._origin = _origin(httpx2.URL(self.endpoint))
        self._token = token
        self._ca_file = ca_file
        self._patience = timeout
        seconds = timeout.total_seconds()
        self._timeout = httpx2.Timeout(seconds, connect=min(seconds, _LONGEST_CONNECT))
        self._clock = clock
        self._silent_until: dict[str, float] = {}
        self._lock = Lock()
        self._connected: WeakSet[socket.socket] = WeakSet()

    def ask(self, what: str, question: Callable[[HfApi], Answer]) -> Answer:
        """Put a question to the library's client; everything lazy in the answer must be read inside the question.

        Args:
            what: what is asked for, for the error.

        Raises:
            RegistryUnavailable: RepositoryGone when there is no such repository, VERSION_GONE no such revision.
        """
        api = HfApi(self.endpoint, self._credential() or False, _LIBRARY, __version__)
        previous = _CONVERSATION.set(_Conversation(self, what))
        try:
            return question(api)
        except HfHubHTTPError as error:
            raise self._refusal(what, error.response) from None
        except (httpx2.HTTPError, httpx2.InvalidURL):
            raise RegistryUnavailable(
                RegistryReason.BAD_RESPONSE, f"{what}: {self.endpoint} gave an answer that cannot be followed"
            ) from None
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise RegistryUnavailable(
                RegistryReason.BAD_RESPONSE,
                f"{what}: the answer of {self.endpoint} is not one of a Hugging Face Hub "
                f"({type(error).__name__}): check the registry's url",
            ) from None
        finally:
            _CONVERSATION.reset(previous)

    def headers(self) -> dict[str, str]:
        """Headers of a request to the Hub itself; they hold the token."""
        headers: dict[str, str] = build_hf_headers(
            token=self._credential() or False, library_name=_LIBRARY, library_version=__version__
        )
        return headers

    def fetch(self, what: str, url: str, begin: int, end: int) -> Iterator[bytes]:
        """Bytes of a file, as they arrive; see :meth:`Source.stream`."""
        if end <= begin:
            return
        with self._opened(what, url, begin, end) as response:
            skipped = self._bytes_to_skip(what, response, begin)
            left = end - begin
            for block in paced(response.iter_raw(), what, self._patience, _cutting(response)):
                if skipped >= len(block):
                    skipped -= len(block)
                    continue
                piece = block[skipped : skipped + left]
                skipped = 0
                yield piece
                left -= len(piece)
                if not left:
                    return

    def answer(self, what: str, request: httpx2.Request) -> httpx2.Response:
        """Send a request of the library; for what it would repeat, RegistryUnavailable is raised instead."""
        request.extensions = {**request.extensions, "timeout": self._timeout.as_dict()}
        for _ in range(_MOST_REDIRECTS + 1):
            if _origin(request.url) != self._origin:
                raise RegistryUnavailable(
                    RegistryReason.BAD_RESPONSE,
                    f"{what}: {self.endpoint} points to the host {request.url.host}, which is not asked: set the "
                    "registry's url to the address where the Hub itself is",
                )
            self._require_speech("api", what)
            deadline = Deadline(f"{what}: {self.endpoint}", self._patience)
            response = self._sent_twice(what, request)
            try:
                self._heed("api", response.headers)
                if response.status_code in _REDIRECTS and request.method in ("GET", "HEAD"):
                    request = _redirected(request, response)
                    continue
                if response.status_code >= 500 or response.status_code in (408, 429):
                    raise self._refusal(what, response)
                # The library would repeat in its errors what a server says, which may be what it was sent.
                body = self._body(what, response, deadline) if response.status_code < 400 else b""
            finally:
                response.close()
            headers = [
                (name, value) for name, value in response.headers.multi_items() if name not in _NOT_OURS
            ]
            return httpx2.Response(response.status_code, headers=headers, content=body, request=request)
        raise _too_many_redirects(what)

    def _sent_twice(self, what: str, request: httpx2.Request) -> httpx2.Response:
        """Once more when the connection broke: a kept one may have been closed meanwhile by the server."""
        with self._reaching(what):
            try:
                return self._sent(self._api, request)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                return self._sent(self._api, request)

    def _sent(self, client: httpx2.Client, request: httpx2.Request) -> httpx2.Response:
        """Status and headers, within the time for an answer; they may dribble, and each byte would renew the timeout.

        It is not known on which of the kept connections they come, so that all are cut: they lead to the same server.
        """
        request.extensions = {**request.extensions, "trace": self._note_connection}
        with cut_off(longest(self._patience), self._cut_all) as happened:
            try:
                return client.send(request, stream=True)
            except httpx2.HTTPError as error:
                if happened.is_set():
                    raise httpx2.ReadTimeout("the headers took too long", request=request) from error
                raise

    def _note_connection(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(_CONNECTED):
            connected = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._connected.add(connected)

    def _cut_all(self) -> None:
        with self._lock:
            connected = list(self._connected)
        for one in connected:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _body(self, what: str, response: httpx2.Response, deadline: Deadline) -> bytes:
        pieces: list[bytes] = []
        size = 0
        with self._reaching(what):
            for piece in deadline.kept(response.iter_bytes(), _cutting(response)):
                size += len(piece)
                if size > _LARGEST_ANSWER:
                    raise RegistryUnavailable(
                        RegistryReason.BAD_RESPONSE,
                        f"{what}: the answer of {self.endpoint} is larger than {_LARGEST_ANSWER} bytes",
                    )
                pieces.append(piece)
        return b"".join(pieces)

    @contextmanager
    def _opened(self, what: str, url: str, begin: int, end: int) -> Iterator[httpx2.Response]:
        """The answer to a request for a file, wherever the Hub keeps it; the token stays with the Hub."""
        own = self.headers()
        plain = {"user-agent": own["user-agent"], "accept-encoding": "identity"}
        plain["range"] = f"bytes={begin}-{end - 1}"
        request = self._files.build_request("GET", url, headers=plain)
        for _ in range(_MOST_REDIRECTS + 1):
            at_home = _origin(request.url) == self._origin
            if at_home:
                self._require_speech("files", what)
                if "authorization" in own:
                    request.headers["authorization"] = own["authorization"]
            elif self._origin[0] == "https" and request.url.scheme != "https":
                raise RegistryUnavailable(
                    RegistryReason.BAD_RESPONSE, f"{what}: {self.endpoint} points to an address without TLS"
                )
            with self._reaching(what):
                response = self._sent(self._files, request)
                try:
                    if at_home:
                        self._heed("files", response.headers)
                    if response.status_code not in _REDIRECTS:
                        if response.status_code not in (200, 206):
                            raise _as_of_file(self._refusal(what, response, at_home))
                        yield response
                        return
                    request = self._files.build_request(
                        "GET", _redirected(request, response).url, headers=plain
                    )
                finally:
                    response.close()
        raise _too_many_redirects(what)

    def _bytes_to_skip(self, what: str, response: httpx2.Response, begin: int) -> int:
        encoding = response.headers.get("content-encoding", "identity")
        told = re.match(r"bytes (\d{1,18})-", response.headers.get("content-range", ""))
        starts = 0 if response.status_code == 200 else int(told[1]) if told else -1
        if encoding != "identity" or not 0 <= starts <= begin:
            raise RegistryUnavailable(
                RegistryReason.BAD_RESPONSE, f"{what}: other bytes came than those from {begin} on"
            )
        return begin - starts

    def _require_speech(self, kind: str, what: str) -> None:
        if is_offline_mode():
            raise RegistryUnavailable(
                RegistryReason.NOT_PERMITTED, f"{what}: HF_HUB_OFFLINE forbids it: unset it for the daemon"
            )
        with self._lock:
            left = self._silent_until.get(kind, 0.0) - self._clock()
        if left > 0:
            raise RegistryUnavailable(
                RegistryReason.RATE_LIMITED,
                f"{what}: the allowance of requests to {self.endpoint} is used up for another {left:.0f} s; a token "
                "has a larger one",
                timedelta(seconds=left),
            )

    def _heed(self, kind: str, headers: httpx2.Headers) -> None:
        """Stop before the server has to refuse: it says with each answer how many requests are left."""
        limit = parse_ratelimit_headers(headers)
        if limit is not None and limit.remaining == 0:
            self._be_silent(kind, float(limit.reset_in_seconds))

    def _be_silent(self, kind: str, seconds: float) -> None:
        with self._lock:
            self._silent_until[kind] = self._clock() + min(seconds, _LONGEST_SILENCE)

    def _refusal(self, what: str, response: httpx2.Response, at_home: bool = True) -> RegistryUnavailable:
        """What an answer that is no answer means. Nothing of its text is repeated."""
        status = response.status_code
        host = self.endpoint if at_home else f"{response.url.host}, where {self.endpoint} keeps its files,"
        said = f"{what}: {host} answered {status}"
        if status == 429:
            after = _retry_after(response.headers)
            return RegistryUnavailable(
                RegistryReason.RATE_LIMITED,
                f"{said}: too many requests; a token has a larger allowance",
                after,
            )
        if status >= 500 or status == 408:
            return RegistryUnavailable(RegistryReason.SERVER_ERROR, said, _retry_after(response.headers))
        if not at_home:
            # Addresses of stored files expire; the next attempt gets a fresh one.
            return RegistryUnavailable(RegistryReason.SERVER_ERROR, said)
        code = response.headers.get("x-error-code")
        if code == "GatedRepo":
            return RegistryUnavailable(
                RegistryReason.NOT_PERMITTED,
                f"{said}: the repository is gated: accept its conditions on its page and set the registry's token",
            )
        if code == "RepoNotFound" and (status == 404 or self._token is None):
            # Without a token the Hub says 401 of what is private and of what does not exist alike.
            reason = RegistryReason.NOT_FOUND if status == 404 else RegistryReason.NOT_PERMITTED
            mend = (
                "check the registry's token" if self._token else "if it is private, set the registry's token"
            )
            return RepositoryGone(
                reason, f"{said}: there is no such repository, or not for everybody: {mend}"
            )
        if status in (401, 403):
            mend = "set the registry's token" if self._token is None else "check the registry's token"
            return RegistryUnavailable(RegistryReason.NOT_PERMITTED, f"{said}: {mend}")
        if code in _GONE_CODES:
            return RegistryUnavailable(RegistryReason.VERSION_GONE, f"{said}: it is no longer there")
        if status == 404:
            return RegistryUnavailable(
                RegistryReason.NOT_FOUND, f"{said}: there is none, or the registry's url is not that of a Hub"
            )
        return RegistryUnavailable(RegistryReason.BAD_RESPONSE, f"{said}: check the registry's url")

    @contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        """Turn what breaks on the way into RegistryUnavailable."""
        try:
            yield
        except httpx2.TimeoutException as error:
            detail = f"{what}: no answer of {self.endpoint} in time; registries.timeout says how long to wait"
            raise RegistryUnavailable(RegistryReason.UNREACHABLE, detail) from error
        except httpx2.HTTPError as error:
            if _is_about_certificates(error):
                raise RegistryUnavailable(
                    RegistryReason.CERTIFICATE,
                    f"{what}: the certificate of {self.endpoint} is not trusted: set the registry's ca_file to the "
                    "authority that signed it",
                ) from error
            if isinstance(
                error, httpx2.DecodingError | httpx2.UnsupportedProtocol | httpx2.LocalProtocolError
            ):
                detail = f"{what}: the answer of {self.endpoint} cannot be read: check the registry's url"
                raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, detail) from error
            detail = (
                f"{what}: {self.endpoint} cannot be reached, or broke off: is it running, and its url right?"
            )
            raise RegistryUnavailable(RegistryReason.UNREACHABLE, detail) from error

    def _credential(self) -> str | None:
        if self._token is None:
            return None
        try:
            token = self._token.reveal()
        except SecretError as error:
            raise RegistryUnavailable(RegistryReason.NOT_PERMITTED, f"the token: {error.detail}") from error
        if not token.isascii() or not token.isprintable() or " " in token:
            raise RegistryUnavailable(
                RegistryReason.NOT_PERMITTED, "the token holds characters that no token of a Hub has"
            )
        return token

    @cached_property
    def _api(self) -> httpx2.Client:
        return self._client(4)

    @cached_property
    def _files(self) -> httpx2.Client:
        return self._client(8)

    def _client(self, connections: int) -> httpx2.Client:
        """Proxies are taken from the environment, as everywhere."""
        return httpx2.Client(
            verify=self._certificates,
            timeout=self._timeout,
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
        )

    @cached_property
    def _certificates(self) -> ssl.SSLContext | bool:
        if self._ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except (OSError, ssl.SSLError) as error:
            raise RegistryUnavailable(
                RegistryReason.CERTIFICATE,
                f"{self._ca_file} cannot be read as a PEM file of authorities: mend the registry's ca_file",
            ) from error


class _Conversation:
    """One question, which may take several requests (pages)."""

    def __init__(self, connection: HubConnection, what: str) -> None:
        self._connection = connection
        self._what = what
        self._asked: set[str] = set()

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request of the library."""
        url = str(request.url)
        if url in self._asked or len(self._asked) >= _MOST_PAGES:
            raise RegistryUnavailable(
                RegistryReason.BAD_RESPONSE,
                f"{self._what}: the pages of {self._connection.endpoint} never end",
            )
        self._asked.add(url)
        return self._connection.answer(self._what, request)


_CONVERSATION: ContextVar[_Conversation | None] = ContextVar("hub conversation", default=None)


class _RoutingClient(httpx2.Client):
    """Stands where the library expects its one client, and hands requests to the connection that they belong to."""

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        conversation = _CONVERSATION.get()
        return super().send(request, **options) if conversation is None else conversation.answer(request)


set_client_factory(lambda: _RoutingClient(follow_redirects=True, timeout=None))


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _cutting(response: httpx2.Response) -> Callable[[], None]:
    """Ends what is read from a response."""
    stream = response.extensions.get("network_stream")
    connected = None if stream is None else stream.get_extra_info("socket")

    def cut() -> None:
        if connected is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    return cut


def _redirected(request: httpx2.Request, response: httpx2.Response) -> httpx2.Request:
    url = request.url.join(response.headers.get("location", ""))
    headers = [(name, value) for name, value in request.headers.multi_items() if name != "host"]
    return httpx2.Request(request.method, url, headers=headers, extensions=request.extensions)


def _as_of_file(refusal: RegistryUnavailable) -> RegistryUnavailable:
    """Where a file is not found, the version that named it is not there any more."""
    if isinstance(refusal, RepositoryGone) or refusal.reason is RegistryReason.NOT_FOUND:
        return RegistryUnavailable(RegistryReason.VERSION_GONE, refusal.detail)
    return refusal


def _too_many_redirects(what: str) -> RegistryUnavailable:
    return RegistryUnavailable(RegistryReason.BAD_RESPONSE, f"{what}: the server redirects without end")


def _retry_after(headers: httpx2.Headers) -> timedelta | None:
    limit = parse_ratelimit_headers(headers)
    text = headers.get("retry-after", "").strip()
    seconds: float | None = None
    if limit is not None and limit.remaining == 0:
        seconds = float(limit.reset_in_seconds)
    elif text.isascii() and text.isdigit():
        seconds = float(text[:9])
    elif text:
        try:
            until = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (until - datetime.now(until.tzinfo or UTC)).total_seconds() if until.tzinfo else None
    return None if seconds is None else timedelta(seconds=min(max(seconds, 0.0), _LONGEST_SILENCE))


def _is_about_certificates(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return not isinstance(seen, _BROKEN_OFF)
        seen = seen.__cause__ or seen.__context__
    return False

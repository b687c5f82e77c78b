"""The one place that talks HTTP to receivers: a single request, guarded.

What the guard does, and why:

* **No redirects.** A redirect leads past every check of the configured URL, so 3xx is a failure.
* **One reading of a URL.** What is checked is the host that the libraries below connect to, after their own
  normalisation: IDNA, and addresses written as one number, in octal, in hex or short. Percent signs in a host,
  white space and backslashes, which readers of URLs disagree about, are refused.
* **Addresses.** The name is resolved once, forbidden addresses are left out, the socket connects to one of the
  rest, and its peer is checked again before a byte of TLS or HTTP is sent. A name that changes its address
  between check and use (DNS rebinding) gains nothing.
* **No environment.** ``HTTP_PROXY`` and its kin and ``.netrc`` are not read: a proxy would resolve names and
  connect out of reach of the address check. Only ``REQUESTS_CA_BUNDLE`` counts, through the receiver that passes
  it in where no ``ca_file`` is configured.
* **One time limit for everything**, name look-up included. A server that sends a byte now and then does not
  stretch it.
* **Answers are not read** beyond status and headers, so nothing of a body can be kept or shown.
* **URLs are secrets.** Errors name scheme, host and port, nothing else; what urllib3 would log about the request
  is dropped.
"""

from __future__ import annotations

import http.client
import logging
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from time import monotonic
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from layerwatch.alerts.addresses import AddressPolicy, literal_address
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.retry import parse_retry_after

RETRIED_CLIENT_STATUSES = frozenset({401, 403, 404, 407, 408, 409, 421, 423, 425, 429})
"""4xx statuses that a later attempt of the same request may not meet again: a token mended, a route deployed, a
lock released. Every other 4xx is about the request itself, which stays the same."""

_WIRE_LOGGERS = (
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SocketOpener = Callable[[str, int], socket.socket]


def endpoint(url: str) -> str:
    """What may be shown of ``url``: ``scheme://host:port``, without user, path and query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return "<invalid URL>"
    if not host:
        return "<invalid URL>"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


@lru_cache(maxsize=256)
def check_url(url: str, policy: AddressPolicy) -> None:
    """Find at configuration time what is wrong with ``url`` already without asking the network.

    Raises:
        DeliveryError: ``bad_url``, or ``forbidden_address`` for a literal address the policy refuses.
    """
    _require_readable(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _bad_url("its host or port cannot be read") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _bad_url("it must begin with https:// or http://")
    if not host or port == 0:
        raise _bad_url("it names no host or port 0")
    if "%" in host and ":" not in host:  # In an IPv6 address it begins the zone.
        raise _bad_url("its host holds a percent sign; write it plainly")
    address = literal_address(_connected_host(url))
    if address is None:
        return  # A name: its addresses are checked at every attempt.
    refusal = policy.refusal(address)
    if refusal is not None:
        raise forbidden(endpoint(url), address, refusal)


def extended(url: str, suffix: str) -> str:
    """``url`` with ``suffix``, which begins with a slash, behind its path.

    Raises:
        DeliveryError: ``bad_url`` for what `check_url` would refuse but taking a URL apart would lose.
    """
    _require_readable(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _bad_url("its host or port cannot be read") from None
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + suffix))


def _require_readable(url: str) -> None:
    if any(character.isspace() or not character.isprintable() or character == "\\" for character in url):
        raise _bad_url("it holds white space, a control character or a backslash")


def _connected_host(url: str) -> str:
    """The host of ``url`` as the libraries below understand it."""
    try:
        prepared = requests.Request("POST", url).prepare().url
        host = None if prepared is None else urlsplit(prepared).hostname
    except (requests.RequestException, ValueError):
        host = None
    # Raised outside of the handler: the library's error carries the URL.
    if host is None:
        raise _bad_url("its host is no valid name")
    return host


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    policy: AddressPolicy,
    timeout: timedelta,
    now: datetime,
    ca_bundle: str | None = None,
) -> None:
    """Send ``body`` once. Returns when the server answered 2xx.

    Args:
        url: http or https; user and password in it are sent as basic authentication.
        body: sent as it is.
        headers: sent as they are, beside Host and Content-Length.
        policy: addresses that may be connected to.
        timeout: limit for everything together, more than zero.
        now: tz-aware time of the attempt, to read a Retry-After date against.
        ca_bundle: PEM file or folder of certificate authorities to trust in place of the built-in list.

    Raises:
        DeliveryError: for everything that goes wrong. Its chain of causes is empty, because the errors of the
            libraries below carry the URL.
    """
    request = requests.Request("POST", url, data=body, headers=dict(headers))
    _send(request, policy=policy, timeout=timeout, now=now, ca_bundle=ca_bundle)


def get(
    url: str,
    headers: Mapping[str, str],
    *,
    policy: AddressPolicy,
    timeout: timedelta,
    now: datetime,
    ca_bundle: str | None = None,
) -> None:
    """Ask for ``url`` once, without a body. Arguments, guards and errors are those of `post`."""
    request = requests.Request("GET", url, headers=dict(headers))
    _send(request, policy=policy, timeout=timeout, now=now, ca_bundle=ca_bundle)


def _send(
    request: requests.Request,
    *,
    policy: AddressPolicy,
    timeout: timedelta,
    now: datetime,
    ca_bundle: str | None,
) -> None:
    url = str(request.url)
    check_url(url, policy)
    request.headers["Connection"] = "close"
    failure: DeliveryError | None = None
    status, retry_after = 0, None
    with _Deadline(timeout.total_seconds()) as deadline, _silent_wire_log():
        adapter = _GuardedAdapter(_opener(endpoint(url), policy, deadline))
        try:
            # The adapter and not a Session: a Session reads proxies and .netrc from the environment, and it
            # reads a redirect's whole body into memory even when told not to follow.
            with adapter.send(
                request.prepare(),
                stream=True,
                timeout=timeout.total_seconds(),
                verify=ca_bundle or True,
                proxies={},
            ) as response:
                status, retry_after = response.status_code, response.headers.get("Retry-After")
        except (
            requests.RequestException,
            HTTPError,
            http.client.HTTPException,
            OSError,
            ValueError,
        ) as error:
            failure = translated(error, endpoint(url), timeout, expired=deadline.expired)
        finally:
            adapter.close()
        if failure is None and deadline.expired:
            # Headers that were cut off count as complete below.
            failure = _too_late(endpoint(url), timeout)
    if failure is None:
        failure = status_error(status, retry_after, endpoint(url), now)
    # Raised outside of the handler: even its hidden context must not lead to the library's error.
    if failure is not None:
        raise failure


def status_error(status: int, retry_after: str | None, where: str, now: datetime) -> DeliveryError | None:
    """What an HTTP status means for the event: None for 2xx, else the failure and whether to try again.

    ==========  =================  =====================================
    status      reason             tried again
    ==========  =================  =====================================
    2xx                            delivered
    3xx         redirected         yes, never followed
    410         gone               no: the receiver wants no more
    429         rate_limited       yes
    other 4xx   client_error       `RETRIED_CLIENT_STATUSES` only
    5xx         server_error       yes
    any other   invalid_response   yes
    ==========  =================  =====================================

    Args:
        status: of the answer.
        retry_after: value of the Retry-After header, if any; used when the event is tried again.
        where: the endpoint, for the message.
        now: tz-aware time of the attempt.
    """
    if 200 <= status < 300:
        return None
    answered = f"{where} answered {status}"
    if 300 <= status < 400:
        detail = f"{answered}; redirects are not followed, configure the final URL"
        # A page about maintenance is a redirect, too.
        wait = parse_retry_after(retry_after, now)
        return DeliveryError(DeliveryReason.REDIRECTED, detail, retryable=True, retry_after=wait)
    if status == 410:
        detail = f"{answered}: it wants no more events, remove the receiver"
        return DeliveryError(DeliveryReason.GONE, detail, retryable=False)
    if 400 <= status < 500:
        reason = DeliveryReason.RATE_LIMITED if status == 429 else DeliveryReason.CLIENT_ERROR
        retryable = status in RETRIED_CLIENT_STATUSES
    else:
        reason = DeliveryReason.SERVER_ERROR if 500 <= status < 600 else DeliveryReason.INVALID_RESPONSE
        retryable = True
    wait = parse_retry_after(retry_after, now) if retryable else None
    return DeliveryError(reason, answered, retryable=retryable, retry_after=wait)


class _Deadline:
    """Cuts the watched connection when the time is over, whatever it is doing.

    Timeouts of sockets count from the last byte; a thread with a timer is what bounds the sum. It holds a
    duplicate of the socket, because TLS takes the descriptor away from the original.
    """

    def __init__(self, seconds: float) -> None:
        self._ends = monotonic() + seconds
        self._lock = threading.Lock()
        self._watched: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._watched is not None:
                self._watched.close()
                self._watched = None

    @property
    def expired(self) -> bool:
        return monotonic() >= self._ends

    def remaining(self) -> float:
        """Seconds left; 0 when the time is over."""
        return max(0.0, self._ends - monotonic())

    def watch(self, opened: socket.socket) -> None:
        with self._lock:
            self._watched = opened.dup()
        if self.expired:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            if self._watched is not None:
                try:
                    self._watched.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # The peer closed it first.


class _GuardedAdapter(HTTPAdapter):
    """requests' adapter, with sockets opened by ``open_socket`` and nothing tried twice."""

    def __init__(self, open_socket: _SocketOpener) -> None:
        self._open_socket = open_socket
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        open_socket = self._open_socket

        class GuardedHTTPConnection(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return open_socket(self.host, self.port or _DEFAULT_PORTS["http"])

        class GuardedHTTPSConnection(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return open_socket(self.host, self.port or _DEFAULT_PORTS["https"])

        class GuardedHTTPConnectionPool(HTTPConnectionPool):
            ConnectionCls = GuardedHTTPConnection

        class GuardedHTTPSConnectionPool(HTTPSConnectionPool):
            ConnectionCls = GuardedHTTPSConnection

        self.poolmanager.pool_classes_by_scheme = {
            "http": GuardedHTTPConnectionPool,
            "https": GuardedHTTPSConnectionPool,
        }


def _opener(where: str, policy: AddressPolicy, deadline: _Deadline) -> _SocketOpener:
    """A function that resolves, checks, connects, and checks the peer."""

    def open_socket(host: str, port: int) -> socket.socket:
        candidates = []
        refused = None
        for family, address in _resolve(host, port, where, deadline):
            refusal = policy.refusal(str(address[0]))
            if refusal is None:
                candidates.append((family, address))
            else:
                refused = forbidden(where, str(address[0]), refusal)
        if not candidates:
            raise refused or DeliveryError(
                DeliveryReason.NAME_RESOLUTION, f"{where}: the name has no address", retryable=True
            )
        opened = _connect(candidates, where, deadline)
        try:
            peer = str(opened.getpeername()[0])
            refusal = policy.refusal(peer)
            if refusal is not None:
                raise forbidden(where, peer, refusal)
            deadline.watch(opened)
        except BaseException:
            opened.close()
            raise
        return opened

    return open_socket


def _resolve(
    host: str, port: int, where: str, deadline: _Deadline
) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Addresses of ``host``, in the system's order of preference."""
    # RFC 6761, 6.3: every name below localhost is this machine, also where the resolver does not know it.
    asked = "localhost" if host.lower().endswith(".localhost") else host
    # The system's resolver knows no time limit of ours, so it is asked in a thread that may be left behind.
    answers: queue.SimpleQueue[list[Any] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(asked, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    if literal_address(asked) is None:
        threading.Thread(target=ask, name="layerwatch-resolve", daemon=True).start()
    else:
        ask()  # Only read, not looked up.
    try:
        answer = answers.get(timeout=deadline.remaining())
    except queue.Empty:
        detail = f"{where}: looking up the name took too long"
        raise DeliveryError(DeliveryReason.TIMEOUT, detail, retryable=True) from None
    if isinstance(answer, UnicodeError):
        raise _bad_url("its host is no valid name")
    if isinstance(answer, OSError):
        detail = f"{where}: looking up the name failed: {answer.strerror or type(answer).__name__}"
        raise DeliveryError(DeliveryReason.NAME_RESOLUTION, detail, retryable=True)
    return [(family, address) for family, _, _, _, address in answer]


def _connect(
    candidates: list[tuple[socket.AddressFamily, tuple[Any, ...]]], where: str, deadline: _Deadline
) -> socket.socket:
    """The first address that answers; each gets an equal part of the time left."""
    reason, detail = DeliveryReason.TIMEOUT, f"{where}: no connection in time"
    for tried, (family, address) in enumerate(candidates):
        if deadline.expired:
            break
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.settimeout(max(deadline.remaining() / (len(candidates) - tried), 0.001))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.connect(address)
        except TimeoutError:
            opened.close()
            reason, detail = DeliveryReason.TIMEOUT, f"{where}: no connection in time"
        except OSError as error:
            opened.close()
            reason = DeliveryReason.CONNECTION
            detail = f"{where}: no connection: {error.strerror or type(error).__name__}"
        else:
            # Also the limit of the TLS handshake, which counts as a whole.
            opened.settimeout(max(deadline.remaining(), 0.001))
            return opened
    raise DeliveryError(reason, detail, retryable=True)


def translated(error: Exception, where: str, timeout: timedelta, *, expired: bool) -> DeliveryError:
    """The libraries' error in our words. Nothing of its text is used, except what TLS says of a certificate."""
    causes = list(_causes(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if expired or caused_by(TimeoutError, requests.Timeout):
        return _too_late(where, timeout)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            said = getattr(cause, "verify_message", None) or cause.reason or "handshake failed"
            return DeliveryError(DeliveryReason.TLS, f"{where}: TLS: {said}", retryable=True)
    if caused_by(socket.gaierror):
        detail = f"{where}: looking up the name failed"
        return DeliveryError(DeliveryReason.NAME_RESOLUTION, detail, retryable=True)
    if caused_by(ConnectionError):
        detail = f"{where}: the connection was closed before an answer"
        return DeliveryError(DeliveryReason.CONNECTION, detail, retryable=True)
    if caused_by(http.client.HTTPException):
        detail = f"{where}: the answer is not HTTP"
        return DeliveryError(DeliveryReason.INVALID_RESPONSE, detail, retryable=True)
    if caused_by(requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError):
        return _bad_url("its host is no valid name")
    kind = type(causes[-1]).__name__
    return DeliveryError(DeliveryReason.CONNECTION, f"{where}: {kind}", retryable=True)


def _too_late(where: str, timeout: timedelta) -> DeliveryError:
    detail = f"{where}: no complete answer within {timeout.total_seconds():g} s"
    return DeliveryError(DeliveryReason.TIMEOUT, detail, retryable=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and all errors it wraps, outermost first; requests and urllib3 wrap in arguments too."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        candidate = waiting.pop(0)
        if isinstance(candidate, BaseException) and id(candidate) not in seen:
            seen.add(id(candidate))
            yield candidate
            waiting += [candidate.__cause__, candidate.__context__, getattr(candidate, "reason", None)]
            waiting += candidate.args


def _bad_url(problem: str) -> DeliveryError:
    return DeliveryError(DeliveryReason.BAD_URL, f"the URL cannot be used: {problem}", retryable=False)


def forbidden(where: str, address: str, kind: str) -> DeliveryError:
    detail = f"{where}: address {address} is refused ({kind}); if it is meant, add it to allow_private_cidrs"
    return DeliveryError(DeliveryReason.FORBIDDEN_ADDRESS, detail, retryable=False)


@contextmanager
def _silent_wire_log() -> Iterator[None]:
    """Drops what urllib3 logs in this thread: it writes out paths and queries."""
    thread = threading.get_ident()

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return threading.get_ident() != thread

    # Each by its name: a filter of a logger does not hold for those below it.
    loggers = [logging.getLogger(name) for name in _WIRE_LOGGERS]
    for logger in loggers:
        logger.addFilter(from_elsewhere)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(from_elsewhere)

"""Stands in front of a server, counts what passes, and misbehaves as told: real sockets, nothing is mocked."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

_BLOCK = 64 * 1024
_PATIENCE_SECONDS = 60
_DRIBBLE_SECONDS = 0.1
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "upgrade"}
)


@dataclass(frozen=True, slots=True)
class Passed:
    """One request that came.

    Attributes:
        method, path: as asked for.
        proxied: True when it was sent as to a proxy: with a whole address, or through a tunnel (method CONNECT).
        headers: with lower-case names.
    """

    method: str
    path: str
    proxied: bool
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass
class _Trouble:
    """What goes wrong now."""

    answer: _Answer | None = None
    answers_left: int | None = None
    silent: bool = False
    delay_seconds: float = 0.0
    cut_after: int | None = None
    cuts_left: int | None = None
    requests_left: int | None = None
    dribbles_above: int | None = None
    floods: bool = False


@dataclass(frozen=True)
class PrivateAuthority:
    """A certificate authority that nobody knows.

    Attributes:
        ca_file: its certificate, for those who shall trust it.
        context: for a server on 127.0.0.1 that it vouches for.
    """

    ca_file: Path
    context: ssl.SSLContext = field(repr=False)


def private_authority(folder: Path, *hosts: str) -> PrivateAuthority:
    """A new authority and a server certificate for these hosts, by default 127.0.0.1 and localhost."""
    authority = trustme.CA()
    ca_file = folder / f"private-ca-{len(list(folder.iterdir()))}.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(hosts or ("127.0.0.1", "localhost"))).configure_cert(context)
    return PrivateAuthority(ca_file, context)


class UnreliableServer:
    """An HTTP server on a free port of 127.0.0.1 that passes requests on to another one, and can misbehave.

    It also is a forward proxy: requests with a whole address and tunnels (CONNECT) are taken too, and end at the one
    server that it stands in front of, whatever they were meant for.

    Args:
        target: address of the server behind.
        tls: serves https with this context; the server behind is still asked over http.

    Attributes:
        url: its address.
        before: called with each request before it is passed on, from the thread that serves it.
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._tls = tls
        self._guard = threading.Lock()
        self._trouble = _Trouble()
        self._passed: list[Passed] = []
        self._bytes = 0
        self._cuts = 0
        self._at_work = 0
        self._most_at_work = 0
        self._open: set[socket.socket] = set()
        self._closed = False
        self.before: Callable[[Passed], None] = lambda passed: None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = int(self._listener.getsockname()[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._port}"
        self._listening = True
        self._serve()

    @property
    def requests(self) -> list[Passed]:
        """Every request so far, those that were answered badly included."""
        with self._guard:
            return list(self._passed)

    @property
    def bytes_sent(self) -> int:
        """Bytes of bodies sent to those who asked, so far."""
        with self._guard:
            return self._bytes

    @property
    def cuts(self) -> int:
        """How many answers were cut off, so far."""
        with self._guard:
            return self._cuts

    @property
    def most_at_once(self) -> int:
        """How many requests were under way at the same time at most, so far."""
        with self._guard:
            return self._most_at_work

    def forget(self) -> None:
        """Count from zero."""
        with self._guard:
            self._passed.clear()
            self._bytes = self._cuts = self._most_at_work = 0

    def behave(self) -> None:
        """Pass everything on as it is."""
        with self._guard:
            self._trouble = _Trouble()
            if self._listening:
                return
            self._listener.listen()
            self._listening = True
        self._serve()

    def refuse(self) -> None:
        """Refuse connections, and break those that are open, until `behave`."""
        with self._guard:
            if not self._listening:
                return
            self._listening = False
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            # Bound and not listened on: the port stays ours, and whoever connects is refused.
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", self._port))
            broken = list(self._open)
        for one in broken:
            _reset(one)

    def refuse_after(self, requests: int) -> None:
        """Pass so many requests on, then break all connections and refuse new ones."""
        with self._guard:
            self._trouble.requests_left = requests

    def answer(
        self,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """Answer with this instead of asking the server behind, so many times or until `behave`."""
        with self._guard:
            self._trouble.answer = _Answer(status, body, headers or {})
            self._trouble.answers_left = times

    def silence(self) -> None:
        """Take requests and never answer."""
        with self._guard:
            self._trouble.silent = True

    def delay(self, seconds: float) -> None:
        """Let every answer wait."""
        with self._guard:
            self._trouble.delay_seconds = seconds

    def cut(self, after: int, times: int | None = None) -> None:
        """Break the connection after so many bytes of a longer body, so many times or until `behave`."""
        with self._guard:
            self._trouble.cut_after = after
            self._trouble.cuts_left = times

    def dribble(self, longer_than: int = 0) -> None:
        """Send longer bodies one byte at a time, a few in a second."""
        with self._guard:
            self._trouble.dribbles_above = longer_than

    def flood(self) -> None:
        """Never end an answer to a request for a range: what follows the range are zeros."""
        with self._guard:
            self._trouble.floods = True

    def close(self) -> None:
        """Stop for good."""
        with self._guard:
            self._closed = True
        self.refuse()
        self._listener.close()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE_SECONDS)
        with self._guard:
            self._open.add(connection)
        served = connection
        try:
            if self._tls is not None:
                served = self._tls.wrap_socket(connection, server_side=True)
                with self._guard:
                    self._open.discard(connection)
                    self._open.add(served)
            _Handler(served, ("127.0.0.1", 0), self)  # type: ignore[arg-type] # it only keeps it
        except (OSError, ValueError):
            pass  # the other side went away, or does not trust us
        finally:
            with self._guard:
                self._open.discard(connection)
                self._open.discard(served)
            with suppress(OSError):
                served.close()

    def take(self, passed: Passed) -> _Answer | None:
        """Note a request and do what goes wrong before it is passed on; the answer to give instead, or None."""
        with self._guard:
            self._passed.append(passed)
            trouble = self._trouble
            over = trouble.requests_left is not None and trouble.requests_left <= 0
            if trouble.requests_left is not None:
                trouble.requests_left -= 1
            answer = trouble.answer
            if answer is not None and trouble.answers_left is not None:
                if trouble.answers_left <= 0:
                    answer = None
                trouble.answers_left -= 1
        if over:
            self.refuse()
            raise ConnectionAbortedError
        self.before(passed)
        if trouble.silent:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while self._trouble is trouble and not self._closed and time.monotonic() < deadline:
                time.sleep(0.02)
            raise ConnectionAbortedError
        if trouble.delay_seconds:
            time.sleep(trouble.delay_seconds)
        return answer

    def limit_of(self, length: int | None) -> int | None:
        """After how many bytes of a body of that length the connection breaks, or None."""
        with self._guard:
            trouble = self._trouble
            if trouble.cut_after is None or (length is not None and length <= trouble.cut_after):
                return None
            if trouble.cuts_left is not None:
                if trouble.cuts_left <= 0:
                    return None
                trouble.cuts_left -= 1
            self._cuts += 1
            return trouble.cut_after

    def dribbles(self, length: int | None) -> bool:
        """Whether a body of that length comes one byte at a time."""
        with self._guard:
            above = self._trouble.dribbles_above
        return above is not None and (length is None or length > above)

    def floods(self, headers: Mapping[str, str]) -> bool:
        """Whether the answer to a request with these headers has no end."""
        with self._guard:
            return self._trouble.floods and "range" in headers

    @property
    def closed(self) -> bool:
        """Whether it stopped for good."""
        return self._closed

    def count(self, size: int) -> None:
        """So many bytes of a body were sent."""
        with self._guard:
            self._bytes += size

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A request is under way."""
        with self._guard:
            self._at_work += 1
            self._most_at_work = max(self._most_at_work, self._at_work)
        try:
            yield
        finally:
            with self._guard:
                self._at_work -= 1

    def connect(self) -> HTTPConnection:
        """To the server behind."""
        return HTTPConnection(*self._target, timeout=_PATIENCE_SECONDS)

    @property
    def target(self) -> tuple[str, int]:
        """Host and port of the server behind."""
        return self._target

    @property
    def scheme(self) -> str:
        """How this server is asked."""
        return "https" if self._tls is not None else "http"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any  # the UnreliableServer

    def _pass(self) -> None:
        front: UnreliableServer = self.server
        with front.at_work():
            self._pass_on(front)

    def _pass_on(self, front: UnreliableServer) -> None:
        proxied = self.path.startswith(("http://", "https://"))
        path = self.path
        if proxied:
            parts = urlsplit(self.path)
            path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        answer = front.take(Passed(self.command, path, proxied, headers))
        if answer is not None:
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
            return
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        kept.setdefault("X-Forwarded-Proto", front.scheme)
        behind = front.connect()
        try:
            behind.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
            for name, value in kept.items():
                if name.lower() != "content-length":
                    behind.putheader(name, value)
            if body or "content-length" in headers:
                behind.putheader("Content-Length", str(len(body)))
            behind.putheader("Connection", "close")
            behind.endheaders(body or None)
            self._give_back(front, behind, front.floods(headers))
        except HTTPException:
            self.close_connection = True
        finally:
            behind.close()

    def _give_back(self, front: UnreliableServer, behind: HTTPConnection, floods: bool) -> None:
        response = behind.getresponse()
        self.send_response_only(response.status, response.reason)
        length = None if floods else response.getheader("Content-Length")
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP and name.lower() != "content-length":
                self.send_header(name, value)
        bodyless = self.command == "HEAD" or response.status in (204, 304)
        if length is not None:
            self.send_header("Content-Length", length)
        elif not bodyless:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if bodyless:
            return
        known = int(length) if length is not None else None
        if front.dribbles(known):
            self._dribble(front, response.read())
            return
        limit = front.limit_of(known)
        sent = 0
        while block := response.read(_BLOCK if limit is None else min(_BLOCK, limit - sent)):
            self.wfile.write(block)
            front.count(len(block))
            sent += len(block)
            if limit is not None and sent >= limit:
                self.wfile.flush()
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
        while floods and not front.closed:
            self.wfile.write(bytes(_BLOCK))
            front.count(_BLOCK)

    def _dribble(self, front: UnreliableServer, body: bytes) -> None:
        for position in range(len(body)):
            if front.closed:
                return
            self.wfile.write(body[position : position + 1])
            front.count(1)
            time.sleep(_DRIBBLE_SECONDS)

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            return self.rfile.read(int(headers.get("content-length", "0")))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def do_CONNECT(self) -> None:
        """A tunnel; whatever it was meant for, it leads to the server behind."""
        front: UnreliableServer = self.server
        headers = {name.lower(): value for name, value in self.headers.items()}
        front.take(Passed("CONNECT", self.path, True, headers))
        self.close_connection = True
        with socket.create_connection(front.target, timeout=_PATIENCE_SECONDS) as behind:
            self.send_response_only(200)
            self.end_headers()
            there = threading.Thread(target=_pump, args=(self.connection, behind), daemon=True)
            there.start()
            _pump(behind, self.connection)
            there.join()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(_BLOCK):
            sink.sendall(block)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """Break a connection as a crashed server does."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)

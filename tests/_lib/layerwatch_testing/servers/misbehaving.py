"""A receiver of events that misbehaves as it is told, and keeps a record of what it took that outlives every kill.

In a process of its own: ``python -m layerwatch_testing.servers.misbehaving --log FILE``, or `MisbehavingProcess`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests
import trustme

_HOST = "127.0.0.1"
_BACKLOG = 512
_START_SECONDS = 30
REDIRECTED_TO = "/elsewhere"
"""Path that mode ``redirect`` leads to; requests for it are counted as ``followed``, whatever the mode."""


class Mode(StrEnum):
    """What the server does with a request. Those that end in an answer of 200 record it: OK, SLOW, HANG, LOSE."""

    OK = "ok"
    SLOW = "slow"
    """Answers after ``milliseconds``."""
    HANG = "hang"
    """Answers 200 and stops in the middle of the body."""
    LOSE = "lose"
    """Takes it, and closes the connection without an answer."""
    REFUSE = "refuse"
    """Nobody listens at the port."""
    TIMEOUT = "timeout"
    """Never answers."""
    ERROR = "error"
    """500."""
    BUSY = "busy"
    """429, with Retry-After."""
    GONE = "gone"
    """410."""
    REDIRECT = "redirect"
    """302, to another path of the same server."""
    RESET = "reset"
    """Resets the connection when it has read the request."""
    GARBAGE = "garbage"
    """Answers with something that is not HTTP."""
    BAD_CERTIFICATE = "bad_certificate"
    """Shows the certificate of an authority that nobody knows; only with TLS."""


@dataclass(frozen=True)
class Behaviour:
    """What the server does from now on.

    Attributes:
        milliseconds: of mode ``slow``.
        retry_after: seconds, of mode ``busy``.
    """

    mode: Mode = Mode.OK
    milliseconds: int = 0
    retry_after: int = 1


@dataclass(frozen=True)
class Taken:
    """A request that was answered with 2xx, or whose answer was lost on purpose.

    Attributes:
        event_id: of the event in it; None where there is none to be found.
        sha256: of the body.
        at: when it was taken, tz-aware.
    """

    event_id: str | None
    sha256: str
    body: str
    path: str
    at: datetime
    mode: Mode


def read_log(file: Path) -> list[Taken]:
    """What a server took, oldest first. A line that is still being written is left out."""
    if not file.exists():
        return []
    *lines, _ = file.read_text("utf-8").split("\n")
    found = []
    for line in lines:
        values = json.loads(line)
        values["at"], values["mode"] = datetime.fromisoformat(values["at"]), Mode(values["mode"])
        found.append(Taken(**values))
    return found


class MisbehavingServer:
    """A web server on 127.0.0.1 that can be told to misbehave while it runs; a context manager.

    Args:
        log: file that gets one line of JSON for each request that was taken, before it is answered.
        port: 0 for a free one.
        tls: serves https; ``ca_file`` is then written beside the log.

    Attributes:
        url: of the server.
        ca_file: authority of its certificate; None without TLS.
        seen: how many requests were read in each mode, and, under ``followed``, for the target of the redirect.
    """

    def __init__(self, log: Path, *, port: int = 0, tls: bool = False) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._good: ssl.SSLContext | None = None
        self._bad: ssl.SSLContext | None = None
        self.ca_file: Path | None = None
        if tls:
            authority = trustme.CA()
            self.ca_file = log.with_suffix(".ca.pem")
            authority.cert_pem.write_to_path(str(self.ca_file))
            self._good, self._bad = _context(authority), _context(trustme.CA())
        self._behaviour = Behaviour()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self.seen: Counter[str] = Counter()
        self._listener: socket.socket | None = self._listen(port)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"{'https' if tls else 'http'}://{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def behaviour(self) -> Behaviour:
        """What it does now."""
        return self._behaviour

    def behave(self, mode: Mode | str, *, milliseconds: int = 0, retry_after: int = 1) -> None:
        """From now on do this: with new requests, also on connections that are kept. What hangs is let go.

        Raises:
            ValueError: for a bad certificate without TLS.
        """
        behaviour = Behaviour(Mode(mode), milliseconds, retry_after)
        if behaviour.mode is Mode.BAD_CERTIFICATE and self._bad is None:
            raise ValueError("a bad certificate needs TLS")
        with self._lock:
            before, self._behaviour = self._behaviour, behaviour
            if behaviour.mode is Mode.REFUSE:
                self._close_listener()
            elif self._listener is None:
                self._listener = self._listen(self.port)
            # A connection that was kept has seen another certificate, or would go on where nobody listens.
            if before.mode is not behaviour.mode:
                for connection in self._connections:
                    _shut(connection)

    def stop(self) -> None:
        """Close the port and every connection."""
        with self._lock:
            self._close_listener()
            for connection in self._connections:
                _shut(connection)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server((_HOST, port), backlog=_BACKLOG)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _close_listener(self) -> None:
        if self._listener is not None:
            _shut(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = self._bad if self._behaviour.mode is Mode.BAD_CERTIFICATE else self._good
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            return
        with self._lock:
            self._connections.add(connection)
        try:
            with connection.makefile("rb") as stream:
                while self._answer(connection, stream):
                    pass
        except (OSError, ValueError):
            pass  # The client hung up, or it was no request.
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _answer(self, connection: socket.socket, stream: IO[bytes]) -> bool:
        """Read one request and do what the mode says; whether the connection is kept."""
        request = stream.readline(65_537)
        if not request.strip():
            return False
        _, path, _ = request.decode("latin-1").split(" ", 2)
        headers = dict(_headers(stream))
        length = int(headers.get("content-length", 0))
        body = stream.read(length)
        if len(body) < length:
            return False  # The sender was killed.
        behaviour = self._behaviour
        mode = behaviour.mode
        with self._lock:
            self.seen["followed" if path == REDIRECTED_TO else mode.value] += 1
        if mode is Mode.REFUSE:
            return False  # It came in just before the port was closed.
        if mode is Mode.TIMEOUT:
            stream.read(1)  # Until the client, or a change of mode, ends it.
            return False
        if mode is Mode.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if mode is Mode.GARBAGE:
            connection.sendall(b"220 mail.example ESMTP\r\n")
            return False
        if mode is Mode.SLOW:
            time.sleep(behaviour.milliseconds / 1000)
        refusal = {
            Mode.ERROR: "500 Internal Server Error\r\n",
            Mode.BUSY: f"429 Too Many Requests\r\nRetry-After: {behaviour.retry_after}\r\n",
            Mode.GONE: "410 Gone\r\n",
            Mode.REDIRECT: f"302 Found\r\nLocation: {self.url}{REDIRECTED_TO}\r\n",
        }.get(mode)
        if refusal is None:
            self._take(path, headers, body, mode)
        if mode is Mode.LOSE:
            return False
        if mode is Mode.HANG:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of ")
            stream.read(1)
            return False
        kept = headers.get("connection", "").lower() != "close"
        head = f"HTTP/1.1 {refusal or '200 OK' + chr(13) + chr(10)}Content-Length: 0\r\n"
        connection.sendall(f"{head}Connection: {'keep-alive' if kept else 'close'}\r\n\r\n".encode())
        return kept

    def _take(self, path: str, headers: Mapping[str, str], body: bytes, mode: Mode) -> None:
        line = {
            "event_id": headers.get("webhook-id") or _event_id(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "body": body.decode("utf-8", "replace"),
            "path": path,
            "at": datetime.now(UTC).isoformat(),
            "mode": mode.value,
        }
        # One call to the kernel, which keeps it when this process is killed the moment after.
        os.write(self._log, json.dumps(line).encode() + b"\n")


def _context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(_HOST, "localhost").configure_cert(context)
    return context


def _shut(connection: socket.socket) -> None:
    try:
        # The plain one, also below TLS: whoever waits for bytes in another thread gets an end.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return


def _headers(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    while (line := stream.readline(65_537)).strip():
        name, _, value = line.decode("latin-1").partition(":")
        yield name.strip().lower(), value.strip()


def _event_id(body: bytes) -> str | None:
    """The event's id where the kinds of receivers put it, or what comes nearest."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    for path in (
        ("data", "event_id"),  # the event itself, and as a CloudEvent
        (0, "annotations", "event_id"),  # Alertmanager
        ("payload", "custom_details", "Event"),  # PagerDuty
        ("dedup_key",),
    ):
        found = _at(value, path)
        if isinstance(found, str):
            return found
    return None


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


class _Control:
    """A second port, at which another process says how the server shall behave: always open, answers when it is so."""

    def __init__(self, server: MisbehavingServer) -> None:
        self._server = server
        self._listener = socket.create_server((_HOST, 0))
        self.url = f"http://{_HOST}:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Until the process ends."""
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as stream:
                try:
                    parts = urlsplit(stream.readline(65_537).decode("latin-1").split(" ")[1])
                    dict(_headers(stream))
                    status, told = self._do(dict(parse_qsl(parts.query)))
                    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(told)}\r\nConnection: close\r\n\r\n"
                    connection.sendall(head.encode() + told)
                except (OSError, IndexError):
                    continue

    def _do(self, asked: Mapping[str, str]) -> tuple[str, bytes]:
        try:
            if "mode" in asked:
                numbers = {name: int(value) for name, value in asked.items() if name != "mode"}
                self._server.behave(asked["mode"], **numbers)
        except (ValueError, TypeError) as error:
            return "400 Bad Request", str(error).encode()
        state = {"mode": self._server.behaviour.mode.value, "seen": self._server.seen}
        return "200 OK", json.dumps(state).encode()


class MisbehavingProcess:
    """A `MisbehavingServer` in a process of its own; a context manager.

    Attributes:
        log, url, port, ca_file: as of the server.
    """

    def __init__(self, log: Path, *, port: int = 0, tls: bool = False) -> None:
        self.log = log
        command = [sys.executable, "-P", "-m", "layerwatch_testing.servers.misbehaving"]
        command += ["--log", str(log), "--port", str(port), "--with-parent", *(["--tls"] if tls else [])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        started = json.loads(self._process.stdout.readline())
        self.url: str = started["url"]
        self.port = int(self.url.rpartition(":")[2])
        self.ca_file = None if started["ca_file"] is None else Path(started["ca_file"])
        self._control: str = started["control"]
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def behave(self, mode: Mode | str, *, milliseconds: int = 0, retry_after: int = 1) -> None:
        """As `MisbehavingServer.behave`; returns when it is so."""
        self._ask({"mode": Mode(mode).value, "milliseconds": milliseconds, "retry_after": retry_after})

    def seen(self) -> dict[str, int]:
        """As `MisbehavingServer.seen`."""
        return dict(self._ask({})["seen"])

    def taken(self) -> list[Taken]:
        """What it took so far."""
        return read_log(self.log)

    def stop(self) -> None:
        """End the process."""
        self._session.close()
        self._process.kill()
        self._process.communicate()

    def _ask(self, values: Mapping[str, object]) -> dict[str, Any]:
        answer = self._session.get(f"{self._control}/?{urlencode(values)}", timeout=_START_SECONDS)
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        return state


def main() -> None:
    """Serve until killed; with ``--with-parent`` until the input ends, as it does when the parent is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--with-parent", action="store_true")
    given = parser.parse_args()
    server = MisbehavingServer(given.log, port=given.port, tls=given.tls)
    control = _Control(server)
    ca_file = None if server.ca_file is None else str(server.ca_file)
    print(json.dumps({"url": server.url, "control": control.url, "ca_file": ca_file}), flush=True)
    if given.with_parent:
        threading.Thread(target=_end_with_input, daemon=True).start()
    control.serve()


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()

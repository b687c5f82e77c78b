"""A reverse proxy that shows a server under a path of its own, as an ingress does that strips its prefix."""

from __future__ import annotations

import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

_OF_ONE_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "content-length")


class PrefixProxy:
    """A context manager. What is not under the prefix is not there, and redirects are handed on as they are.

    Args:
        target: address of the server.
        prefix: such as ``/watch``.

    Attributes:
        home: address under which the server's root is shown.
        stray: paths that were asked for and are not under the prefix.
    """

    def __init__(self, target: str, prefix: str) -> None:
        self.stray: list[str] = []
        outer = self
        upstream = urlsplit(target).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if not self.path.startswith(f"{prefix}/"):
                    outer.stray.append(self.path)
                    self.send_error(404)
                    return
                connection = HTTPConnection(upstream, timeout=60)
                try:
                    connection.request(
                        self.command, self.path.removeprefix(prefix), body or None, dict(self.headers.items())
                    )
                    answer = connection.getresponse()
                    content = answer.read()
                finally:
                    connection.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _OF_ONE_CONNECTION:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.home = f"http://127.0.0.1:{self._server.server_address[1]}{prefix}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

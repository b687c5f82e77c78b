"""Runs the HTTP application in a thread of the daemon."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

from layerwatch.daemon.web.application import build_application

if TYPE_CHECKING:
    from layerwatch.daemon.app import App


_BACKLOG = 128


class WebServer:
    """Opens the port at construction, so that a taken port is an error at start and not in a thread."""

    def __init__(self, app: App) -> None:
        server = app.live.settings.server
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((server.host, server.port))
            # From here on callers queue up until start; and only a listening socket keeps a second daemon out.
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self._socket.close()
            raise OSError(error.errno, f"cannot listen on {server.listen}: {error.strerror}") from error
        host = f"[{server.host}]" if family is socket.AF_INET6 else server.host
        self.address = f"http://{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            build_application(app),
            log_config=None,
            access_log=False,
            # What is trusted follows from the socket's peer: whoever is on this machine could write such headers.
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="web", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering; open requests get a second."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(2)
        self._socket.close()

"""The API and the pages about alerts on a real server, over a store, at a time that stands still."""

from __future__ import annotations

import socket
import threading
from typing import Any, Self

import requests
import uvicorn
from fastapi import FastAPI

from layerwatch.alerts.model import AlertIdentity
from layerwatch.config.settings import Settings
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.web.access import BodyLimit
from layerwatch.daemon.web.decisions import Decisions
from layerwatch.daemon.web.errors import add_error_answers
from layerwatch.daemon.web.pages import pages_router
from layerwatch.daemon.web.silences import silences_router
from layerwatch_testing.waiting import until
from storetools import NOW


class Site:
    """A context manager; it follows no redirect.

    Attributes:
        settings: in force; may be replaced while it runs.
        muted: why alerts are not told besides silences, as the daemon's notifier says it.
        changes: how often that notifier was woken.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self.settings = settings
        self.muted: dict[AlertIdentity, str] = {}
        self.changes = 0
        decisions = Decisions(database, lambda: self.settings, lambda: self.muted, self._changed, lambda: NOW)
        api = FastAPI()
        api.add_middleware(BodyLimit, most_bytes=2**20)
        api.include_router(silences_router(decisions))
        api.include_router(pages_router(decisions))
        add_error_answers(api)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(api, log_config=None, access_log=False, lifespan="off"))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def get(self, path: str) -> requests.Response:
        return self._ask("GET", path)

    def post(self, path: str, **other: Any) -> requests.Response:
        return self._ask("POST", path, **other)

    def delete(self, path: str, **other: Any) -> requests.Response:
        return self._ask("DELETE", path, **other)

    def _ask(self, method: str, path: str, **other: Any) -> requests.Response:
        return requests.request(method, self._address + path, timeout=30, allow_redirects=False, **other)

    def _changed(self) -> None:
        self.changes += 1

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._server.started, "the site")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

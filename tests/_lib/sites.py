"""The API and the pages about alerts on a real server, over a store, at a time that stands still."""

from __future__ import annotations

import socket
import threading
from datetime import datetime, timedelta
from typing import Any, Self

import requests
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Connection

from layerwatch.alerts.model import AlertIdentity
from layerwatch.config.settings import Settings
from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.diary import Diary
from layerwatch.daemon.statusfacts import ExpositionFacts, StatusFacts
from layerwatch.daemon.store import refs
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.web.access import BodyLimit
from layerwatch.daemon.web.admission import Admission
from layerwatch.daemon.web.audit import audit_router
from layerwatch.daemon.web.decisions import Decisions
from layerwatch.daemon.web.errors import add_error_answers
from layerwatch.daemon.web.pages import pages_router
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.reports import reports_router
from layerwatch.daemon.web.silences import silences_router
from layerwatch.daemon.web.spectra import spectra_router
from layerwatch.daemon.web.spectrumdata import spectrum_data_router
from layerwatch.daemon.web.versions import versions_router
from layerwatch.metrics.findings import Severity
from layerwatch_testing.waiting import until
from storetools import NOW


class Site:
    """A context manager; it follows no redirect.

    Attributes:
        settings: in force; may be replaced while it runs.
        muted: why alerts are not told besides silences, as the daemon's notifier says it.
        changes: how often that notifier was woken, or something was accepted.
        queued: how often the scans were woken.
        now: the time.
        facts: how the daemon is, for its status.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self.settings = settings
        self.muted: dict[AlertIdentity, str] = {}
        self.changes = 0
        self.queued = 0
        self.now = NOW
        self.facts = quiet_facts(settings)
        decisions = Decisions(
            database,
            lambda: self.settings,
            lambda: self.muted,
            self._changed,
            lambda: self.now,
            follow=_follow,
            accepted=self._changed,
            queued=self._queued,
        )
        api = FastAPI()
        api.add_middleware(BodyLimit, most_bytes=2**20)
        api.include_router(silences_router(decisions))
        api.include_router(versions_router(decisions))
        api.include_router(audit_router(decisions))
        admission = Admission(lambda: self.settings, lambda: self.now)
        context = PageContext(database, lambda: self.settings, decisions, admission, lambda: self.facts)
        api.include_router(pages_router(context))
        api.include_router(reports_router(context))
        api.include_router(spectra_router(database))
        api.include_router(spectrum_data_router(database))
        add_error_answers(api)
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(api, log_config=None, access_log=False, lifespan="off", proxy_headers=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def address(self) -> str:
        return self._address

    def get(self, path: str, **other: Any) -> requests.Response:
        return self._ask("GET", path, **other)

    def post(self, path: str, **other: Any) -> requests.Response:
        return self._ask("POST", path, **other)

    def delete(self, path: str, **other: Any) -> requests.Response:
        return self._ask("DELETE", path, **other)

    def _ask(self, method: str, path: str, **other: Any) -> requests.Response:
        return requests.request(method, self._address + path, timeout=30, allow_redirects=False, **other)

    def _changed(self) -> None:
        self.changes += 1

    def _queued(self) -> None:
        self.queued += 1

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._server.started, "the site")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


def quiet_facts(settings: Settings) -> StatusFacts:
    """Of a daemon that began an hour ago, and to which nothing happened yet."""
    diary = Diary(NOW - timedelta(hours=1), settings, NOW - timedelta(hours=1))
    return StatusFacts(diary, (), (), (), frozenset(), ExpositionFacts(0, 0, 0.0), (), {})


def _follow(connection: Connection, version: VersionRecord, now: datetime) -> None:
    """As the daemon does where nothing was listed since its start."""
    key = version.key
    targets = refs.targets(connection, key.registry, key.model)
    follow_refs(connection, key.registry, key.model, targets, AlertPolicy(Severity.CRITICAL, None), now)

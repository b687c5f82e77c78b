"""Asks a daemon's HTTP API. Nothing that answers is waited for, read or followed without an end."""

from __future__ import annotations

import socket
from typing import TypeVar

import requests
from pydantic import TypeAdapter, ValidationError

from layerwatch import __version__
from layerwatch.daemon.following.seen import ALERTS, MODELS, VERSIONS, Judgement, Look, SeenVersion
from layerwatch.daemon.following.verdictwords import verdict_words
from layerwatch.daemon.registries.sessions import BoundedSession, arriving
from layerwatch.metrics.report import Report

MOST_VERSIONS = 100
"""So many of the newest versions are looked at."""

DESCRIBED = 8
"""Of so many of the newest judgements the report is read, each once."""

_TIMEOUT = (5.0, 15.0)
_MOST_BYTES = 64 * 2**20
"""Of one answer: a report of some ten thousand layers."""

_Shape = TypeVar("_Shape")


class DaemonUnreachableError(Exception):
    """Why a look found nothing, in words that hold foreign text; a later one may."""


class Daemon:
    """One daemon, and what is known of its verdicts.

    Args:
        address: without a slash at its end.
        model: registry and name of the only model to look at, or None for all.
    """

    def __init__(self, address: str, model: tuple[str, str] | None = None) -> None:
        self._address = address
        self._model = model
        self._session = BoundedSession(1)
        self._session.headers["User-Agent"] = f"layerwatch/{__version__}"
        self._words: dict[Judgement, str] = {}

    def look(self) -> Look:
        """What it does now.

        Raises:
            DaemonUnreachableError.
        """
        only = {} if self._model is None else dict(zip(("registry", "model"), self._model, strict=True))
        versions = self._list(VERSIONS, "/api/v1/versions", limit=str(MOST_VERSIONS), **only)
        models = self._list(MODELS, "/api/v1/models")
        alerts = self._list(ALERTS, "/api/v1/alerts", phase="firing")
        return Look(
            models=tuple(one for one in models if self._is_asked(one.registry, one.model)),
            versions=versions,
            alerts=tuple(one for one in alerts if self._is_asked(one.registry, one.model)),
            verdicts=self._verdicts(versions),
        )

    def _is_asked(self, registry: str, model: str) -> bool:
        return self._model in (None, (registry, model))

    def _verdicts(self, versions: tuple[SeenVersion, ...]) -> dict[Judgement, str]:
        judgements = [one.judgement for one in versions if one.judgement is not None]
        newest = sorted(judgements, key=lambda one: (one[1], one[0]))[-DESCRIBED:]
        self._words = {
            one: self._words[one] if one in self._words else self._described(one[0]) for one in newest
        }
        return dict(self._words)

    def _described(self, version_id: int) -> str:
        status, body = self._get(f"/api/v1/versions/{version_id}/report")
        if status != requests.codes.ok:
            return "no report is kept"
        try:
            return verdict_words(Report.model_validate_json(body))
        except (ValidationError, RecursionError):
            return "the report is of another version of layerwatch"

    def _list(self, shape: TypeAdapter[_Shape], path: str, **parameters: str) -> _Shape:
        status, body = self._get(path, **parameters)
        if 300 <= status < 400:
            raise DaemonUnreachableError(
                f"{path} is answered with a redirect ({status}), which is not followed"
            )
        if status != requests.codes.ok:
            raise DaemonUnreachableError(f"{path} is answered with HTTP status {status}")
        try:
            return shape.validate_json(body)
        except (ValidationError, RecursionError):
            raise DaemonUnreachableError(f"{path} is not answered as a layerwatch daemon does") from None

    def _get(self, path: str, **parameters: str) -> tuple[int, bytes]:
        try:
            with self._session.get(
                self._address + path,
                params=parameters,
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = bytearray()
                for block in arriving(response):
                    body += block
                    if len(body) > _MOST_BYTES:
                        raise DaemonUnreachableError(
                            f"the answer to {path} has more than {_MOST_BYTES} bytes"
                        )
                return response.status_code, bytes(body)
        except requests.RequestException as error:
            raise DaemonUnreachableError(_why(error)) from None


def _why(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not accepted"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy of the environment does not pass this on (see NO_PROXY)"
    cause = _system_error(error)
    if isinstance(cause, socket.gaierror):
        return "its host name is not known"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if cause is not None and cause.strerror:
        return cause.strerror.lower()
    return (
        "the connection broke off" if isinstance(error, requests.ConnectionError) else "the answer broke off"
    )


def _system_error(error: BaseException) -> OSError | None:
    """The system's own error below those of the libraries (requests' are OSErrors, too, without a number)."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and one.errno is not None:
            return one
        below = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting += [other for other in below if isinstance(other, BaseException)]
    return None

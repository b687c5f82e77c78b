"""Apprise, for the services that nothing else here speaks (extra ``apprise``).

Apprise connects by itself. Nothing of `layerwatch.alerts.http` holds for it: the addresses that it connects to are not
checked, private ones included (``allow_private_cidrs`` cannot be enforced, therefore the settings must allow it in
words), answers are read in full, and proxies of the environment are used. Redirects are off unless the URL turns them
on. It says only whether it delivered, never why not, and knows no resolution: the end of an alert is a second message.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.message import Message, as_text, inert, message_of
from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers.posting import revealed
from layerwatch.config.extras import how_to_install
from layerwatch.config.secrets import Secret
from layerwatch.metrics.findings import Severity

_LOGGERS = ("apprise", "urllib3.connectionpool")
_OURS = ContextVar("layerwatch_apprise", default=False)
"""Apprise hands the context on to the threads that it sends from."""

_TYPES = {Severity.CRITICAL: "failure", Severity.WARNING: "warning", Severity.INFO: "info"}


@dataclass(frozen=True, slots=True)
class AppriseReceiver:
    """Sends title and text.

    Attributes:
        name: name in the configuration.
        url: one Apprise URL; read at each attempt.
        timeout: how long to wait; an attempt that takes longer goes on by itself and may still deliver.
        max_age: events older than this are given up.
        send_resolved: whether it is told of resolutions.
    """

    name: str
    url: Secret
    timeout: timedelta
    max_age: timedelta
    send_resolved: bool = True

    def check(self) -> None:
        """Find what is wrong with the settings without asking the network.

        Raises:
            DeliveryError: ``unexpected`` without the library, ``bad_secret``, ``bad_url``.
        """
        self._service()

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """One message. See `Receiver.send`."""
        service = self._service()
        message = message_of(entry.payload)
        outcome: Future[str | None] = Future()

        def notify() -> None:
            with _silent():
                try:
                    delivered = service.notify(**_arguments(message))
                    outcome.set_result(None if delivered else "did not deliver and does not say why")
                except Exception as error:  # noqa: BLE001 - whatever a plug-in raises; its text may carry the URL
                    outcome.set_result(f"broke down ({type(error).__name__})")

        threading.Thread(target=notify, name="layerwatch-apprise", daemon=True).start()
        try:
            problem = outcome.result(timeout=self.timeout.total_seconds())
        except NotYetError:
            detail = f"Apprise did not finish within {self.timeout.total_seconds():g} s"
            raise DeliveryError(DeliveryReason.TIMEOUT, detail, retryable=True) from None
        if problem is not None:
            detail = f"Apprise {problem}; try the URL with the command apprise -vv"
            raise DeliveryError(DeliveryReason.UNEXPECTED, detail, retryable=True)

    def _service(self) -> Any:
        url = revealed(self.url, "url")
        try:
            apprise = importlib.import_module("apprise")
        except ImportError as error:
            detail = f"kind apprise needs the package {error.name}: {how_to_install('apprise')}"
            raise DeliveryError(DeliveryReason.UNEXPECTED, detail, retryable=False) from None
        asset = apprise.AppriseAsset(async_mode=False, http_redirects=False, storage_mode="memory")
        service = apprise.Apprise(asset=asset)
        with _silent():
            usable = service.add(url) and len(service) == 1
        if not usable:
            detail = "url is not one URL that Apprise understands; see https://appriseit.com/services/"
            raise DeliveryError(DeliveryReason.BAD_URL, detail, retryable=False)
        return service


def _arguments(message: Message) -> dict[str, Any]:
    resolved = message.phase is AlertPhase.RESOLVED
    return {
        "title": f"{message.label}: {inert(message.subject)}",
        "body": as_text(message),
        "notify_type": "success" if resolved else _TYPES[message.severity],
        "body_format": "text",
        "interpret_escapes": False,
    }


@contextmanager
def _silent() -> Iterator[None]:
    """Drops what Apprise, and urllib3 below it, log about this attempt: they write out URLs."""
    for name in _LOGGERS:
        # Stays: a thread of Apprise's that was left behind may log after the attempt is over.
        logging.getLogger(name).addFilter(_is_not_ours)
    token = _OURS.set(True)
    try:
        yield
    finally:
        _OURS.reset(token)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not _OURS.get()

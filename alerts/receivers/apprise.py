"""Apprise, for the services that nothing else here speaks (extra ``apprise``).

Apprise connects by itself, so each message is sent from a process of its own (`layerwatch.alerts.appriseprocess`), in
which addresses are checked, redirects are not followed, and proxies and passwords of the environment are unknown. It
knows no resolution: the end of an alert is a second message. Services that are not spoken to over HTTP do not say why
they failed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from layerwatch.alerts.appriseprocess import Job, Outcome
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.message import Message, as_text, inert, message_of
from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers.posting import Posting, revealed
from layerwatch.config.extras import how_to_install
from layerwatch.config.secrets import Secret
from layerwatch.metrics.findings import Severity

_COMMAND = (sys.executable, "-P", "-m", "layerwatch.alerts.appriseprocess")
_KEPT = frozenset(
    {
        "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH",
        "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ",
    }
)  # fmt: skip
"""Of the environment; what is not named may be a secret, or a proxy."""

_CHECK_SECONDS = 60.0
"""Apprise knows 130 services and may have to read them all from a slow disk."""

_TYPES = {Severity.CRITICAL: "failure", Severity.WARNING: "warning", Severity.INFO: "info"}


@dataclass(frozen=True, slots=True)
class AppriseReceiver:
    """Sends title and text.

    Attributes:
        name: name in the configuration.
        url: one Apprise URL; read at each attempt.
        posting: where it may connect to, for how long, and whose certificates count.
        max_age: events older than this are given up.
        send_resolved: whether it is told of resolutions.
    """

    name: str
    url: Secret
    posting: Posting
    max_age: timedelta
    send_resolved: bool = True

    def check(self) -> None:
        """Find what is wrong with the settings without asking the network.

        Raises:
            DeliveryError: ``unexpected`` without the library, ``bad_secret``, ``bad_url``, ``tls``.
        """
        self.posting.check_authorities()
        self._run(None, _CHECK_SECONDS)

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """One message. See `Receiver.send`."""
        self._run(_arguments(message_of(entry.payload)), self.posting.timeout.total_seconds())

    def _run(self, message: dict[str, Any] | None, seconds: float) -> None:
        url = revealed(self.url, "url")
        if importlib.util.find_spec("apprise") is None:
            detail = f"kind apprise needs the package apprise: {how_to_install('apprise')}"
            raise DeliveryError(DeliveryReason.UNEXPECTED, detail, retryable=False)
        allowed = tuple(str(network) for network in self.posting.policy.allowed)
        job = Job(url, allowed, seconds, message)
        late = DeliveryError(
            DeliveryReason.TIMEOUT, f"Apprise did not finish within {seconds:g} s", retryable=True
        )
        try:
            done = subprocess.run(
                _COMMAND,
                input=job.encoded(),
                env=_environment(self.posting.ca_bundle),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise late from None
        if done.returncode == -signal.SIGALRM:
            raise late
        try:
            outcome = Outcome(**json.loads(done.stdout))
        except ValueError:
            detail = f"the process of Apprise ended with {done.returncode} and no result"
            raise DeliveryError(DeliveryReason.UNEXPECTED, detail, retryable=True) from None
        failure = outcome.error()
        if failure is not None:
            raise failure


def _environment(ca_bundle: str | None) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    if ca_bundle is not None:
        # The first for HTTP, the others for mail and the like.
        kept["REQUESTS_CA_BUNDLE"] = ca_bundle
        kept["SSL_CERT_DIR" if Path(ca_bundle).is_dir() else "SSL_CERT_FILE"] = ca_bundle
    return {**kept, "NETRC": os.devnull}


def _arguments(message: Message) -> dict[str, Any]:
    resolved = message.phase is AlertPhase.RESOLVED
    return {
        "title": f"{message.label}: {inert(message.subject)}",
        "body": as_text(message),
        "notify_type": "success" if resolved else _TYPES[message.severity],
        "body_format": "text",
        "interpret_escapes": False,
    }

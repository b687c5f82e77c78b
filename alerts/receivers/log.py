"""The log as a receiver: one plain line per event, for a first start and for log-based alerting."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.outbox import OutboxEntry

_MAX_AGE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class LogReceiver:
    """Writes events to ``logger``: firing as warnings, resolutions as information.

    A line reads ``alert firing (first, critical): <summary> [<event id>, sequence <n>]``.
    """

    name: str
    logger: logging.Logger
    send_resolved: bool = True

    @property
    def max_age(self) -> timedelta:
        """One day: later the line would only confuse whoever reads the log."""
        return _MAX_AGE

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """Write the line. See `Receiver.send`; a payload that is not one of ours raises KeyError or ValueError."""
        data = json.loads(entry.payload)["data"]
        level = logging.WARNING if data["phase"] == AlertPhase.FIRING.value else logging.INFO
        self.logger.log(
            level,
            "alert %s (%s, %s): %s [%s, sequence %d]",
            data["phase"],
            data["reason"],
            data["severity"],
            data["summary"],
            entry.event_id,
            data["sequence"],
        )

"""What every receiver can do."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from layerwatch.alerts.outbox import OutboxEntry


class Receiver(Protocol):
    """A place that is told of alerts. One attempt per call: waiting and trying again belong to the dispatcher."""

    @property
    def name(self) -> str:
        """Name in the configuration; also the metric label."""
        ...

    @property
    def send_resolved(self) -> bool:
        """False when it is told only of firing alerts."""
        ...

    @property
    def max_age(self) -> timedelta:
        """Events older than this are given up."""
        ...

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """Deliver one event; returning means that the other side has it.

        Called from several threads, for one receiver from one at a time. The same event may be sent again (at
        least once), always under the same event id.

        Args:
            entry: the event; what is told is made of ``payload`` alone, so that every attempt tells the same.
            now: tz-aware time of this attempt.

        Raises:
            DeliveryError: when the other side does not have it, or may not.
        """
        ...

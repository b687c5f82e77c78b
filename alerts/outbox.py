"""The queue between a change of state and its delivery. The database behind it lives with the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from layerwatch.alerts.errors import DeliveryReason


@dataclass(frozen=True, slots=True)
class NewOutboxEntry:
    """An event for one receiver, to be stored in the transaction that stores the alert's new state.

    The pair (event_id, receiver) is unique: storing it a second time must change nothing.

    Attributes:
        payload: the exact JSON text to send; signatures are made over these bytes (UTF-8).
        created_at: time of the event; the first attempt is due at once.
    """

    event_id: str
    receiver: str
    payload: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A stored event for one receiver that is neither delivered nor given up.

    Attributes:
        id: the store's number, rising in the order of storing.
        event_id: equal for all attempts and all receivers of the event.
        receiver: name of the receiver in the configuration.
        payload: the exact JSON text to send.
        created_at: time of the event; age is counted from here.
        attempts: failed attempts so far, from 0.
        next_attempt_at: not to be tried before.
    """

    id: int
    event_id: str
    receiver: str
    payload: str
    created_at: datetime
    attempts: int
    next_attempt_at: datetime


class Outbox(Protocol):
    """What the dispatcher needs of the store. Called from one thread at a time."""

    def due(self, now: datetime, limit: int) -> Sequence[OutboxEntry]:
        """Entries whose next attempt is not after ``now``, lowest id first, at most ``limit``."""
        ...

    def mark_delivered(self, entry_id: int, now: datetime) -> None:
        """The receiver has it; never due again."""
        ...

    def mark_failed(
        self, entry_id: int, now: datetime, next_attempt_at: datetime, reason: DeliveryReason, detail: str
    ) -> None:
        """One more attempt failed: adds one to ``attempts`` and makes it due again at ``next_attempt_at``."""
        ...

    def mark_dead(self, entry_id: int, now: datetime, reason: DeliveryReason, detail: str) -> None:
        """Given up: never due again by itself, kept for the operator to see and replay."""
        ...

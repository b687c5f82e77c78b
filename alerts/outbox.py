"""The queue between the decision to tell and the delivery. The database behind it lives with the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from layerwatch.alerts.errors import DeliveryReason


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A stored event for one receiver that is neither delivered nor given up.

    Attributes:
        id: the store's number, rising in the order of storing.
        event_id: equal for all attempts.
        receiver: name of the receiver in the configuration.
        payload: the exact JSON text to send; signatures are made over these bytes (UTF-8).
        created_at: time of the event; age is counted from here.
        attempts: failed attempts so far, from 0.
        next_attempt_at: not to be tried before.
        stream: events of one stream are delivered in the order of their ids; None is in no stream.
    """

    id: int
    event_id: str
    receiver: str
    payload: str
    created_at: datetime
    attempts: int
    next_attempt_at: datetime
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one attempt.

    Attributes:
        entry_id: of which entry.
        error: reason and detail; None when the receiver has it.
        next_attempt_at: when it is tried again; None, with an error, when it is given up.
    """

    entry_id: int
    error: tuple[DeliveryReason, str] | None = None
    next_attempt_at: datetime | None = None


class Outbox(Protocol):
    """What the dispatcher needs of the store. Called from one thread for each receiver."""

    def claim(self, receiver: str, now: datetime, limit: int) -> Sequence[OutboxEntry]:
        """Entries of a receiver that are due, lowest id first, at most ``limit``; nobody else is given them meanwhile.

        An entry is due when its next attempt is not after ``now`` (or was set by a clock that has been set back since)
        and no earlier entry of its stream waits for another time.
        """
        ...

    def settle(self, results: Sequence[Result], now: datetime) -> None:
        """Record results, all or none; what is no longer waiting stays as it is. Claims on the entries end."""
        ...

    def release(self, entry_ids: Sequence[int]) -> None:
        """Give entries back untried."""
        ...

    def hurry(self, receiver: str, now: datetime) -> None:
        """What waits for a receiver to be tried again is due now."""
        ...

    def expire(self, receiver: str, created_before: datetime, now: datetime, detail: str) -> int:
        """Give up what is older; how many."""
        ...

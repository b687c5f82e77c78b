"""When to try again: one schedule for all receivers. Receivers themselves never loop."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.outbox import OutboxEntry

FIRST_DELAY = timedelta(seconds=1)
LONGEST_DELAY = timedelta(hours=1)
LONGEST_RETRY_AFTER = timedelta(days=1)
MOST_UNEXPECTED = 10
"""Attempts that may break down: an event behind one that always does must not wait for days."""


# 2**12 s is past the longest delay; higher powers need not be computed.
_LAST_DOUBLING = 12


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an entry after a failed attempt.

    Attributes:
        next_attempt_at: when to try again; None to give up.
        reason: the failure, or ``expired`` when the entry would be too old for another attempt.
        detail: a sentence for the operator.
    """

    next_attempt_at: datetime | None
    reason: DeliveryReason
    detail: str


def next_delay(event_id: str, attempt: int, retry_after: timedelta | None) -> timedelta:
    """Wait before the attempt after failed attempt number ``attempt``.

    Doubles from 1 s to 1 h, then takes 50 to 100 % of that, so that receivers that failed together are not
    tried together. The part is drawn from a hash of (event_id, attempt): the same after a restart.

    Args:
        event_id: id of the event.
        attempt: failed attempts so far including the last, from 1.
        retry_after: what the receiver asked for. Honoured up to 1 day; never shortens the wait.
    """
    if attempt < 1:
        raise ValueError(f"attempt counts from 1, got {attempt}")
    doublings: int = min(attempt - 1, _LAST_DOUBLING)
    full = min(FIRST_DELAY * (1 << doublings), LONGEST_DELAY)
    digest = hashlib.sha256(f"{event_id}:{attempt}".encode()).digest()
    part = 0.5 + 0.5 * int.from_bytes(digest[:8], "big") / 2**64
    delay = full * part
    return delay if retry_after is None else max(delay, min(retry_after, LONGEST_RETRY_AFTER))


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """The Retry-After header (RFC 9110, 10.2.3: seconds or an HTTP date) as a wait from ``now``.

    Returns:
        0 to 1 day, or None when the header is absent or makes no sense.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # Sixteen digits are past any cap; more could not be converted.
        return min(timedelta(seconds=min(int(text[:16]), 86_400)), LONGEST_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max(when - now, timedelta(0)), LONGEST_RETRY_AFTER)


def decide(
    entry: OutboxEntry,
    error: DeliveryError,
    max_age: timedelta,
    now: datetime,
    at_latest: datetime | None = None,
) -> Decision:
    """Try again, and when, or give up.

    Given up is what cannot succeed later (``error.retryable`` is False), what a receiver broke down over ten times, and
    what would be older than ``max_age`` at its next attempt: said now, not when that time has come.

    Args:
        at_latest: when the receiver is asked again anyway.
    """
    defect = error.reason is DeliveryReason.UNEXPECTED and entry.attempts + 1 >= MOST_UNEXPECTED
    if defect or not error.retryable:
        return Decision(None, error.reason, error.detail)
    next_attempt_at = now + next_delay(entry.event_id, entry.attempts + 1, error.retry_after)
    if at_latest is not None:
        next_attempt_at = min(next_attempt_at, at_latest)
    if next_attempt_at - entry.created_at > max_age:
        attempts = entry.attempts + 1
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        detail = (
            f"not delivered in {tries}; older than max_age ({max_age}) at the next; last failure: {error}"
        )
        return Decision(None, DeliveryReason.EXPIRED, detail)
    return Decision(next_attempt_at, error.reason, error.detail)

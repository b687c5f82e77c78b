"""Silences: alerts that nobody is told of for a while, because somebody said so, for a reason, until a time.

As in Alertmanager (https://prometheus.io/docs/alerting/latest/alertmanager/#silences), but author, reason and end
are not optional, and a silence that would match an alert without any label is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from layerwatch.alerts.people import EntryError, checked_name, checked_reason
from layerwatch.config.matchers import Labels, Matcher, Operator, all_match

LONGEST_SILENCE = timedelta(days=90)
"""How far ahead a silence may end. Longer is not silence but a rule nobody wants: its severity is set in the
configuration, where it is seen."""

MOST_MATCHERS = 50


class SilenceState(StrEnum):
    """Whether a silence holds back alerts: not yet, now, no longer."""

    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class NewSilence:
    """A silence that may be kept. Made by `new_silence`, which checks it."""

    matchers: tuple[Matcher, ...]
    author: str
    reason: str
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Silence:
    """One kept silence. All of its matchers must match an alert.

    Attributes:
        id: its number.
        starts_at, ends_at: first moment, and the one after the last; ``created_at <= starts_at < ends_at``.
        expired_at: when somebody ended it early, or None.
        expired_by: who that was, or None.
    """

    id: int
    matchers: tuple[Matcher, ...]
    author: str
    reason: str
    created_at: datetime
    starts_at: datetime
    ends_at: datetime
    expired_at: datetime | None = None
    expired_by: str | None = None

    def state(self, now: datetime) -> SilenceState:
        """Where it is in its life.

        What somebody ended stays ended whatever the clock says. Of any other both borders are times: under a clock that
        went back to before its start it waits, and holds back nothing.
        """
        if self.expired_at is not None or now >= self.ends_at:
            return SilenceState.EXPIRED
        return SilenceState.ACTIVE if now >= self.starts_at else SilenceState.PENDING


def new_silence(
    matchers: Sequence[Matcher],
    author: str,
    reason: str,
    now: datetime,
    ends_at: datetime,
    starts_at: datetime | None = None,
) -> NewSilence:
    """A silence that keeps the rules.

    Args:
        matchers: at least one that does not match an empty value, so that no alert fulfils them by having no labels.
        author, reason: not blank.
        ends_at: tz-aware; after the start and after now, at most `LONGEST_SILENCE` after now.
        starts_at: tz-aware; None for now, which is also what an earlier time becomes.

    Raises:
        EntryError: with the field that is wrong.
    """
    if not matchers:
        raise EntryError("matchers", 'at least one is needed, such as model="fraud"')
    if len(matchers) > MOST_MATCHERS:
        raise EntryError("matchers", f"there may be at most {MOST_MATCHERS}")
    if all(matcher.matches({}) for matcher in matchers):
        detail = 'at least one must not match the empty text, or everything would be silent: model=~".+"'
        raise EntryError("matchers", detail)
    for field, time in (("starts_at", starts_at), ("ends_at", ends_at)):
        if time is not None and time.tzinfo is None:
            raise EntryError(field, "needs a time zone: 2026-12-01T08:00Z")
    start = now if starts_at is None else max(starts_at, now)
    if ends_at <= now:
        raise EntryError("ends_at", "is over already")
    if ends_at <= start:
        raise EntryError("ends_at", "must be after the start")
    if ends_at > now + LONGEST_SILENCE:
        raise EntryError("ends_at", f"must be at most {LONGEST_SILENCE.days} days ahead")
    return NewSilence(tuple(matchers), checked_name(author), checked_reason(reason), start, ends_at)


def ending(start: datetime, duration: timedelta) -> datetime:
    """When what starts then has lasted so long; raises EntryError beyond the calendar."""
    try:
        return start + duration
    except OverflowError:
        raise EntryError("duration", "is too long") from None


def silenced_by(labels: Labels, silences: Sequence[Silence], now: datetime) -> Silence | None:
    """The silence that holds back an alert with these labels now; of several the one that ends last."""
    holding = [one for one in silences if holds(one, labels, now)]
    return max(holding, key=lambda one: (one.ends_at, one.id), default=None)


def holds(silence: Silence, labels: Labels, now: datetime) -> bool:
    """Whether it holds back an alert with these labels now."""
    return silence.state(now) is SilenceState.ACTIVE and all_match(silence.matchers, labels)


def exactly(label: str, value: str) -> Matcher:
    """A matcher of one value, each of whose characters can be seen in it.

    Names come from strangers: one with characters that turn the direction of the text, or cannot be seen, becomes a
    regular expression in which they are written as ``\\u202e``.
    """
    if value.isprintable():
        return Matcher(label, Operator.EQUAL, value)
    return Matcher(label, Operator.MATCHES, "".join(map(_in_pattern, value)))


def shown(matcher: Matcher) -> str:
    """The matcher as one line for people, with ``\\u202e`` in place of a character that cannot be seen."""
    return "".join(
        character if character.isprintable() else _escaped(character) for character in str(matcher)
    )


def _in_pattern(character: str) -> str:
    return re.escape(character) if character.isprintable() else _escaped(character)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

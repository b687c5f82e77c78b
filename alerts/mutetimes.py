"""Whether a mute time holds now."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import get_args

from layerwatch.config.mutetimes import (
    DateRange,
    HourRange,
    MuteSpanSettings,
    MuteTimeSettings,
    Weekday,
    parse_dates,
    parse_hours,
    parse_zone,
)

_WEEKDAYS: tuple[str, ...] = get_args(Weekday)


@dataclass(frozen=True, slots=True)
class MuteSpan:
    """Hours of days; every part that is not empty narrows it down.

    Attributes:
        weekdays: 0 for Monday to 6.
        days_of_month: 1 for the first day, -1 for the last.
        dates: days of the year.
        hours: minutes of the day; past midnight they belong to the day on which they begin.
    """

    weekdays: frozenset[int] = frozenset()
    days_of_month: frozenset[int] = frozenset()
    dates: tuple[DateRange, ...] = ()
    hours: tuple[HourRange, ...] = ()

    def holds(self, local: datetime) -> bool:
        """Whether it holds at a time of the zone's wall clock."""
        today = local.date()
        if not self.hours:
            return self._on(today)
        minute = local.hour * 60 + local.minute
        for begin, end in self.hours:
            past_midnight = end < begin
            if begin <= minute and (past_midnight or minute < end) and self._on(today):
                return True
            if past_midnight and minute < end and self._on(today - timedelta(days=1)):
                return True
        return False

    def _on(self, day: date) -> bool:
        from_the_end = day.day - monthrange(day.year, day.month)[1] - 1
        return (
            (not self.weekdays or day.weekday() in self.weekdays)
            and (not self.days_of_month or not self.days_of_month.isdisjoint((day.day, from_the_end)))
            and (not self.dates or any(_within((day.month, day.day), dates) for dates in self.dates))
        )


@dataclass(frozen=True, slots=True)
class MuteTime:
    """A time at which nothing is told.

    Attributes:
        name: as routes call it.
        zone: whose wall clock its hours and days are read off.
        spans: when it is; one of them is enough.
    """

    name: str
    zone: tzinfo
    spans: tuple[MuteSpan, ...]


def build_mute_time(settings: MuteTimeSettings) -> MuteTime:
    """The mute time that settings describe."""
    return MuteTime(settings.name, parse_zone(settings.zone), tuple(map(_span, settings.times)))


def muted_by(mute_times: Sequence[MuteTime], now: datetime) -> str | None:
    """Name of the first mute time that holds now, if any does.

    Raises:
        ValueError: for a time without a zone.
    """
    if now.tzinfo is None:
        raise ValueError("now must be a time with its zone")
    for one in mute_times:
        local = now.astimezone(one.zone)
        if any(span.holds(local) for span in one.spans):
            return one.name
    return None


def _span(settings: MuteSpanSettings) -> MuteSpan:
    return MuteSpan(
        weekdays=frozenset(map(_WEEKDAYS.index, settings.weekdays)),
        days_of_month=frozenset(settings.days_of_month),
        dates=tuple(map(parse_dates, settings.dates)),
        hours=tuple(map(parse_hours, settings.hours)),
    )


def _within(day: tuple[int, int], dates: DateRange) -> bool:
    first, last = dates
    return first <= day <= last if first <= last else day >= first or day <= last

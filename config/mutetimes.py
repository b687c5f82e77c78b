"""Mute times: hours and days at which nothing is told.

All is read off a clock on the wall in the zone. Where that clock is set forward, an hour that it leaves out is never
muted; where it is set back, an hour that it shows twice is muted twice.
"""

from __future__ import annotations

import re
from datetime import UTC, date, tzinfo
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from layerwatch.config.base import NO_SWITCH, Name, SettingsModel
from layerwatch.config.lists import NotEmpty
from layerwatch.config.wording import nearest, quote

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
"""A day of the week as it is written in the configuration."""

HourRange = tuple[int, int]
"""Minutes of the day, 0 to 1440: from the first on, up to and without the second, on the next day if that is earlier."""

DateRange = tuple[tuple[int, int], tuple[int, int]]
"""Two days of the year, each a month and a day, both included; over New Year if the second is earlier."""

MINUTES_OF_A_DAY = 1440

_HOURS_PATTERN = r"^([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])$"
_HOURS = re.compile(_HOURS_PATTERN)
_DATES_PATTERN = r"^(0[1-9]|1[0-2])-([0-2][0-9]|3[01])(\.\.(0[1-9]|1[0-2])-([0-2][0-9]|3[01]))?$"
_DATES = re.compile(_DATES_PATTERN)
_A_LEAP_YEAR = 2024


def parse_hours(text: str) -> HourRange:
    """Read ``HH:MM-HH:MM``: ``09:00-17:30``, ``20:00-24:00``, or past midnight ``20:00-07:00``.

    Raises:
        ValueError: with a sentence that says what is accepted.
    """
    found = _HOURS.fullmatch(text)
    begin, end = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
    if found is None or end > MINUTES_OF_A_DAY:
        raise ValueError(
            f"is no range of hours: {quote(text)}; write HH:MM-HH:MM, such as 20:00-07:00 or 12:00-24:00"
        )
    if begin == end:
        raise ValueError("begins and ends at the same time; write 00:00-24:00 for the whole day")
    return begin, end


def parse_dates(text: str) -> DateRange:
    """Read ``MM-DD`` or ``MM-DD..MM-DD``: days of every year, ``12-24..01-01`` over New Year.

    Raises:
        ValueError: with a sentence that says what is accepted.
    """
    found = _DATES.fullmatch(text)
    if found is None:
        raise ValueError(f"is no date: {quote(text)}; write MM-DD or MM-DD..MM-DD, such as 12-24..12-26")
    first = _day(found[1], found[2])
    return first, _day(found[4], found[5]) if found[3] else first


def parse_zone(name: str) -> tzinfo:
    """The time zone of an IANA name. UTC needs no database of zones.

    Raises:
        ValueError: when there is none of this name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = available_timezones()
    if not known:
        raise ValueError("this system knows no time zone but UTC; install the package tzdata")
    near = nearest(name, known)
    hint = f", did you mean {quote(near)}?" if near else "; write a name such as UTC or Europe/Berlin"
    raise ValueError(f"unknown time zone {quote(name)}{hint}")


def _day(month: str, day: str) -> tuple[int, int]:
    try:
        found = date(_A_LEAP_YEAR, int(month), int(day))
    except ValueError:
        raise ValueError(f"there is no day {month}-{day}") from None
    return found.month, found.day


def _checked_hours(text: str) -> str:
    parse_hours(text)
    return text


def _checked_dates(text: str) -> str:
    parse_dates(text)
    return text


def _checked_zone(name: str) -> str:
    parse_zone(name)
    return name


def _not_zero(day: int) -> int:
    if day == 0:
        raise ValueError("must be 1 to 31, or -1 for the last day of the month to -31")
    return day


HourText = Annotated[
    str, AfterValidator(_checked_hours), WithJsonSchema({"type": "string", "pattern": _HOURS_PATTERN})
]
"""``HH:MM-HH:MM``."""

DateText = Annotated[
    str, AfterValidator(_checked_dates), WithJsonSchema({"type": "string", "pattern": _DATES_PATTERN})
]
"""``MM-DD`` or ``MM-DD..MM-DD``."""

DayOfMonth = Annotated[int, Field(ge=-31, le=31), AfterValidator(_not_zero), NO_SWITCH]
"""1 is the first day of a month, -1 its last."""


class MuteSpanSettings(SettingsModel):
    """Hours of days. Each key narrows it down; one that is not given, or empty, leaves out nothing."""

    weekdays: tuple[Weekday, ...] = ()
    """Days of the week."""

    days_of_month: tuple[DayOfMonth, ...] = ()
    """Days of the month; -1 is the last."""

    dates: tuple[DateText, ...] = ()
    """Days of the year: MM-DD, or MM-DD..MM-DD with both days included."""

    hours: tuple[HourText, ...] = ()
    """Hours of the day, HH:MM-HH:MM; past midnight they belong to the day on which they begin."""

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if not (self.weekdays or self.days_of_month or self.dates or self.hours):
            raise ValueError("must say when: weekdays, days_of_month, dates or hours")
        return self


class MuteTimeSettings(SettingsModel):
    """A time at which nothing is told, under a name that routes refer to."""

    name: Name
    """How routes call it."""

    zone: Annotated[str, AfterValidator(_checked_zone)] = "UTC"
    """Time zone of its hours and days: an IANA name such as Europe/Berlin."""

    times: Annotated[tuple[MuteSpanSettings, ...], NotEmpty()]
    """When it is; one of them is enough."""

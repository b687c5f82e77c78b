from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from layerwatch.config.mutetimes import (
    MuteSpanSettings,
    MuteTimeSettings,
    parse_dates,
    parse_hours,
    parse_zone,
)

CLOCK = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
DAYS = st.dates(datetime(2024, 1, 1).date(), datetime(2024, 12, 31).date()).map(lambda day: f"{day:%m-%d}")


@given(CLOCK, st.one_of(CLOCK, st.just("24:00")))
def test_a_range_of_hours_is_read_in_minutes_of_the_day(begin: str, end: str) -> None:
    def minutes(text: str) -> int:
        return int(text[:2]) * 60 + int(text[3:])

    if begin == end:
        with pytest.raises(ValueError, match="write 00:00-24:00 for the whole day"):
            parse_hours(f"{begin}-{end}")
    else:
        assert parse_hours(f"{begin}-{end}") == (minutes(begin), minutes(end))


@given(DAYS, DAYS)
def test_dates_are_days_of_the_year(first: str, last: str) -> None:
    def day(text: str) -> tuple[int, int]:
        return int(text[:2]), int(text[3:])

    assert parse_dates(first) == (day(first), day(first))
    assert parse_dates(f"{first}..{last}") == (day(first), day(last))


@pytest.mark.parametrize(
    "text", ["", "20-7", "9:00-10:00", "24:00-07:00", "20:00-24:01", "20:60-21:00", "20:00", "20:00 - 07:00"]
)
def test_what_is_no_range_of_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no range of hours: .*write HH:MM-HH:MM"):
        parse_hours(text)


@pytest.mark.parametrize("text", ["", "1-1", "13-01", "2026-12-24", "12-24-12-26", "12-24..", "12-32"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no date: .*write MM-DD or MM-DD\.\.MM-DD"):
        parse_dates(text)


@pytest.mark.parametrize("text", ["02-30", "04-31", "00-00", "12-01..11-31"])
def test_a_day_that_no_year_has_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"there is no day|is no date"):
        parse_dates(text)


@given(st.text("0123456789-:. ", max_size=14))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse_hours, parse_dates):
        try:
            first, _ = read(text)
        except ValueError:
            continue
        assert first is not None


def test_a_zone_is_known_by_its_iana_name() -> None:
    summer = datetime(2026, 7, 1, tzinfo=UTC)
    assert summer.astimezone(parse_zone("Europe/Berlin")).utcoffset() == timedelta(hours=2)
    assert parse_zone("UTC") is UTC


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Europe/Berln", 'unknown time zone "Europe/Berln", did you mean "Europe/Berlin"?'),
        ("europe/berlin", 'did you mean "Europe/Berlin"?'),
        ("qqq", 'unknown time zone "qqq"; write a name such as UTC or Europe/Berlin'),
        ("Europe", 'unknown time zone "Europe"'),
        ("", 'unknown time zone ""'),
        ("../../etc/passwd", "unknown time zone"),
        ("/etc/localtime", "unknown time zone"),
        ("a\x00b", "unknown time zone"),
    ],
)
def test_an_unknown_zone_is_refused_with_a_hint(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_zone(name)


def test_utc_needs_no_database_of_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerwatch.config.mutetimes.available_timezones", set)
    assert parse_zone("UTC") is UTC
    with pytest.raises(ValueError, match="install the package tzdata"):
        parse_zone("Nowhere/Town")


def test_a_mute_time_says_when() -> None:
    with pytest.raises(ValidationError, match="must say when: weekdays, days_of_month, dates or hours"):
        MuteSpanSettings()
    with pytest.raises(ValidationError, match="must say when"):
        MuteSpanSettings(weekdays=(), hours=())
    with pytest.raises(ValidationError, match="must not be empty"):
        MuteTimeSettings(name="nights", times=())


@pytest.mark.parametrize("day", [0, 32, -32, True, 1.5, "1st"])
def test_a_day_that_no_month_has_is_refused(day: object) -> None:
    with pytest.raises(ValidationError):
        MuteSpanSettings.model_validate({"days_of_month": [day]})
    assert MuteSpanSettings.model_validate({"days_of_month": [1, 31, -1, -31]}).days_of_month == (
        1,
        31,
        -1,
        -31,
    )

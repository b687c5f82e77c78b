from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.alerts.mutetimes import MuteTime, build_mute_time, muted_by
from layerwatch.config.mutetimes import MuteSpanSettings, MuteTimeSettings

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Cairo",
)


def mute_time(*times: dict[str, object], zone: str = "UTC", name: str = "nights") -> MuteTime:
    return build_mute_time(
        MuteTimeSettings.model_validate({"name": name, "zone": zone, "times": list(times)})
    )


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def muted_minutes(mute: MuteTime, first: datetime, minutes: int) -> list[str]:
    """Ranges of UTC minutes, HH:MM-HH:MM, at which it holds."""
    ranges: list[str] = []
    begin: datetime | None = None
    for number in range(minutes + 1):
        now = first + timedelta(minutes=number)
        holds = number < minutes and muted_by([mute], now) is not None
        if holds and begin is None:
            begin = now
        elif not holds and begin is not None:
            ranges.append(f"{begin:%H:%M}-{now:%H:%M}")
            begin = None
    return ranges


@pytest.mark.parametrize(
    ("when", "muted"),
    [
        # 2026-11-16 is a Monday.
        ("2026-11-16 19:59:59", False),
        ("2026-11-16 20:00", True),
        ("2026-11-17 06:59:59", True),
        ("2026-11-17 07:00", False),
        # Friday's night goes on into Saturday; Sunday's into Monday is none of the listed days'.
        ("2026-11-21 06:59", True),
        ("2026-11-21 20:00", False),
        ("2026-11-16 06:59", False),
        ("2026-11-15 23:00", False),
    ],
)
def test_hours_past_midnight_belong_to_the_day_on_which_they_begin(when: str, muted: bool) -> None:
    nights = mute_time(
        {"weekdays": ["mon", "tue", "wed", "thu", "fri"], "hours": ["20:00-07:00"]}, zone="Europe/Berlin"
    )
    assert (muted_by([nights], at(when, "Europe/Berlin")) == "nights") is muted


def test_two_entries_for_the_same_days_mute_the_mornings_of_those_days_instead() -> None:
    split = mute_time({"weekdays": ["mon"], "hours": ["20:00-24:00", "00:00-07:00"]})
    assert muted_minutes(split, at("2026-11-16 00:00"), 2 * 1440) == ["00:00-07:00", "20:00-00:00"]
    through = mute_time({"weekdays": ["mon"], "hours": ["20:00-07:00"]})
    assert muted_minutes(through, at("2026-11-16 00:00"), 2 * 1440) == ["20:00-07:00"]


def test_an_hour_that_the_clock_leaves_out_is_never_muted() -> None:
    """In Berlin, 2026-03-29 01:59:59 CET (00:59:59 UTC) is followed by 03:00 CEST."""
    day = at("2026-03-28 23:00")
    assert muted_minutes(mute_time({"hours": ["02:00-03:00"]}, zone="Europe/Berlin"), day, 1380) == []
    through = mute_time({"hours": ["01:30-03:30"]}, zone="Europe/Berlin")
    assert muted_minutes(through, day, 1380) == ["00:30-01:30"]
    night = mute_time({"hours": ["22:00-06:00"]}, zone="Europe/Berlin")
    assert muted_minutes(night, day - timedelta(hours=11), 1440) == ["21:00-04:00"]


def test_an_hour_that_the_clock_shows_twice_is_muted_twice() -> None:
    """In Berlin, 2026-10-25 02:59:59 CEST (00:59:59 UTC) is followed by 02:00 CET."""
    day = at("2026-10-24 22:00")
    short = mute_time({"hours": ["02:15-02:45"]}, zone="Europe/Berlin")
    assert muted_minutes(short, day, 1500) == ["00:15-00:45", "01:15-01:45"]
    night = mute_time({"hours": ["22:00-06:00"]}, zone="Europe/Berlin")
    assert muted_minutes(night, day - timedelta(hours=10), 1440) == ["20:00-05:00"]


@pytest.mark.parametrize(
    ("span", "days"),
    [
        ({"dates": ["12-24..12-26"]}, ["2026-12-24", "2026-12-25", "2026-12-26"]),
        ({"dates": ["12-30..01-02"]}, ["2026-12-30", "2026-12-31", "2027-01-01", "2027-01-02"]),
        ({"dates": ["02-28..03-01"]}, ["2027-02-28", "2027-03-01"]),
        ({"dates": ["02-29"]}, []),
        ({"days_of_month": [-1]}, ["2026-12-31", "2027-01-31", "2027-02-28"]),
        (
            {"days_of_month": [31, -31]},
            ["2026-12-01", "2026-12-31", "2027-01-01", "2027-01-31", "2027-03-01"],
        ),
        (
            {"days_of_month": [1, 2, 3, 4, 5, 6, 7], "weekdays": ["mon"]},
            ["2026-12-07", "2027-01-04", "2027-02-01", "2027-03-01"],
        ),
        ({"dates": ["12-01..12-31"], "days_of_month": [-1]}, ["2026-12-31"]),
    ],
)
def test_days_are_those_of_the_calendar(span: dict[str, object], days: list[str]) -> None:
    first = at("2026-12-01 12:00")
    found = [first + timedelta(days=number) for number in range(93)]
    assert [f"{now:%Y-%m-%d}" for now in found if muted_by([mute_time(span)], now)] == days


def test_the_first_that_holds_is_named() -> None:
    weekend = mute_time({"weekdays": ["sat", "sun"]}, name="weekend")
    nights = mute_time({"hours": ["20:00-07:00"]})
    saturday_night = at("2026-11-21 22:00")
    assert muted_by([nights, weekend], saturday_night) == "nights"
    assert muted_by([weekend, nights], saturday_night) == "weekend"
    assert muted_by([weekend, nights], at("2026-11-20 12:00")) is None
    assert muted_by([], saturday_night) is None


def test_the_same_moment_is_muted_in_whatever_zone_it_is_told() -> None:
    nights = mute_time({"hours": ["20:00-07:00"]}, zone="Europe/Berlin")
    moment = at("2026-11-16 19:30")
    assert muted_by([nights], moment) == "nights"
    assert muted_by([nights], moment.astimezone(timezone(timedelta(hours=-9)))) == "nights"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a time with its zone"):
        muted_by([mute_time({"weekdays": ["sat"]})], datetime(2026, 11, 21))


# The reference walks through every minute of every day, as one would with a finger on a calendar.


def every_date(text: str) -> Iterator[str]:
    """The days MM-DD of a range, found by going from one to the next through a leap year, round and round."""
    first, _, last = text.partition("..")
    day = date(2024, int(first[:2]), int(first[3:]))
    while True:
        yield f"{day:%m-%d}"
        if f"{day:%m-%d}" == (last or first):
            return
        day = (day + timedelta(days=1)).replace(year=2024)


def on_day(span: MuteSpanSettings, day: date) -> bool:
    next_month = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    days = [day.replace(day=1) + timedelta(days=number) for number in range(31)]
    days = [one for one in days if one < next_month]
    listed = [days[n - 1] if n > 0 else days[n] for n in span.days_of_month if abs(n) <= len(days)]
    return (
        (not span.weekdays or WEEKDAYS[day.weekday()] in span.weekdays)
        and (not span.days_of_month or day in listed)
        and (not span.dates or any(f"{day:%m-%d}" in every_date(text) for text in span.dates))
    )


def wall_minutes(span: MuteSpanSettings, days: list[date]) -> set[str]:
    """What a clock on the wall shows, YYYY-MM-DD HH:MM, when it is muted by hours that begin on one of the days."""
    shown = set()
    for day in days:
        if on_day(span, day):
            for text in span.hours or ("00:00-24:00",):
                begin, end = text.split("-")
                clock = datetime.fromisoformat(f"{day} {begin}")
                while True:
                    shown.add(f"{clock:%Y-%m-%d %H:%M}")
                    clock += timedelta(minutes=1)
                    if f"{clock:%H:%M}" == end.replace("24:00", "00:00"):
                        break
    return shown


CLOCK = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 59]))
HOURS = st.builds("{}-{}".format, CLOCK, st.one_of(CLOCK, st.just("24:00"))).filter(
    lambda text: text[:5] != text[6:]
)
DAY = st.dates(date(2024, 1, 1), date(2024, 12, 31)).map(lambda day: f"{day:%m-%d}")
DATES = st.one_of(DAY, st.builds("{}..{}".format, DAY, DAY))
SPANS = st.builds(
    MuteSpanSettings,
    weekdays=st.lists(st.sampled_from(WEEKDAYS), max_size=4).map(tuple),
    days_of_month=st.lists(st.integers(1, 31) | st.integers(-31, -1), max_size=8).map(tuple),
    dates=st.lists(DATES, max_size=3).map(tuple),
    hours=st.lists(HOURS, min_size=1, max_size=3).map(tuple),
)
# Days with nothing special, days around which clocks are set, a leap day, New Year.
STARTS = st.one_of(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    st.sampled_from(
        [
            *(datetime(2026, 3, 28), datetime(2026, 10, 24), datetime(2026, 3, 7), datetime(2026, 11, 1)),
            *(datetime(2026, 4, 4), datetime(2026, 10, 3), datetime(2028, 2, 28), datetime(2026, 12, 31)),
            *(datetime(2026, 4, 23), datetime(2026, 10, 29)),
        ]
    ),
)


@given(STARTS, st.sampled_from(ZONES), st.lists(SPANS, min_size=1, max_size=2))
@settings(max_examples=60, deadline=None)
def test_it_holds_when_the_clock_on_the_wall_shows_a_muted_minute(
    start: datetime, zone: str, spans: list[MuteSpanSettings]
) -> None:
    mute = build_mute_time(MuteTimeSettings(name="some", zone=zone, times=tuple(spans)))
    start = start.replace(second=30, microsecond=0, tzinfo=UTC)
    days = [start.date() + timedelta(days=number) for number in range(-3, 4)]
    shown = set().union(*(wall_minutes(span, days) for span in spans))
    for minute in range(0, 2 * 1440, 7):
        now = start + timedelta(minutes=minute)
        local = now.astimezone(ZoneInfo(zone))
        assert (muted_by([mute], now) is not None) is (f"{local:%Y-%m-%d %H:%M}" in shown), local

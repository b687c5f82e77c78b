"""Silences: what may be kept, when one holds back, and what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.alerts.people import EntryError
from layerwatch.alerts.silences import (
    LONGEST_SILENCE,
    NewSilence,
    Silence,
    SilenceState,
    exactly,
    new_silence,
    shown,
    silenced_by,
)
from layerwatch.config.matchers import Matcher, Operator, parse_matcher, parsed

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FRAUD = {"registry": ("prod",), "model": ("fraud",), "severity": ("critical",), "rule": ("nan", "dead_rows")}


def made(*matchers: str, **other: Any) -> NewSilence:
    values = {"author": "ann", "reason": "retraining", "now": NOW, "ends_at": NOW + HOUR, **other}
    return new_silence(parsed(matchers or ('model="fraud"',)), **values)


def silence(*matchers: str, number: int = 1, **other: Any) -> Silence:
    values = {"starts_at": NOW, "ends_at": NOW + HOUR, "created_at": NOW, **other}
    return Silence(number, parsed(matchers or ('model="fraud"',)), "ann", "retraining", **values)


def refused(field: str, *matchers: str, **other: Any) -> str:
    with pytest.raises(EntryError) as caught:
        made(*matchers, **other)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.detail}"
    return caught.value.detail


def test_a_silence_needs_a_matcher() -> None:
    with pytest.raises(EntryError) as caught:
        new_silence((), "ann", "why", NOW, NOW + HOUR)
    assert caught.value.field == "matchers"


@pytest.mark.parametrize(
    "matchers", [('model=""',), ('model=~".*"',), ('model!="fraud"', 'ref!~"dev-.*"'), ('owner=~"(a|)"',)]
)
def test_a_silence_that_an_alert_without_labels_fulfils_is_refused(matchers: tuple[str, ...]) -> None:
    assert "must not match the empty text" in refused("matchers", *matchers)


def test_one_matcher_that_needs_a_value_is_enough() -> None:
    assert made('model=~".+"', 'ref!="dev"').matchers == parsed(('model=~".+"', 'ref!="dev"'))


def test_more_matchers_than_a_person_would_write_are_refused() -> None:
    assert made(*['model="fraud"'] * 50)
    refused("matchers", *['model="fraud"'] * 51)


@pytest.mark.parametrize("field", ["author", "reason"])
@pytest.mark.parametrize("text", ["", "  \n", "\u200b", "\u202e \u202c"])
def test_author_and_reason_must_be_seen(field: str, text: str) -> None:
    assert refused(field, **{field: text}) == "must not be empty"


@pytest.mark.parametrize(("field", "longest"), [("author", 100), ("reason", 1000)])
def test_author_and_reason_have_a_greatest_length(field: str, longest: int) -> None:
    assert getattr(made(**{field: " " + "x" * longest}), field) == "x" * longest
    assert refused(field, **{field: "x" * (longest + 1)}) == f"must have at most {longest} characters"


def test_a_silence_begins_now_at_the_earliest() -> None:
    assert made().starts_at == NOW
    assert made(starts_at=NOW - 5 * HOUR).starts_at == NOW
    assert made(starts_at=NOW + HOUR / 2).starts_at == NOW + HOUR / 2


def test_a_silence_ends_after_its_start_and_within_90_days() -> None:
    assert refused("ends_at", ends_at=NOW) == "is over already"
    assert refused("ends_at", ends_at=NOW - HOUR, starts_at=NOW - 2 * HOUR) == "is over already"
    assert refused("ends_at", starts_at=NOW + HOUR, ends_at=NOW + HOUR) == "must be after the start"
    assert made(ends_at=NOW + LONGEST_SILENCE).ends_at == NOW + timedelta(days=90)
    too_far = NOW + LONGEST_SILENCE + timedelta(microseconds=1)
    assert refused("ends_at", ends_at=too_far) == "must be at most 90 days ahead"
    # A late start makes no room for a later end.
    refused("ends_at", starts_at=NOW + timedelta(days=89), ends_at=too_far)


def test_times_without_a_time_zone_are_refused() -> None:
    assert "needs a time zone" in refused("ends_at", ends_at=datetime(2026, 12, 1))
    assert "needs a time zone" in refused("starts_at", starts_at=datetime(2026, 11, 22))


def test_times_of_another_zone_are_the_same_moments() -> None:
    east = timezone(timedelta(hours=9))
    assert made(ends_at=(NOW + HOUR).astimezone(east)).ends_at == NOW + HOUR
    refused("ends_at", ends_at=NOW.astimezone(east))


def test_a_silence_waits_until_its_start_and_is_over_at_its_end() -> None:
    one = silence(starts_at=NOW + HOUR, ends_at=NOW + 2 * HOUR)
    tick = timedelta(microseconds=1)
    assert one.state(NOW + HOUR - tick) is SilenceState.PENDING
    assert one.state(NOW + HOUR) is SilenceState.ACTIVE
    assert one.state(NOW + 2 * HOUR - tick) is SilenceState.ACTIVE
    assert one.state(NOW + 2 * HOUR) is SilenceState.EXPIRED


@given(st.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=400)))
def test_what_somebody_ended_is_over_at_every_time(moved: timedelta) -> None:
    one = silence(expired_at=NOW + HOUR / 2, expired_by="bob")
    assert one.state(NOW + moved) is SilenceState.EXPIRED
    assert silenced_by(FRAUD, [one], NOW + moved) is None


@given(
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=80)),
    st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=10)),
    st.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=400)),
)
def test_under_no_clock_does_a_silence_hold_back_outside_its_borders(
    wait: timedelta, length: timedelta, moved: timedelta
) -> None:
    new = made(starts_at=NOW + wait, ends_at=NOW + wait + length)
    kept = silence(starts_at=new.starts_at, ends_at=new.ends_at)
    clock = NOW + moved
    held = silenced_by(FRAUD, [kept], clock) is not None
    assert held == (NOW <= NOW + wait <= clock < NOW + wait + length)


def test_a_silence_holds_back_what_all_its_matchers_match() -> None:
    one = silence('model="fraud"', 'severity="critical"')
    assert silenced_by(FRAUD, [one], NOW) is one
    assert silenced_by({**FRAUD, "severity": ("warning",)}, [one], NOW) is None
    assert silenced_by({**FRAUD, "model": ("fraud2",)}, [one], NOW) is None
    assert silenced_by({}, [one], NOW) is None


def test_a_rule_is_silenced_where_it_is_one_of_several() -> None:
    assert silenced_by(FRAUD, [silence('rule="nan"')], NOW) is not None
    assert silenced_by(FRAUD, [silence('rule="norm_drift"')], NOW) is None


def test_of_several_silences_the_one_that_ends_last_is_named() -> None:
    long = silence(number=2, ends_at=NOW + 3 * HOUR)
    others = [
        silence(number=1),
        long,
        silence(number=3, ends_at=NOW + 2 * HOUR),
        silence(number=4, starts_at=NOW + HOUR, ends_at=NOW + 9 * HOUR),
        silence(number=5, ends_at=NOW + 9 * HOUR, expired_at=NOW),
        silence('model="other"', number=6, ends_at=NOW + 9 * HOUR),
    ]
    assert silenced_by(FRAUD, others, NOW) is long
    assert silenced_by(FRAUD, others[::-1], NOW) is long


def test_characters_that_nobody_sees_are_shown_in_a_matcher() -> None:
    name = 'fra\u202eud\u200b\x1b[31m\n"\u00e9\\\U000e0041'
    matcher = exactly("model", name)
    assert str(matcher) == r'model=~"fra\\u202eud\\u200b\\u001b\\[31m\\u000a\"é\\\\\\U000e0041"'
    assert shown(Matcher("model", Operator.NOT_EQUAL, name)).startswith(
        'model!="fra\\u202eud\\u200b\\u001b[31m\\n'
    )
    assert str(exactly("model", 'fraud "2"')) == 'model="fraud \\"2\\""'


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40), st.text(max_size=40))
def test_a_matcher_of_one_value_is_printable_read_back_and_matches_nothing_else(
    value: str, other: str
) -> None:
    matcher = exactly("model", value)
    assert str(matcher).isprintable()
    assert shown(matcher) == str(matcher)
    read_back = parse_matcher(str(matcher))
    assert read_back == matcher
    assert read_back.matches({"model": (value,)})
    assert read_back.matches({"model": (other,)}) == (other == value)

"""When an event is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import NOW, entry
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.retry import LONGEST_RETRY_AFTER, Decision, decide, next_delay, parse_retry_after

DAY = timedelta(days=1)


def failure(*, retryable: bool = True, retry_after: timedelta | None = None) -> DeliveryError:
    return DeliveryError(
        DeliveryReason.SERVER_ERROR, "it broke", retryable=retryable, retry_after=retry_after
    )


@pytest.mark.parametrize(("attempt", "full"), [(1, 1), (2, 2), (5, 16), (12, 2048), (13, 3600), (9999, 3600)])
def test_the_wait_doubles_from_a_second_to_an_hour(attempt: int, full: int) -> None:
    delays = [next_delay(f"evt_{number}", attempt, None).total_seconds() for number in range(200)]

    assert all(full / 2 <= delay <= full for delay in delays)
    # 200 draws from the upper half come near both ends.
    assert min(delays) < 0.6 * full
    assert max(delays) > 0.9 * full


@settings(deadline=None)
@given(st.text(), st.integers(1, 50))
def test_the_wait_is_the_same_after_a_restart(event_id: str, attempt: int) -> None:
    assert next_delay(event_id, attempt, None) == next_delay(event_id, attempt, None)


def test_retry_after_lengthens_the_wait_up_to_a_day_and_never_shortens_it() -> None:
    own = next_delay("evt_1", 10, None)

    assert next_delay("evt_1", 10, timedelta(hours=2)) == timedelta(hours=2)
    assert next_delay("evt_1", 10, timedelta(days=400)) == LONGEST_RETRY_AFTER
    assert next_delay("evt_1", 10, timedelta(0)) == own


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        next_delay("evt_1", 0, None)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("120", timedelta(seconds=120)),
        (" 0 ", timedelta(0)),
        ("9" * 5000, DAY),
        ("Sun, 01 Mar 2026 12:02:00 GMT", timedelta(minutes=2)),
        ("Sun, 01 Mar 2026 11:00:00 GMT", timedelta(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
        ("Sun, 01 Mar 2026 12:02:00", timedelta(minutes=2)),
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("Sun, 99 Mar 2026 12:02:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, wait: timedelta | None) -> None:
    assert parse_retry_after(value, NOW) == wait


@settings(deadline=None)
@given(st.text())
def test_any_text_as_retry_after_is_bounded(value: str) -> None:
    wait = parse_retry_after(value, NOW)

    assert wait is None or timedelta(0) <= wait <= DAY


def test_a_failure_that_cannot_mend_itself_is_given_up_at_once() -> None:
    assert decide(entry(), failure(retryable=False), DAY, NOW) == Decision(
        None, DeliveryReason.SERVER_ERROR, "it broke"
    )


def test_any_other_failure_is_tried_again_after_the_wait() -> None:
    decision = decide(entry(attempts=3), failure(), DAY, NOW)

    assert decision.next_attempt_at == NOW + next_delay(entry().event_id, 4, None)
    assert decision.reason is DeliveryReason.SERVER_ERROR


def test_what_would_be_too_old_at_the_next_attempt_is_given_up_now_and_says_why() -> None:
    late = NOW + DAY

    decision = decide(entry(attempts=29), failure(), DAY, late)

    assert decision.next_attempt_at is None
    assert decision.reason is DeliveryReason.EXPIRED
    assert "30 attempts" in decision.detail
    assert "server_error: it broke" in decision.detail


def test_a_retry_after_beyond_the_age_limit_gives_up() -> None:
    decision = decide(entry(), failure(retry_after=timedelta(hours=2)), timedelta(hours=1), NOW)

    assert decision.reason is DeliveryReason.EXPIRED

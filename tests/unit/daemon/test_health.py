"""Heartbeats on a clock that is moved by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from layerwatch.daemon.health import Heartbeats
from layerwatch_testing.rigs import Clock

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))


def test_without_loops_nothing_is_late(clock: Clock) -> None:
    assert Heartbeats(clock).late() == []


def test_a_loop_is_late_once_it_was_silent_for_longer_than_its_limit(clock: Clock) -> None:
    heartbeats = Heartbeats(clock)
    heartbeats.expect("scan:0", MINUTE)
    clock.advance(60)
    assert heartbeats.late() == []
    clock.advance(1)
    (late,) = heartbeats.late()
    assert (late.loop, late.silent_for, late.limit) == ("scan:0", timedelta(seconds=61), MINUTE)
    assert str(late) == "loop scan:0 has been silent for 61 s (limit 60 s)"


def test_a_beat_starts_the_wait_anew(clock: Clock) -> None:
    heartbeats = Heartbeats(clock)
    heartbeats.expect("scan:0", MINUTE)
    clock.advance(61)
    heartbeats.beat("scan:0")
    assert heartbeats.late() == []
    clock.advance(61)
    assert len(heartbeats.late()) == 1


def test_loops_are_late_each_for_itself_and_told_by_name(clock: Clock) -> None:
    heartbeats = Heartbeats(clock)
    for loop in ("watch:b", "dispatch", "watch:a"):
        heartbeats.expect(loop, MINUTE)
    clock.advance(61)
    heartbeats.beat("dispatch")
    assert [late.loop for late in heartbeats.late()] == ["watch:a", "watch:b"]


def test_a_loop_that_was_ended_on_purpose_is_not_late(clock: Clock) -> None:
    heartbeats = Heartbeats(clock)
    heartbeats.expect("watch:a", MINUTE)
    clock.advance(61)
    heartbeats.forget("watch:a")
    heartbeats.forget("watch:a")
    assert heartbeats.late() == []


def test_a_beat_of_a_loop_that_nobody_expects_is_ignored(clock: Clock) -> None:
    heartbeats = Heartbeats(clock)
    heartbeats.beat("watch:a")
    clock.advance(3600)
    assert heartbeats.late() == []


def test_a_new_limit_replaces_the_old_one(clock: Clock) -> None:
    heartbeats = Heartbeats(clock)
    heartbeats.expect("watch:a", MINUTE)
    heartbeats.expect("watch:a", 10 * MINUTE)
    clock.advance(300)
    assert heartbeats.late() == []

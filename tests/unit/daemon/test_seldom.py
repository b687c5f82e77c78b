"""What is told again only after a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from layerwatch.daemon.seldom import Seldom

NOW = datetime(2025, 3, 1, tzinfo=UTC)
PAUSE = timedelta(minutes=10)


def test_the_same_is_news_again_after_the_pause_and_other_things_at_once() -> None:
    seldom = Seldom(PAUSE)

    assert seldom.is_news("a", NOW)
    assert not seldom.is_news("a", NOW + PAUSE - timedelta(seconds=1))
    assert seldom.is_news("b", NOW)
    assert seldom.is_news("a", NOW + PAUSE)
    assert not seldom.is_news("a", NOW + PAUSE)


def test_however_much_is_told_little_is_remembered() -> None:
    seldom = Seldom(PAUSE, limit=3)

    assert all(seldom.is_news(str(number), NOW) for number in range(100))
    assert not seldom.is_news("99", NOW)

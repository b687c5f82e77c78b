"""Looking again and again."""

from __future__ import annotations

import socket

import pytest

from hookserver import Answer, HookServer
from layerwatch.daemon.following.asking import Daemon
from layerwatch.daemon.following.loop import INTERVAL, LONGEST_WAIT, follow
from layerwatch.daemon.following.seen import Look


class Enough(BaseException):
    """Ends the loop of a test."""


class Told:
    """Keeps what was shown."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self.lost_for: list[float] = []

    def found(self, look: Look) -> None:
        self.looks.append(look)

    def lost(self, why: str, wait: float) -> None:
        assert why
        self.lost_for.append(wait)


def test_a_daemon_that_is_away_is_asked_less_and_less_often_and_as_before_when_it_is_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    told, waits = Told(), list[float]()

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 8:
            raise Enough

    with pytest.raises(Enough):
        follow(Daemon(f"http://127.0.0.1:{port}"), told, pause)

    assert waits == told.lost_for == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert waits[-1] == LONGEST_WAIT
    assert told.looks == []


def test_waiting_begins_anew_after_every_answer() -> None:
    told, waits = Told(), list[float]()
    with HookServer() as server:
        answers = [Answer(503), Answer(503), Answer(200, body=b"[]"), Answer(503), Answer(200, body=b"[]")]
        server.answer = answers[0]

        def pause(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == len(answers):
                raise Enough
            server.answer = answers[len(waits)]

        with pytest.raises(Enough):
            follow(Daemon(server.url), told, pause)

    assert waits == [INTERVAL, 2 * INTERVAL, INTERVAL, INTERVAL, INTERVAL]
    assert len(told.looks) == 2
    assert told.lost_for == [INTERVAL, 2 * INTERVAL, INTERVAL]

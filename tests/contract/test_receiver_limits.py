"""Answers that do not end, or are not what they should be: bounded in time and size for every receiver, never shown."""

from __future__ import annotations

import gzip
import logging
import socket
import time
from collections.abc import Callable

import pytest

from hookserver import raw_server
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch_testing.sending import GUARDED, KINDS, LOOPBACK, needs, sender

SENTENCE = b"B0DY of the answer "
Talk = Callable[[socket.socket], None]


def request_of(connection: socket.socket) -> None:
    """Read one request whole, so that closing does not reset the connection."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += connection.recv(65_536)
    head, _, body = text.partition(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(length[0].split(b":")[1]) - len(body) if length else 0
    while missing > 0:
        missing -= len(connection.recv(65_536))


def answering(head: bytes, piece: bytes = b"", pause: float = 0) -> Talk:
    """Answers ``head``, then ``piece`` again and again, or nothing more without ever closing."""

    def talk(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(head)
        while piece:
            connection.sendall(piece)
            time.sleep(pause)
        connection.recv(1)  # Until the client hangs up.

    return talk


OK = b"HTTP/1.1 200 OK\r\n"
FAILED = b"HTTP/1.1 500 B0DY\r\n"
BOMB = gzip.compress(b"B0DY" * 25_000_000)
ENDLESS = {
    "no answer": (b"", b"", 0.0),
    "status line by the byte": (b"", b"H", 0.05),
    "headers by the byte": (OK, b"X", 0.05),
    "a header without end": (OK + b"X: ", SENTENCE * 1000, 0.0),
    "headers without end": (OK, b"X: " + SENTENCE + b"\r\n", 0.0),
    "provisional answers without end": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
}
BODIES = {
    "stops in the middle": (b"Content-Length: 1000\r\n\r\n" + SENTENCE, b"", 0.0),
    "has no end": (b"\r\n", SENTENCE * 1000, 0.0),
    "comes by the byte": (b"Content-Length: 1000000\r\n\r\n", b"B", 0.05),
    "is a chunk without end": (b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", SENTENCE * 1000, 0.0),
    "unpacks to a thousand times its size": (
        b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB,
        b"",
        0.0,
    ),
}
MISSHAPEN = {
    "another protocol": b"SSH-2.0-B0DY\r\n",
    "no number": b"HTTP/1.1 B0DY OK\r\n\r\n",
    "too many headers": OK + b"X: B0DY\r\n" * 1000 + b"\r\n",
    "a header that is too long": OK + b"X: " + b"B0DY" * 25_000 + b"\r\n\r\n",
    "nothing": b"",
}


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def outcome(kind: str, talk: Talk, timeout: str, caplog: pytest.LogCaptureFixture) -> DeliveryError | None:
    """What becomes of one attempt; None when it is delivered. Nothing of the answer may be told anywhere."""
    with raw_server(talk) as port:
        send = sender(kind, f"http://127.0.0.1:{port}", allow_private_cidrs=LOOPBACK, timeout=timeout)
        failure = None
        try:
            send()
        except DeliveryError as error:
            failure = error
    told = f"{failure!r} {failure} {caplog.text}"
    assert "B0DY" not in told
    assert "T0KEN" not in told
    return failure


@pytest.mark.parametrize("kind", GUARDED)
class TestEveryKindButApprise:
    @pytest.mark.parametrize("answer", ENDLESS)
    def test_an_answer_that_does_not_come_to_its_body_is_cut_off(
        self, kind: str, answer: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        failure = outcome(kind, answering(*ENDLESS[answer]), "1s", caplog)

        assert failure is not None
        assert failure.retryable
        # What fills a limit of size before that of time is no HTTP.
        assert failure.reason in {DeliveryReason.TIMEOUT, DeliveryReason.INVALID_RESPONSE}

    @pytest.mark.parametrize("body", BODIES)
    def test_a_body_is_not_read_whatever_the_answer(
        self, kind: str, body: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        head, piece, pause = BODIES[body]

        # Reading on would end in a failure: the limit is longer than a test may take.
        assert outcome(kind, answering(OK + head, piece, pause), "1h", caplog) is None
        failure = outcome(kind, answering(FAILED + head, piece, pause), "1h", caplog)
        assert failure is not None
        assert failure.reason is DeliveryReason.SERVER_ERROR


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", MISSHAPEN)
def test_an_answer_that_is_not_http_is_a_failure_to_try_again(
    kind: str, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    needs(kind)

    def talk(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(MISSHAPEN[answer])

    failure = outcome(kind, talk, "30s", caplog)

    assert failure is not None
    assert failure.retryable
    # A connection that is closed in the middle of a header cannot always be told from a closed one.
    assert failure.reason in {DeliveryReason.INVALID_RESPONSE, DeliveryReason.CONNECTION}


class TestApprise:
    """It reads answers in full, in a process of its own: that one ends when its time or its memory does."""

    @pytest.mark.parametrize("body", BODIES)
    def test_a_body_without_end_ends_with_the_attempt(
        self, body: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        needs("apprise")
        head, piece, pause = BODIES[body]
        failure = outcome("apprise", answering(OK + head, piece, pause), "2s", caplog)

        if body == "unpacks to a thousand times its size":  # 100 MB do no harm.
            assert failure is None
        else:
            assert failure is not None
            assert failure.retryable

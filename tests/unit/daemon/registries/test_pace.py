"""How long an answer and the bytes of a file may take: by a clock of the test's own, and over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import repeat

import pytest
import requests

from layerwatch.daemon.registries import pace
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.huggingface.connection import HubConnection
from layerwatch.daemon.registries.pace import Deadline, paced
from layerwatch.daemon.registries.sessions import BoundedSession, arriving, cutting

TIMEOUT = timedelta(seconds=5)
"""An answer may take 20 s then."""


class Clock:
    """Goes on by what the blocks take."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def blocks(self, *blocks: tuple[float, bytes]) -> Iterator[bytes]:
        """Blocks, each after so many seconds."""
        for seconds, block in blocks:
            self.now += seconds
            yield block


def refusal(call: Callable[[], object]) -> RegistryUnavailable:
    with pytest.raises(RegistryUnavailable) as caught:
        call()
    assert caught.value.reason is RegistryReason.UNREACHABLE
    return caught.value


class TestAnAnswer:
    def test_one_in_time_comes_as_it_is(self) -> None:
        clock = Clock()
        blocks = clock.blocks((9, b"a"), (10, b"b"))
        assert list(Deadline("GET x", TIMEOUT, clock).kept(blocks)) == [b"a", b"b"]

    def test_one_that_takes_four_times_the_timeout_is_given_up(self) -> None:
        clock = Clock()
        deadline = Deadline("GET x", TIMEOUT, clock)
        error = refusal(lambda: list(deadline.kept(clock.blocks(*repeat((0.5, b"a"), 10**6)))))
        assert error.detail.startswith("GET x: ")
        assert clock.now == 120.0

    def test_what_it_waited_before_its_first_byte_counts(self) -> None:
        clock = Clock()
        deadline = Deadline("GET x", TIMEOUT, clock)
        clock.now += 19
        refusal(lambda: list(deadline.kept(clock.blocks((1, b"a")))))

    def test_ten_seconds_are_granted_however_short_the_timeout_is(self) -> None:
        clock = Clock()
        deadline = Deadline("GET x", timedelta(milliseconds=1), clock)
        assert list(deadline.kept(clock.blocks((9.9, b"a")))) == [b"a"]


class TestAFile:
    def test_a_kibibyte_in_a_second_is_enough(self) -> None:
        clock = Clock()
        blocks = [(1.0, bytes(1024))] * 100
        assert b"".join(paced(clock.blocks(*blocks), "x", TIMEOUT, clock=clock)) == bytes(102400)

    def test_less_than_that_is_given_up_after_four_timeouts(self) -> None:
        clock = Clock()
        came: list[bytes] = []
        blocks = clock.blocks(*repeat((0.5, b"a"), 10**6))
        refusal(lambda: came.extend(paced(blocks, "x", TIMEOUT, clock=clock)))
        assert clock.now == 120.0

    def test_what_came_early_does_not_make_up_for_a_drip_later(self) -> None:
        clock = Clock()
        blocks = clock.blocks((20.0, bytes(10**9)), *repeat((0.5, b"a"), 10**6))
        refusal(lambda: list(paced(blocks, "x", TIMEOUT, clock=clock)))
        assert clock.now == 140.0

    def test_time_that_the_reader_takes_for_itself_does_not_count(self) -> None:
        clock = Clock()
        for _ in paced(clock.blocks(*repeat((0.1, bytes(200)), 300)), "x", TIMEOUT, clock=clock):
            clock.now += 60


@contextmanager
def server(head: bytes, drip: bytes, every: float) -> Iterator[str]:
    """Answers one request with a head, and then with the same bytes again and again."""
    over = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head)
                while not over.wait(every):
                    connection.sendall(drip)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        # It may wait for a request that was never sent.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()


SHORT = timedelta(seconds=0.2)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SHORTEST", timedelta(seconds=0.5))


@pytest.mark.usefixtures("hurry")
class TestOverSockets:
    def test_headers_that_never_end_are_given_up(self) -> None:
        with (
            server(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05) as url,
            BoundedSession(1) as session,
            pytest.raises(requests.Timeout),
        ):
            session.get(url, timeout=SHORT.total_seconds(), stream=True)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda hub, url: hub.ask("x", lambda api: api.model_info("a/b")),
            lambda hub, url: list(hub.fetch("x", f"{url}/file", 0, 10)),
        ],
        ids=["a question", "a file"],
    )
    def test_nor_does_a_hub_hold_anybody_up_by_them(
        self, ask: Callable[[HubConnection, str], object]
    ) -> None:
        with server(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05) as url:
            refusal(lambda: ask(HubConnection(url, None, None, SHORT), url))

    @pytest.mark.parametrize("head", [CHUNKED + b"1;", CHUNKED], ids=["an extension", "a length"])
    def test_bytes_that_are_no_part_of_the_body_do_not_hold_an_answer_up(self, head: bytes) -> None:
        with server(head, b"0", 0.05) as url, BoundedSession(1) as session:
            response = session.get(url, timeout=SHORT.total_seconds(), stream=True)
            deadline = Deadline("x", SHORT)
            refusal(lambda: list(deadline.kept(arriving(response), cutting(response))))

    def test_nor_do_they_hold_a_file_up(self) -> None:
        with server(CHUNKED + b"1;", b"x", 0.05) as url, BoundedSession(1) as session:
            response = session.get(url, timeout=SHORT.total_seconds(), stream=True)
            refusal(lambda: list(paced(arriving(response), "x", SHORT, cutting(response))))

    @pytest.mark.parametrize("followed", [False, True])
    def test_the_body_of_a_redirect_is_not_read(self, followed: bool) -> None:
        with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"", 9) as target:
            head = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode()
            with server(head, b"x", 0.05) as url, BoundedSession(1) as session:
                response = session.get(url, timeout=5, stream=True, allow_redirects=followed)
                assert response.status_code == (200 if followed else 302)
                assert b"".join(arriving(response)) == (b"ok" if followed else b"")
                response.close()

    def test_each_piece_of_a_body_is_handed_on_when_it_comes(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nfirst"
        with server(head, b"", 9) as url, BoundedSession(1) as session:
            response = session.get(url, timeout=5, stream=True)
            assert next(arriving(response)) == b"first"
            response.close()

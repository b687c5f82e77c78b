"""The receiver that misbehaves: what it does is what a test says that it does."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.http import post
from layerwatch_testing.servers.misbehaving import (
    REDIRECTED_TO,
    MisbehavingProcess,
    MisbehavingServer,
    Mode,
    read_log,
)

LOCAL = AddressPolicy.from_cidrs(["127.0.0.0/8"])
BODY = b'{"data": {"event_id": "e1"}}'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "taken.jsonl"


@pytest.fixture
def server(log: Path) -> Iterator[MisbehavingServer]:
    with MisbehavingServer(log) as running:
        yield running


def outcome(url: str, ca_file: Path | None = None, timeout: float = 20) -> DeliveryError | None:
    """What the daemon's own client makes of it."""
    bundle = None if ca_file is None else str(ca_file)
    limit = timedelta(seconds=timeout)
    try:
        post(f"{url}/x", BODY, {}, policy=LOCAL, timeout=limit, now=datetime.now(UTC), ca_bundle=bundle)
    except DeliveryError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("mode", "reason", "taken"),
    [
        (Mode.OK, None, True),
        (Mode.SLOW, None, True),
        (Mode.HANG, None, True),
        (Mode.LOSE, DeliveryReason.CONNECTION, True),
        (Mode.REFUSE, DeliveryReason.CONNECTION, False),
        (Mode.TIMEOUT, DeliveryReason.TIMEOUT, False),
        (Mode.ERROR, DeliveryReason.SERVER_ERROR, False),
        (Mode.BUSY, DeliveryReason.RATE_LIMITED, False),
        (Mode.GONE, DeliveryReason.GONE, False),
        (Mode.REDIRECT, DeliveryReason.REDIRECTED, False),
        (Mode.RESET, DeliveryReason.CONNECTION, False),
        (Mode.GARBAGE, DeliveryReason.INVALID_RESPONSE, False),
    ],
)
def test_each_mode_is_what_it_says_and_can_be_left_again(
    server: MisbehavingServer, log: Path, mode: Mode, reason: DeliveryReason | None, taken: bool
) -> None:
    server.behave(mode, milliseconds=1, retry_after=7)
    error = outcome(server.url, timeout=0.5 if mode is Mode.TIMEOUT else 20)

    assert (None if error is None else error.reason) is reason
    assert [one.mode for one in read_log(log)] == ([mode] if taken else [])
    assert server.seen["followed"] == 0
    if mode is Mode.BUSY:
        assert error is not None
        assert error.retry_after == timedelta(seconds=7)

    server.behave(Mode.OK)
    assert outcome(server.url) is None


def test_a_bad_certificate_is_one_that_nobody_can_trust(log: Path) -> None:
    with MisbehavingServer(log, tls=True) as server:
        assert outcome(server.url, server.ca_file) is None
        server.behave(Mode.BAD_CERTIFICATE)
        error = outcome(server.url, server.ca_file)
        assert error is not None
        assert error.reason is DeliveryReason.TLS
        server.behave(Mode.OK)
        assert outcome(server.url, server.ca_file) is None

    assert len(read_log(log)) == 2


def test_a_certificate_needs_tls(server: MisbehavingServer) -> None:
    with pytest.raises(ValueError, match="needs TLS"):
        server.behave(Mode.BAD_CERTIFICATE)


@pytest.mark.parametrize(
    ("body", "event_id"),
    [
        (BODY, "e1"),
        (b'[{"annotations": {"event_id": "e2"}}]', "e2"),
        (b'{"payload": {"custom_details": {"Event": "e3"}}, "dedup_key": "d"}', "e3"),
        (b'{"dedup_key": "d"}', "d"),
        (b"text \xff", None),
        (b"", None),
    ],
)
def test_the_record_holds_event_digest_and_body(
    server: MisbehavingServer, log: Path, body: bytes, event_id: str | None
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/a?b=c", body)
    connection.getresponse().read()
    connection.request("POST", "/", body, {"webhook-id": "from the header"})
    connection.getresponse().read()
    connection.close()

    first, second = read_log(log)
    assert (first.event_id, first.path) == (event_id, "/a?b=c")
    assert first.sha256 == hashlib.sha256(body).hexdigest()
    assert first.body == body.decode("utf-8", "replace")
    assert first.at <= second.at <= datetime.now(UTC)
    assert second.event_id == "from the header"


def test_a_connection_is_kept_until_the_mode_changes(server: MisbehavingServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.connect()
    kept = connection.sock
    for _ in range(3):
        connection.request("POST", "/", BODY)
        assert connection.getresponse().read() == b""
    assert connection.sock is kept

    server.behave(Mode.ERROR)
    assert kept.recv(1) == b""
    connection.close()


def test_whoever_follows_the_redirect_is_counted(server: MisbehavingServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    server.behave(Mode.REDIRECT)
    connection.request("POST", "/", BODY)
    answer = connection.getresponse()
    answer.read()
    assert answer.headers["Location"] == server.url + REDIRECTED_TO
    connection.request("GET", REDIRECTED_TO)
    connection.getresponse().read()
    connection.close()

    assert server.seen == {"redirect": 1, "followed": 1}


def test_a_process_of_its_own_is_switched_from_outside_and_its_record_outlives_it(log: Path) -> None:
    with MisbehavingProcess(log) as server:
        assert outcome(server.url) is None
        server.behave(Mode.REFUSE)
        error = outcome(server.url)
        assert error is not None
        assert error.reason is DeliveryReason.CONNECTION
        server.behave("slow", milliseconds=1)
        assert outcome(server.url) is None
        assert server.seen() == {"ok": 1, "slow": 1}
    with MisbehavingProcess(log, port=server.port) as again:
        assert again.url == server.url
        assert outcome(again.url) is None

    assert [one.mode for one in read_log(log)] == [Mode.OK, Mode.SLOW, Mode.OK]
    assert {one.event_id for one in read_log(log)} == {"e1"}

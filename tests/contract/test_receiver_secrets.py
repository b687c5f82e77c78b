"""No secret of any receiver is seen anywhere, whatever goes wrong: one test for every kind and every class of failure."""

from __future__ import annotations

import logging
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from prometheus_client import CollectorRegistry, generate_latest

from hookserver import Answer, HookServer, raw_server
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.heartbeat import HeartbeatTelemetry
from layerwatch.alerts.telemetry import AlertTelemetry
from layerwatch.config.redaction import dump_redacted
from layerwatch.config.settings import Settings
from layerwatch_testing.sending import KINDS, LOOPBACK, SECRETS, built, needs, sender, settings_of, values_of

HIDDEN = (*SECRETS, "us3r", "pa55", "B0DY")
"""Tokens, keys, users, passwords, and whatever the other side says."""


def request_then(answer: bytes, wait: float = 0) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)
        time.sleep(wait)

    return talk


TALKS = {
    "closed": request_then(b""),
    "silent": request_then(b"", wait=5),
    "garbage": request_then(b"220 B0DY ESMTP\r\n"),
    "headers cut off": request_then(b"HTTP/1.1 200 OK\r\nB0DY", wait=5),
    "no tls": request_then(b"B0DY\r\n"),
}
STATUSES = {"redirect": 302, "refusal": 400, "forbidden": 403, "gone": 410, "busy": 429, "error": 500}
FAILURES = (*TALKS, *STATUSES, "away", "certificate", "address", "name")


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def place_of(failing: str, opened: ExitStack) -> str:
    """``SCHEME://HOST:PORT`` at which this goes wrong."""
    if failing in TALKS:
        port = opened.enter_context(raw_server(TALKS[failing]))
        return f"{'https' if failing == 'no tls' else 'http'}://127.0.0.1:{port}"
    if failing == "away":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return f"http://127.0.0.1:{listener.getsockname()[1]}"
    if failing == "name":
        return "http://hooks.invalid:80"  # RFC 6761: never resolves.
    context = None
    if failing == "certificate":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = opened.enter_context(HookServer(context))
    location = {"Location": f"{server.url}/B0DY?B0DY", "Retry-After": "B0DY"}
    server.answer = Answer(STATUSES.get(failing, 204), location, b"B0DY")
    return f"http://localhost:{server.port}" if failing == "address" else server.url


def everything_told(error: BaseException) -> str:
    """Text of an error and of every error it leads to, also through suppressed contexts."""
    told, seen = "", set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            told += f"{each!r} {each} {vars(each)} {''.join(traceback.format_exception(each))}"
            waiting += [each.__cause__, each.__context__]
    return told


def metrics_after(name: str, error: DeliveryError) -> str:
    registry = CollectorRegistry()
    alerts, heartbeats = AlertTelemetry(registry), HeartbeatTelemetry(registry)
    alerts.init_for([name])
    heartbeats.init_for(name)
    alerts.failed(name, error.reason)
    heartbeats.failed(name, error.reason)
    return generate_latest(registry).decode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failing", FAILURES)
def test_no_failure_shows_a_secret(
    kind: str, failing: str, opened: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    needs(kind)
    caplog.set_level(logging.DEBUG)
    url = place_of(failing, opened).replace("://", "://us3r:pa55@")
    allowed = () if failing == "address" else LOOPBACK
    timeout = "2s" if kind == "apprise" else "500ms"
    send = sender(kind, url, allow_private_cidrs=allowed, timeout=timeout)
    with pytest.raises(DeliveryError) as caught:
        send()

    told = everything_told(caught.value) + caplog.text + metrics_after("oncall", caught.value)
    for secret in HIDDEN:
        assert secret not in told


@pytest.mark.parametrize("kind", KINDS)
def test_no_delivery_shows_a_secret(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    needs(kind)
    caplog.set_level(logging.DEBUG)
    with HookServer() as server:
        sender(kind, server.url.replace("://", "://us3r:pa55@"), allow_private_cidrs=LOOPBACK)()

        assert len(server.received) == 1
    for secret in HIDDEN:
        assert secret not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_neither_settings_nor_receivers_show_a_secret_in_any_form(kind: str) -> None:
    needs(kind)
    url = "https://us3r:pa55@hooks.example"
    receiver = built(settings_of(kind, url))
    settings = Settings.model_validate(
        {
            "alerts": {
                "receivers": [values_of(kind, url), {"name": "log", "kind": "log"}],
                "route": {"receiver": "log"},
            }
        }
    )

    shown = [f"{thing!r} {thing}" for thing in (receiver, settings, settings.alerts.receivers)]
    shown += [dump_redacted(settings), settings.model_dump_json(), str(settings.model_dump())]
    for secret in HIDDEN:
        # The address of PagerDuty is no secret, only a user and password in it are, where it is printed.
        looked_at = shown[3:4] if kind == "pagerduty" and secret in ("us3r", "pa55") else shown
        for text in looked_at:
            assert secret not in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_that_cannot_be_read_is_named_by_its_place(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(kind)
    key = {"pagerduty": "routing_key", "alertmanager": "urls"}.get(kind, "url")
    url = "https://us3r:pa55@hooks.example"
    text = values_of(kind, url)[key]
    file = tmp_path / "secret"
    file.write_text(text[0] if isinstance(text, list) else str(text))
    place = {"file": str(file)}
    send = sender(kind, url, **{key: [place] if key == "urls" else place})
    file.write_bytes(b"T0KEN \xff")
    with pytest.raises(DeliveryError) as caught:
        send()

    assert (caught.value.reason, caught.value.retryable) == (DeliveryReason.BAD_SECRET, True)
    told = everything_told(caught.value)
    assert str(file) in told
    for secret in HIDDEN:
        assert secret not in told

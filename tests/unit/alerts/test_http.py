"""Outgoing requests against real servers: what is sent, what is refused, and what never shows."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which

import pytest

from hookserver import Answer, HookServer, raw_server
from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.http import (
    RETRIED_CLIENT_STATUSES,
    check_url,
    endpoint,
    extended,
    get,
    post,
    status_error,
)

LOCAL = AddressPolicy.from_cidrs(["127.0.0.0/8", "::1/128"])
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECRET_PATH = "/T0KEN/p4th?key=qu3ry"
LONG, SHORT = timedelta(seconds=30), timedelta(seconds=0.4)


@pytest.fixture
def server() -> Iterator[HookServer]:
    with HookServer() as running:
        yield running


def send(
    url: str,
    *,
    policy: AddressPolicy = LOCAL,
    timeout: timedelta = LONG,
    ca_bundle: str | None = None,
) -> None:
    post(
        url,
        b'{"a":1}',
        {"Content-Type": "application/json"},
        policy=policy,
        timeout=timeout,
        now=NOW,
        ca_bundle=ca_bundle,
    )


def failure(
    url: str,
    *,
    policy: AddressPolicy = LOCAL,
    timeout: timedelta = LONG,
    ca_bundle: str | None = None,
) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        send(url, policy=policy, timeout=timeout, ca_bundle=ca_bundle)
    return caught.value


class TestDelivery:
    def test_the_body_and_headers_arrive_as_given(self, server: HookServer) -> None:
        send(server.url + SECRET_PATH)

        (received,) = server.received
        assert (received.method, received.path, received.body) == ("POST", SECRET_PATH, b'{"a":1}')
        assert received.headers["content-type"] == "application/json"
        assert received.headers["content-length"] == "7"

    def test_a_get_has_no_body(self, server: HookServer) -> None:
        get(server.url + SECRET_PATH, {"X-Own": "1"}, policy=LOCAL, timeout=LONG, now=NOW)

        (received,) = server.received
        assert (received.method, received.path, received.body) == ("GET", SECRET_PATH, b"")
        assert received.headers["x-own"] == "1"
        assert not {"content-type", "content-length"} & received.headers.keys()

    def test_user_and_password_of_the_url_become_basic_authentication(self, server: HookServer) -> None:
        send(server.url.replace("http://", "http://user:pass@"))

        assert server.received[0].headers["authorization"] == "Basic dXNlcjpwYXNz"

    def test_proxies_of_the_environment_are_not_used(
        self, server: HookServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with HookServer() as proxy:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            send(server.url)

            assert proxy.received == []
        assert len(server.received) == 1

    def test_passwords_of_netrc_are_not_sent(
        self, server: HookServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        send(server.url)

        assert "authorization" not in server.received[0].headers


class TestStatus:
    @pytest.mark.parametrize("first", range(100, 700, 100))
    def test_every_status_is_delivered_retried_or_given_up(self, server: HookServer, first: int) -> None:
        # http.client swallows 100 Continue and waits for the real answer.
        for status in range(first + (first == 100), first + 100):
            server.answer = Answer(status)
            if first == 200:
                send(server.url)
                continue
            error = failure(server.url)
            expected = {
                100: (DeliveryReason.INVALID_RESPONSE, True),
                300: (DeliveryReason.REDIRECTED, True),
                400: (DeliveryReason.CLIENT_ERROR, status in RETRIED_CLIENT_STATUSES),
                500: (DeliveryReason.SERVER_ERROR, True),
                600: (DeliveryReason.INVALID_RESPONSE, True),
            }[first]
            if status == 410:
                expected = (DeliveryReason.GONE, False)
            if status == 429:
                expected = (DeliveryReason.RATE_LIMITED, True)
            assert (status, error.reason, error.retryable) == (status, *expected)
            assert str(status) in error.detail

    def test_the_client_statuses_that_are_retried_are_these(self) -> None:
        retried = [
            status
            for status in range(400, 500)
            if (error := status_error(status, None, "here", NOW)) is not None and error.retryable
        ]

        assert retried == [401, 403, 404, 407, 408, 409, 421, 423, 425, 429]

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_not_followed(self, server: HookServer, status: int) -> None:
        with HookServer() as elsewhere:
            server.answer = Answer(status, {"Location": elsewhere.url + "/stolen"})

            assert failure(server.url).reason is DeliveryReason.REDIRECTED
            assert elsewhere.received == []
        assert len(server.received) == 1

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_is_passed_on(self, server: HookServer, status: int) -> None:
        server.answer = Answer(status, {"Retry-After": "120"})
        assert failure(server.url).retry_after == timedelta(seconds=120)

        server.answer = Answer(status, {"Retry-After": "Sun, 01 Mar 2026 12:30:00 GMT"})
        assert failure(server.url).retry_after == timedelta(minutes=30)

        server.answer = Answer(status)
        assert failure(server.url).retry_after is None


class TestAddresses:
    def test_loopback_is_refused_by_default_and_nothing_is_sent(self, server: HookServer) -> None:
        error = failure(server.url, policy=AddressPolicy())

        assert (error.reason, error.retryable) == (DeliveryReason.FORBIDDEN_ADDRESS, False)
        assert "allow_private_cidrs" in error.detail
        assert server.received == []

    @pytest.mark.parametrize(
        "host", ["localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]", "0"]
    )
    def test_other_ways_to_write_loopback_are_refused_too(self, host: str) -> None:
        connections: list[bytes] = []
        with raw_server(lambda connection: connections.append(connection.recv(1))) as port:
            error = failure(f"http://{host}:{port}/", policy=AddressPolicy())

        # Not every system's resolver knows all of these forms; none of them may connect.
        assert error.reason in {DeliveryReason.FORBIDDEN_ADDRESS, DeliveryReason.NAME_RESOLUTION}
        assert connections == []

    def test_a_name_that_leads_to_a_private_address_is_refused(self, server: HookServer) -> None:
        error = failure(f"http://localhost:{server.port}/", policy=AddressPolicy())

        assert error.reason is DeliveryReason.FORBIDDEN_ADDRESS
        assert "loopback" in error.detail
        assert server.received == []

    def test_a_name_is_looked_up_once_so_that_it_cannot_change_in_between(
        self, server: HookServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look_up, asked = socket.getaddrinfo, []

        def counting(host: str, port: int, *args: int, **kwargs: int) -> object:
            asked.append(host)
            return look_up(host, port, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", counting)
        send(f"http://localhost:{server.port}/")

        assert asked == ["localhost"]

    def test_every_name_below_localhost_is_this_machine_whatever_the_resolver_says(
        self, server: HookServer
    ) -> None:
        # RFC 6761, 6.3.
        send(f"http://any.name.LocalHost:{server.port}/")

        assert len(server.received) == 1

    def test_a_peer_that_turns_out_forbidden_after_connecting_gets_not_one_byte(self) -> None:
        class SecondThoughts(AddressPolicy):
            def refusal(self, address: str) -> str | None:
                return next(answers)

        answers = iter([None, None, "private"])  # in the URL, looked up, connected to
        got: list[bytes] = []
        with raw_server(lambda connection: got.append(connection.recv(100))) as port:
            error = failure(f"http://127.0.0.1:{port}/", policy=SecondThoughts())
            wait_until(lambda: got != [])

        assert error.reason is DeliveryReason.FORBIDDEN_ADDRESS
        assert got == [b""]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "nothing happened for ten seconds"
        time.sleep(0.01)


def drip(connection: socket.socket, text: bytes) -> None:
    connection.recv(65536)
    while True:
        for byte in text:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)


class TestTime:
    def test_a_silent_server_is_a_timeout(self) -> None:
        with raw_server(lambda connection: time.sleep(5)) as port:
            error = failure(f"http://127.0.0.1:{port}/", timeout=SHORT)

        assert (error.reason, error.retryable) == (DeliveryReason.TIMEOUT, True)
        assert "0.4 s" in error.detail

    @pytest.mark.parametrize("text", [b"H", b"HTTP/1.1 200 OK\r\nX-Header: more\r\n" + b"X: y\r\n" * 10_000])
    def test_a_server_that_drips_bytes_does_not_stretch_the_limit(self, text: bytes) -> None:
        # Every pause is far below the limit; only the sum is above it.
        with raw_server(lambda connection: drip(connection, text)) as port:
            error = failure(f"http://127.0.0.1:{port}/", timeout=SHORT)

        assert error.reason is DeliveryReason.TIMEOUT

    def test_headers_that_are_cut_off_by_the_limit_are_no_answer(self) -> None:
        def talk(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Header: value\r\n")
            time.sleep(5)

        with raw_server(talk) as port:
            error = failure(f"http://127.0.0.1:{port}/", timeout=SHORT)

        assert (error.reason, error.retryable) == (DeliveryReason.TIMEOUT, True)

    def test_a_server_that_drips_its_tls_handshake_does_not_stretch_the_limit(self) -> None:
        handshake_start = b"\x16\x03\x03\x40\x00" + b"\x02\x00\x3f\xfc" + b"\x00" * 20_000
        with raw_server(lambda connection: drip(connection, handshake_start)) as port:
            error = failure(f"https://127.0.0.1:{port}/", timeout=SHORT)

        assert error.reason is DeliveryReason.TIMEOUT

    def test_a_success_does_not_wait_for_its_body(self) -> None:
        def endless(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"x" * 65536)

        with raw_server(endless) as port:
            send(f"http://127.0.0.1:{port}/")

    def test_a_redirect_with_an_endless_body_is_not_read(self) -> None:
        def endless(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n")
            while True:
                connection.sendall(b"x" * 65536)

        with raw_server(endless) as port:
            assert failure(f"http://127.0.0.1:{port}/").reason is DeliveryReason.REDIRECTED


class TestBrokenServers:
    def test_a_closed_port_is_a_connection_failure(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

        error = failure(f"http://127.0.0.1:{port}/")
        assert (error.reason, error.retryable) == (DeliveryReason.CONNECTION, True)
        assert "refused" in error.detail

    def test_a_connection_closed_without_an_answer_is_a_connection_failure(self) -> None:
        with raw_server(lambda connection: connection.recv(65536)) as port:  # type: ignore[arg-type]
            assert failure(f"http://127.0.0.1:{port}/").reason is DeliveryReason.CONNECTION

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HTTP/1.1 twohundred OK\r\n\r\n",
            b"HTTP/1.1 200 " + b"K" * 100_000,
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        ],
    )
    def test_an_answer_that_is_not_http_is_invalid(self, answer: bytes) -> None:
        def talk(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(answer)

        with raw_server(talk) as port:
            error = failure(f"http://127.0.0.1:{port}/")

        assert (error.reason, error.retryable) == (DeliveryReason.INVALID_RESPONSE, True)

    def test_a_name_that_does_not_exist_may_exist_later(self) -> None:
        # RFC 6761: .invalid never resolves.
        error = failure("http://hooks.invalid/")

        assert (error.reason, error.retryable) == (DeliveryReason.NAME_RESOLUTION, True)

    def test_plain_http_on_an_https_url_is_a_tls_failure(self, server: HookServer) -> None:
        assert failure(server.url.replace("http://", "https://")).reason is DeliveryReason.TLS


@dataclass(frozen=True)
class Certificate:
    context: ssl.SSLContext
    path: str


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    if which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    )
    subprocess.run(
        [
            *command.split(),
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return Certificate(context, str(folder / "cert.pem"))


class TestTls:
    def test_a_certificate_of_an_unknown_authority_is_refused(self, certificate: Certificate) -> None:
        with HookServer(certificate.context) as server:
            error = failure(server.url)

            assert (error.reason, error.retryable) == (DeliveryReason.TLS, True)
            assert "self-signed certificate" in error.detail
            assert server.received == []

    def test_an_authority_of_ones_own_can_be_trusted(self, certificate: Certificate) -> None:
        with HookServer(certificate.context) as server:
            send(server.url, ca_bundle=certificate.path)

            assert len(server.received) == 1

    def test_a_certificate_for_another_name_is_refused(self, certificate: Certificate) -> None:
        with HookServer(certificate.context) as server:
            error = failure(f"https://localhost:{server.port}/", ca_bundle=certificate.path)

            assert error.reason is DeliveryReason.TLS
            assert "localhost" in error.detail
            assert server.received == []


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "hooks.example/x",
            "ftp://hooks.example/x",
            "file:///etc/passwd",
            "https:///x",
            "https://hooks.example:99999/",
            "https://hooks.example:0/",
            "https://[::1/",
            "https://hooks.example/a b",
            "https://hooks.example\\@127.0.0.1/",
            "https://hooks.example/\r\nX-Injected: 1",
            "https://127.0.0.%31/",
            "https://[::1]hooks.example/",
            "https://①②⑦.0.0.1/",
        ],
    )
    def test_a_url_that_cannot_be_used_is_found_without_the_network(self, url: str) -> None:
        with pytest.raises(DeliveryError) as caught:
            check_url(url, LOCAL)

        assert (caught.value.reason, caught.value.retryable) == (DeliveryReason.BAD_URL, False)
        assert caught.value.__cause__ is None

    def test_a_name_outside_of_ascii_is_one_name(self) -> None:
        check_url("https://größe.example/", AddressPolicy())

    @pytest.mark.parametrize(
        ("url", "longer"),
        [
            ("https://h", "https://h/fail"),
            ("https://h/", "https://h/fail"),
            ("https://u:p@h:1/a/b/?q=/x#f", "https://u:p@h:1/a/b/fail?q=/x#f"),
        ],
    )
    def test_a_path_is_extended_in_front_of_the_query(self, url: str, longer: str) -> None:
        assert extended(url, "/fail") == longer

    @pytest.mark.parametrize("url", ["https://h/\tx", "https://h\n/x", "https://h\\x", "https://[::1/x"])
    def test_what_cannot_be_taken_apart_safely_is_not_extended(self, url: str) -> None:
        with pytest.raises(DeliveryError) as caught:
            extended(url, "/fail")

        assert caught.value.reason is DeliveryReason.BAD_URL

    @pytest.mark.parametrize("url", ["http://a..b/", f"http://{'a' * 64}.example/", "http://*.example/"])
    def test_a_host_that_is_no_valid_name_is_a_bad_url_or_unknown(self, url: str) -> None:
        assert failure(url).reason in {DeliveryReason.BAD_URL, DeliveryReason.NAME_RESOLUTION}

    def test_a_literal_private_address_is_found_without_the_network(self) -> None:
        with pytest.raises(DeliveryError) as caught:
            check_url("https://10.0.0.7/x", LOCAL)

        assert caught.value.reason is DeliveryReason.FORBIDDEN_ADDRESS
        check_url("https://10.0.0.7/x", AddressPolicy.from_cidrs(["10.0.0.0/8"]))

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("https://hooks.example/T0KEN?key=1#f", "https://hooks.example:443"),
            ("http://user:p@ss@hooks.example:8080/x", "http://hooks.example:8080"),
            ("https://[2001:db8::1]/x", "https://[2001:db8::1]:443"),
            ("T0KEN", "<invalid URL>"),
            ("https://[bad", "<invalid URL>"),
            ("https:///T0KEN", "<invalid URL>"),
        ],
    )
    def test_only_scheme_host_and_port_of_a_url_are_shown(self, url: str, shown: str) -> None:
        assert endpoint(url) == shown


def everything_told(error: BaseException) -> str:
    """Text of an error and of every error it leads to, also through suppressed contexts."""
    told, seen = "", set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            told += f"{each!r} {each} {''.join(traceback.format_exception(each))}"
            waiting += [each.__cause__, each.__context__]
    return told


class TestSecrecy:
    @pytest.mark.parametrize(
        "kind", ["status", "redirect", "closed", "silent", "garbage", "tls", "refused", "name"]
    )
    def test_no_failure_shows_path_query_password_or_the_answers_body(
        self, server: HookServer, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        talks: dict[str, Callable[[socket.socket], object]] = {
            "closed": lambda connection: connection.recv(65536),
            "silent": lambda connection: time.sleep(5),
            "garbage": lambda connection: connection.sendall(b"B0DY\r\n\r\n"),
            "tls": lambda connection: connection.sendall(b"B0DY\r\n\r\n"),
        }
        status = 302 if kind == "redirect" else 500
        server.answer = Answer(status, {"Location": "http://127.0.0.1:1/B0DY"}, b"B0DY")
        with raw_server(talks.get(kind, lambda connection: None)) as port:  # type: ignore[arg-type]
            target = f"127.0.0.1:{server.port if kind in {'status', 'redirect', 'refused'} else port}"
            scheme = "https" if kind == "tls" else "http"
            host = "hooks.invalid" if kind == "name" else target
            error = failure(
                f"{scheme}://us3r:pa55@{host}{SECRET_PATH}",
                policy=AddressPolicy() if kind == "refused" else LOCAL,
                timeout=SHORT,
            )

        told = everything_told(error) + caplog.text
        for secret in ("T0KEN", "p4th", "qu3ry", "us3r", "pa55", "B0DY"):
            assert secret not in told.replace(__file__, "")

    def test_urllib3_logs_nothing_of_a_delivery_but_still_logs_for_others(
        self, server: HookServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        send(server.url + SECRET_PATH)
        assert "T0KEN" not in caplog.text

        for name in ("connection", "connectionpool", "response"):
            logging.getLogger(f"urllib3.{name}").debug("of another request")
        assert caplog.text.count("of another request") == 3

    def test_headers_that_urllib3_warns_about_show_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def talk(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nB0DY\r\n\r\n")

        with raw_server(talk) as port:
            send(f"http://127.0.0.1:{port}{SECRET_PATH}")

        assert caplog.text == ""

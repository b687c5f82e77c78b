"""No receiver can be led to where the configuration did not allow it: written addresses, names, redirects, proxies."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from hookserver import Answer, HookServer
from layerwatch.alerts.errors import DeliveryError, DeliveryReason, ReceiversError
from layerwatch_testing.sending import GUARDED, KINDS, LOOPBACK, failure, has_secret, needs, sender

REFUSED = {DeliveryReason.FORBIDDEN_ADDRESS, DeliveryReason.BAD_URL}

LOOPBACK_FORMS = (
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "hooks.localhost",
    "hooks.localhost.",
    "public.example@127.0.0.1",
    "public.example:443@127.0.0.1",
    "a@public.example@127.0.0.1",
)
"""All of them are this machine, and are one with it allowed."""

IPV6_FORMS = ("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::FFFF:127.0.0.1]")
"""127.0.0.1 as an IPv4-mapped address."""

OTHER_FORMS = (
    "0.0.0.0",
    "0",
    "[::]",
    "[::1]",
    "[::1%25lo]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1%25lo]",
    "[fd00:ec2::254]",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "[::ffff:169.254.169.254]",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "10.0.0.1",
    "255.255.255.255",
)
"""This machine without an address of its own, tunnels into it, and the metadata services of clouds."""

MISREAD = (
    "127。0。0。1",
    "127．0．0．1",
    "127｡0｡0｡1",
    "１２７.0.0.1",
    "①②⑦.0.0.1",
    "ⓛocalhost",
    "localhost\u200b",
    "127.0.0.%31",
    "%31%32%37.0.0.1",
    "%6cocalhost",
    "127.0.0.1%00.public.example",
    "127.0.0.1%2f.public.example",
    "public.example\\@127.0.0.1",
    "127.0.0.1\\@public.example",
    "127.0.0.1\t",
    "127.0.0.1\n.public.example",
    "127.0.0.1 ",
    "[127.0.0.1]",
    "[::1]public.example",
    "[::1",
    "",
)
"""What readers of URLs understand in different ways; none of them may be used."""


@pytest.fixture
def server() -> Iterator[HookServer]:
    with HookServer() as running:
        yield running


def refusal(kind: str, url: str, **more: object) -> str:
    """What the configuration, or else the first attempt, says against ``url``; both must not repeat secrets."""
    try:
        send = sender(kind, url, **more)
    except (ReceiversError, ValidationError) as error:
        told = str(error)
    else:
        with pytest.raises(DeliveryError) as caught:
            send()
        assert caught.value.reason in REFUSED
        assert not caught.value.retryable
        told = str(caught.value)
    assert "T0KEN" not in told
    return told


@pytest.mark.parametrize("kind", GUARDED)
class TestWrittenAddresses:
    def test_no_way_to_write_loopback_leads_there(self, server: HookServer, kind: str) -> None:
        for host in LOOPBACK_FORMS + IPV6_FORMS:
            told = refusal(kind, f"http://{host}:{server.port}")

            assert "allow_private_cidrs" in told, host
        assert server.received == []

    def test_nor_is_any_other_address_reached_that_is_not_public(self, server: HookServer, kind: str) -> None:
        for host in OTHER_FORMS:
            told = refusal(kind, f"http://{host}:{server.port}")

            assert "allow_private_cidrs" in told, host
        assert server.received == []

    def test_what_readers_of_urls_disagree_about_is_refused_whole(
        self, server: HookServer, kind: str
    ) -> None:
        for host in MISREAD:
            # Even with everything allowed: not the address is wrong but the way it is written.
            told = refusal(kind, f"http://{host}:{server.port}", allow_private_cidrs=("0.0.0.0/0", "::/0"))

            assert "URL" in told, host
        assert server.received == []

    @pytest.mark.parametrize("port", ["0", "65536", "-1", "８０", "80:80", "0x50", "80@127.0.0.1:"])
    def test_no_port_can_be_misread(self, server: HookServer, kind: str, port: str) -> None:
        url = f"http://127.0.0.1:{port}"
        refusal(kind, url if port[-1] != ":" else url + str(server.port))

        assert server.received == []

    def test_what_stands_behind_the_host_does_not_become_one(self, server: HookServer, kind: str) -> None:
        for rest in ("#@public.example", "?@public.example", "/@public.example"):
            refusal(kind, f"http://127.0.0.1:{server.port}{rest}")

        assert server.received == []

    def test_with_the_network_allowed_each_form_is_delivered(self, server: HookServer, kind: str) -> None:
        for host in LOOPBACK_FORMS:
            sender(kind, f"http://{host}:{server.port}", allow_private_cidrs=LOOPBACK)()

            assert has_secret(server.received.pop()), host
            assert server.received == []

    def test_the_unspecified_address_needs_the_network_that_it_leads_to_as_well(
        self, server: HookServer, kind: str
    ) -> None:
        error = failure(kind, f"http://0.0.0.0:{server.port}", allow_private_cidrs=["0.0.0.0/8"])
        assert (error.reason, "127.0.0.1" in error.detail) == (DeliveryReason.FORBIDDEN_ADDRESS, True)
        assert server.received == []

        sender(kind, f"http://0.0.0.0:{server.port}", allow_private_cidrs=["0.0.0.0/8", *LOOPBACK])()
        assert len(server.received) == 1

    def test_a_mapped_address_is_allowed_with_the_network_that_it_is_in(
        self, server: HookServer, kind: str
    ) -> None:
        _needs_ipv6()
        for host in IPV6_FORMS:
            sender(kind, f"http://{host}:{server.port}", allow_private_cidrs=LOOPBACK)()

        assert len(server.received) == len(IPV6_FORMS)


def _needs_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("::ffff:127.0.0.1", 9))
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize("kind", KINDS)
class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_none_is_followed_and_no_secret_is_sent_on(
        self, server: HookServer, kind: str, status: int
    ) -> None:
        needs(kind)
        with HookServer() as elsewhere:
            send = sender(kind, server.url, allow_private_cidrs=LOOPBACK)
            for location in (f"{elsewhere.url}/stolen", f"//127.0.0.1:{elsewhere.port}/stolen", "/stolen"):
                server.answer = Answer(status, {"Location": location})
                with pytest.raises(DeliveryError) as caught:
                    send()
                error = caught.value

                assert (error.reason, error.retryable) == (DeliveryReason.REDIRECTED, True)
                assert "stolen" not in str(error)
            assert elsewhere.received == []
        assert all(has_secret(received) for received in server.received)
        assert len(server.received) == 3


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Sequence[str]) -> list[str]:
    """The system's resolver gives these answers, one after the other; returns the names that it is asked for."""
    left, asked = list(answers), []

    def look_up(host: str, port: int, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in left.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize("kind", GUARDED)
class TestNames:
    """127.0.0.1 stands for what is private, 127.0.0.2, which alone is allowed, for what is public."""

    ALLOWED = ("127.0.0.2/32",)

    def test_a_name_whose_answer_changes_is_connected_to_where_it_was_checked(
        self, server: HookServer, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with HookServer(host="127.0.0.2") as public, monkeypatch.context() as patched:
            asked = answering(patched, ["127.0.0.2"], ["127.0.0.1"])
            send = sender(kind, f"http://hooks.example:{public.port}", allow_private_cidrs=self.ALLOWED)
            send()
            assert (len(public.received), asked) == (1, ["hooks.example"])

            with pytest.raises(DeliveryError) as caught:
                send()
            assert caught.value.reason is DeliveryReason.FORBIDDEN_ADDRESS
            assert (len(public.received), len(asked)) == (1, 2)

    def test_rebound_to_a_server_that_listens_it_is_told_nothing(
        self, server: HookServer, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answering(monkeypatch, ["127.0.0.1"])
        error = failure(kind, f"http://hooks.example:{server.port}", allow_private_cidrs=self.ALLOWED)

        assert (error.reason, error.retryable) == (DeliveryReason.FORBIDDEN_ADDRESS, False)
        assert server.received == []

    def test_of_answers_that_mix_private_and_public_only_the_public_are_tried(
        self, server: HookServer, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answering(monkeypatch, ["127.0.0.1", "169.254.169.254", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"])
        url = f"http://hooks.example:{server.port}"  # Nobody listens there on 127.0.0.2.
        for _ in range(2):
            error = failure(kind, url, allow_private_cidrs=self.ALLOWED)
            assert error.reason is DeliveryReason.CONNECTION

        assert server.received == []


@pytest.mark.parametrize("kind", KINDS)
class TestEnvironment:
    def test_no_proxy_and_no_password_of_the_environment_is_used(
        self, server: HookServer, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        needs(kind)
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login someone password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HOME", str(tmp_path))
        with HookServer() as proxy:
            for name in ("http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
                monkeypatch.setenv(name.upper(), proxy.url)
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            sender(kind, server.url, allow_private_cidrs=LOOPBACK)()

            assert proxy.received == []
        (received,) = server.received
        assert "authorization" not in received.headers


def resolved_by_its_process(monkeypatch: pytest.MonkeyPatch, folder: Path, *addresses: str) -> None:
    """The resolver of Apprise's process gives these addresses."""
    # Read by every Python that starts.
    (folder / "sitecustomize.py").write_text(
        "import socket\n"
        "def look_up(host, port, *_, **__):\n"
        f"    return [(socket.AF_INET, socket.SOCK_STREAM, 6, '', (one, port)) for one in {addresses!r}]\n"
        "socket.getaddrinfo = look_up\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


class TestApprise:
    """It parses URLs and connects by itself: what counts is where its process can connect to."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        needs("apprise")

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "u:p@127.0.0.1", "0.0.0.0"],
    )
    def test_no_way_to_write_loopback_leads_there(self, server: HookServer, host: str) -> None:
        try:
            error = failure("apprise", f"http://{host}:{server.port}")
        except ReceiversError as unusable:
            assert "not one URL that Apprise understands" in str(unusable)
        else:
            # A host that it makes a name of cannot be looked up.
            assert error.reason in {DeliveryReason.FORBIDDEN_ADDRESS, DeliveryReason.NAME_RESOLUTION}
        assert server.received == []

    def test_with_the_network_allowed_it_delivers(self, server: HookServer) -> None:
        sender("apprise", server.url, allow_private_cidrs=LOOPBACK)()

        assert has_secret(server.received[0])

    def test_a_redirect_that_the_url_asks_for_is_not_followed(self, server: HookServer) -> None:
        with HookServer() as elsewhere:
            server.answer = Answer(302, {"Location": f"{elsewhere.url}/stolen"})
            url = {"url": f"json://127.0.0.1:{server.port}/?redirect=yes"}
            assert (
                failure("apprise", "", allow_private_cidrs=LOOPBACK, **url).reason
                is DeliveryReason.REDIRECTED
            )

            assert elsewhere.received == []

    def test_an_answer_that_changes_between_look_up_and_connection_gains_nothing(
        self, server: HookServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        resolved_by_its_process(monkeypatch, tmp_path, "127.0.0.1")
        url = f"http://hooks.example:{server.port}"
        error = failure("apprise", url)
        assert (error.reason, error.retryable) == (DeliveryReason.FORBIDDEN_ADDRESS, False)
        assert server.received == []

        sender("apprise", url, allow_private_cidrs=LOOPBACK)()
        assert len(server.received) == 1

    def test_of_answers_that_mix_private_and_public_only_the_public_are_tried(
        self, server: HookServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        resolved_by_its_process(monkeypatch, tmp_path, "127.0.0.1", "127.0.0.2")
        with HookServer(host="127.0.0.2") as public:
            send = sender(
                "apprise", f"http://hooks.example:{public.port}", allow_private_cidrs=TestNames.ALLOWED
            )
            send()
            assert len(public.received) == 1

            # What went wrong behind the address that was let through counts, not the refusal of the other.
            public.answer = Answer(503)
            with pytest.raises(DeliveryError) as caught:
                send()
            assert (caught.value.reason, caught.value.retryable) == (DeliveryReason.SERVER_ERROR, True)

    @pytest.mark.parametrize(
        "url",
        [
            "mailto://user:T0KEN@hooks.example:{port}?smtp=127.0.0.1&to=a@b.example&from=a@b.example&mode=insecure",
            "rsyslog://127.0.0.1:{port}",
            "rsyslog://localhost:{port}",
        ],
    )
    def test_other_protocols_than_http_are_held_back_too(self, url: str) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        ):
            listener.settimeout(0.2)
            datagrams.settimeout(0.2)
            datagrams.bind(listener.getsockname())
            error = failure("apprise", "", url=url.format(port=listener.getsockname()[1]))

            assert (error.reason, error.retryable) == (DeliveryReason.FORBIDDEN_ADDRESS, False)
            assert "T0KEN" not in str(error)
            with pytest.raises(TimeoutError):
                listener.accept()
            with pytest.raises(TimeoutError):
                datagrams.recv(1)

    def test_datagrams_go_where_it_is_allowed(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(10)
            datagrams.bind(("127.0.0.1", 0))
            url = f"rsyslog://127.0.0.1:{datagrams.getsockname()[1]}"
            sender("apprise", "", url=url, allow_private_cidrs=LOOPBACK)()

            assert b"CRITICAL" in datagrams.recv(65536)

    def test_a_url_that_gives_up_the_check_of_certificates_is_refused(self) -> None:
        with pytest.raises(ReceiversError, match="turns the check of certificates off") as caught:
            sender("apprise", "", url="jsons://hooks.example/T0KEN?verify=no")
        assert "T0KEN" not in str(caught.value)

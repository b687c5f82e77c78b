"""What every receiver asks of a server's certificate."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from hookserver import HookServer
from layerwatch.alerts.errors import DeliveryReason, ReceiversError
from layerwatch_testing.sending import GUARDED, KINDS, LOOPBACK, failure, has_secret, needs, sender


@dataclass(frozen=True)
class Authority:
    """An authority of one's own, and its certificate as a file."""

    authority: trustme.CA
    file: str

    def server(self, *names: str, expires: datetime | None = None) -> HookServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names, not_after=expires).configure_cert(context)
        return HookServer(context)


@pytest.fixture
def private(tmp_path: Path) -> Authority:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return Authority(authority, str(tmp_path / "ca.pem"))


@pytest.fixture(autouse=True)
def _no_bundle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    yield


@pytest.mark.parametrize("kind", KINDS)
class TestCertificates:
    @pytest.fixture(autouse=True)
    def _installed(self, kind: str) -> None:
        needs(kind)

    def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
        self, private: Authority, kind: str
    ) -> None:
        with private.server("127.0.0.1") as server:
            sender(kind, server.url, allow_private_cidrs=LOOPBACK, ca_file=private.file)()

            assert has_secret(server.received[0])

    def test_without_it_the_certificate_is_refused_and_nothing_is_sent(
        self, private: Authority, kind: str
    ) -> None:
        with private.server("127.0.0.1") as server:
            error = failure(kind, server.url, allow_private_cidrs=LOOPBACK)

            assert (error.reason, error.retryable) == (DeliveryReason.TLS, True)
            assert "unable to get local issuer certificate" in error.detail
            assert server.received == []

    def test_the_named_authority_counts_in_place_of_the_environments(
        self, private: Authority, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
        with private.server("127.0.0.1") as server:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", private.file)
            sender(kind, server.url, allow_private_cidrs=LOOPBACK)()
            assert len(server.received) == 1

            error = failure(
                kind, server.url, allow_private_cidrs=LOOPBACK, ca_file=str(tmp_path / "other.pem")
            )
            assert error.reason is DeliveryReason.TLS
            assert len(server.received) == 1

    def test_a_certificate_for_another_name_is_refused(self, private: Authority, kind: str) -> None:
        with private.server("hooks.example") as server:
            error = failure(kind, server.url, allow_private_cidrs=LOOPBACK, ca_file=private.file)

            assert error.reason is DeliveryReason.TLS
            assert "127.0.0.1" in error.detail
            assert server.received == []

    def test_a_certificate_that_has_expired_is_refused(self, private: Authority, kind: str) -> None:
        with private.server("127.0.0.1", expires=datetime.now(UTC) - timedelta(days=1)) as server:
            error = failure(kind, server.url, allow_private_cidrs=LOOPBACK, ca_file=private.file)

            assert error.reason is DeliveryReason.TLS
            assert "expired" in error.detail
            assert server.received == []

    def test_an_address_that_is_refused_is_not_even_greeted(self, private: Authority, kind: str) -> None:
        with private.server("127.0.0.1") as server:
            error = failure(kind, server.url.replace("127.0.0.1", "localhost"), ca_file=private.file)

            assert error.reason is DeliveryReason.FORBIDDEN_ADDRESS

    @pytest.mark.parametrize(
        ("content", "problem"),
        [(None, "do not exist"), (b"no certificate", "are no certificates in PEM form")],
    )
    def test_a_file_that_cannot_be_used_is_found_when_it_is_configured(
        self, kind: str, tmp_path: Path, content: bytes | None, problem: str
    ) -> None:
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_bytes(content)

        with pytest.raises(ReceiversError, match=rf"oncall: .*ca\.pem \(ca_file\) {problem}"):
            sender(kind, "https://hooks.example", ca_file=str(file))


@pytest.mark.parametrize("kind", GUARDED)
def test_a_file_that_went_away_is_a_failure_to_try_again(private: Authority, kind: str) -> None:
    with private.server("127.0.0.1") as server:
        send = sender(kind, server.url, allow_private_cidrs=LOOPBACK, ca_file=private.file)
        Path(private.file).unlink()
        with pytest.raises(Exception, match=r"ca\.pem \(ca_file\) do not exist") as caught:
            send()

        assert (caught.value.reason, caught.value.retryable) == (DeliveryReason.TLS, True)  # type: ignore[attr-defined]
        assert server.received == []

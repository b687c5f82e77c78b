"""What every kind of receiver must keep to, and how receivers come out of settings."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from pydantic import TypeAdapter
from standardwebhooks import Webhook

from alertvalues import IDENTITY, NOW, entry, finding, firing, resolved
from hookserver import Answer, HookServer
from layerwatch.alerts.errors import DeliveryError, DeliveryReason, ReceiversError
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers import BUILDERS, LOG_NAME, build_receivers
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.config.alerts import (
    LogReceiverSettings,
    ReceiverSettings,
    WebhookReceiverSettings,
)
from layerwatch.config.secrets import Secret

KEY = "whsec_" + base64.b64encode(b"0123456789abcdefSIGNINGK").decode()
LOOPBACK = ("127.0.0.0/8",)


def settings(**values: object) -> ReceiverSettings:
    adapter: TypeAdapter[ReceiverSettings] = TypeAdapter(ReceiverSettings)
    return adapter.validate_python({"name": "oncall", **values})


def build(**values: object) -> Receiver:
    return build_receivers([settings(**values)])["oncall"]


@dataclass(frozen=True)
class Case:
    """A receiver that works, and a way to see the event ids that reached the other side."""

    receiver: Receiver
    server: HookServer
    caplog: pytest.LogCaptureFixture

    def arrived(self) -> list[str]:
        posted = [received.headers["webhook-id"] for received in self.server.received]
        logged = [str(record.args[4]) for record in self.caplog.records if isinstance(record.args, tuple)]
        return posted + logged


@pytest.fixture(params=sorted(BUILDERS))
def case(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Case]:
    caplog.set_level(logging.INFO, logger=LOG_NAME)
    with HookServer() as server:
        values: dict[str, dict[str, object]] = {
            "webhook": {"url": f"{server.url}/T0KEN", "secret": KEY, "allow_private_cidrs": LOOPBACK},
            "log": {},
        }
        yield Case(build(kind=request.param, **values[request.param]), server, caplog)


class TestEveryKind:
    def test_it_knows_its_name_and_limits(self, case: Case) -> None:
        assert case.receiver.name == "oncall"
        assert case.receiver.send_resolved is True
        assert case.receiver.max_age > timedelta(0)

    @pytest.mark.parametrize("transition", [firing(), resolved(), resolved(version=None)])
    def test_one_call_tells_one_event_once(self, case: Case, transition: object) -> None:
        event = entry(transition=transition)  # type: ignore[arg-type]
        before = deepcopy(event)
        case.receiver.send(event, NOW)

        assert case.arrived() == [event.event_id]
        assert event == before

    def test_the_same_event_may_be_told_again_under_the_same_id(self, case: Case) -> None:
        case.receiver.send(entry(), NOW)
        case.receiver.send(replace(entry(), attempts=1), NOW + timedelta(seconds=2))

        assert case.arrived() == [entry().event_id] * 2

    def test_neither_the_receiver_nor_the_log_shows_a_secret(self, case: Case) -> None:
        case.caplog.set_level(logging.DEBUG)
        case.receiver.send(entry(), NOW)

        for shown in (repr(case.receiver), str(case.receiver), case.caplog.text):
            assert "T0KEN" not in shown
            assert KEY not in shown

    def test_foreign_names_cannot_break_out_of_the_line(self, case: Case) -> None:
        identity = replace(IDENTITY, model="m\r\nWARNING forged line\x1b[2J")
        case.receiver.send(entry(transition=firing(finding("fc\n2"), identity=identity)), NOW)

        told = [record.getMessage() for record in case.caplog.records]
        told += [str(json.loads(received.body)) for received in case.server.received]
        assert len(told) == 1
        assert not {"\r", "\n", "\x1b"} & set(told[0])
        assert "\\n" not in told[0]


class TestWebhook:
    @pytest.fixture
    def server(self) -> Iterator[HookServer]:
        with HookServer() as running:
            yield running

    def receiver(self, server: HookServer, **values: object) -> Receiver:
        url = f"{server.url}/T0KEN?k=v"
        return build(
            **{"kind": "webhook", "url": url, "secret": KEY, "allow_private_cidrs": LOOPBACK, **values}
        )

    def test_the_receiving_side_can_verify_the_signature(self, server: HookServer) -> None:
        event = entry()
        self.receiver(server).send(event, datetime.now(tz=UTC))

        (received,) = server.received
        assert received.path == "/T0KEN?k=v"
        assert received.body.decode() == event.payload
        assert received.headers["content-type"] == "application/json"
        assert received.headers["user-agent"].startswith("layerwatch/")
        assert (
            Webhook(KEY).verify(received.body, dict(received.headers))["data"]["event_id"] == event.event_id
        )

    def test_attempts_differ_in_timestamp_and_signature_only(self, server: HookServer) -> None:
        receiver = self.receiver(server)
        receiver.send(entry(), NOW)
        receiver.send(entry(), NOW + timedelta(seconds=1))

        first, second = server.received
        different = {name for name in first.headers if first.headers[name] != second.headers[name]}
        assert different == {"webhook-timestamp", "webhook-signature"}
        assert first.body == second.body

    def test_names_outside_of_ascii_are_signed_as_they_are_sent(self, server: HookServer) -> None:
        event = entry(transition=firing(identity=replace(IDENTITY, model="größe-模型")))
        self.receiver(server).send(event, datetime.now(tz=UTC))

        (received,) = server.received
        body = Webhook(KEY).verify(received.body, dict(received.headers))
        assert body["data"]["model"] == "größe-模型"

    def test_without_a_secret_nothing_is_signed(self, server: HookServer) -> None:
        self.receiver(server, secret=None).send(entry(), NOW)

        assert "webhook-signature" not in server.received[0].headers
        assert server.received[0].headers["webhook-id"] == entry().event_id

    def test_a_rotated_key_file_takes_effect_at_the_next_attempt(
        self, server: HookServer, tmp_path: Path
    ) -> None:
        file = tmp_path / "key"
        file.write_text("old\n")
        receiver = self.receiver(server, secret={"file": str(file)})
        receiver.send(entry(), datetime.now(tz=UTC))
        file.write_text("new old\n")
        receiver.send(entry(), datetime.now(tz=UTC))

        old, rotated = server.received
        Webhook(b"old").verify(old.body, dict(old.headers))
        for key in (b"old", b"new"):
            Webhook(key).verify(rotated.body, dict(rotated.headers))

    def test_a_key_file_that_went_missing_is_a_failure_to_try_again(
        self, server: HookServer, tmp_path: Path
    ) -> None:
        file = tmp_path / "key"
        file.write_text("old")
        receiver = self.receiver(server, secret={"file": str(file)})
        file.unlink()

        with pytest.raises(DeliveryError) as caught:
            receiver.send(entry(), NOW)
        assert (caught.value.reason, caught.value.retryable) == (DeliveryReason.BAD_SECRET, True)
        assert str(file) in caught.value.detail
        assert server.received == []

    def test_a_failure_names_the_host_and_keeps_the_rest(
        self, server: HookServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.answer = Answer(500, {}, b"B0DY")

        with pytest.raises(DeliveryError) as caught:
            self.receiver(server).send(entry(), NOW)
        told = f"{caught.value!r} {''.join(traceback.format_exception(caught.value))} {caplog.text}"
        assert f"http://127.0.0.1:{server.port} answered 500" in told
        for secret in ("T0KEN?", "B0DY", KEY, "SIGNINGK"):
            assert secret not in told

    def test_one_call_is_one_attempt(self, server: HookServer) -> None:
        server.answer = Answer(503)

        with pytest.raises(DeliveryError):
            self.receiver(server).send(entry(), NOW)
        assert len(server.received) == 1


class TestLog:
    def test_a_line_holds_what_matters(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger=LOG_NAME)
        event: OutboxEntry = entry()
        build(kind="log").send(event, NOW)
        build(kind="log").send(entry(transition=resolved()), NOW)

        assert [(record.name, record.levelname) for record in caplog.records] == [
            (LOG_NAME, "WARNING"),
            (LOG_NAME, "INFO"),
        ]
        assert caplog.records[0].getMessage() == (
            "alert firing (first, critical): digits-mlp v5 (latest): layer fc2 is broken: "
            f"relative change 0.92 (limit 0.35) [{event.event_id}, sequence 1]"
        )
        assert (
            caplog.records[1]
            .getMessage()
            .startswith("alert resolved (version_passed, critical): digits-mlp v6")
        )


class TestBuilding:
    def test_every_kind_in_the_configuration_can_be_built(self) -> None:
        union = get_args(ReceiverSettings)[0]
        kinds = {get_args(each.model_fields["kind"].annotation)[0] for each in get_args(union)}

        assert set(BUILDERS) == kinds
        assert {LogReceiverSettings, WebhookReceiverSettings} <= set(get_args(union))

    def test_receivers_come_by_name_in_the_order_of_the_settings(self) -> None:
        built = build_receivers(
            [settings(name="z", kind="log", send_resolved=False), settings(name="a", kind="log")]
        )

        assert list(built) == ["z", "a"]
        assert [receiver.send_resolved for receiver in built.values()] == [False, True]

    def test_settings_of_a_webhook_reach_it(self) -> None:
        receiver = build(kind="webhook", url="https://hooks.example/x", max_age="2h", send_resolved=False)

        assert receiver.max_age == timedelta(hours=2)
        assert receiver.send_resolved is False

    def test_all_problems_are_told_at_once_and_none_shows_a_secret(self, tmp_path: Path) -> None:
        url_file = tmp_path / "url"
        url_file.write_text("ftp://hooks.example/T0KEN")

        with pytest.raises(ReceiversError) as caught:
            build_receivers(
                [
                    settings(name="scheme", kind="webhook", url={"file": str(url_file)}),
                    settings(name="good", kind="log"),
                    settings(name="inside", kind="webhook", url="http://10.0.0.1/T0KEN"),
                    settings(name="key", kind="webhook", url="https://hooks.example/", secret="whsec_T0*KEN"),
                    settings(name="missing", kind="webhook", url={"file": str(tmp_path / "nothing")}),
                    settings(name="good", kind="log"),
                ]
            )

        problems = caught.value.problems
        assert [problem.split(":")[0] for problem in problems] == [
            "scheme",
            "inside",
            "key",
            "missing",
            "good",
        ]
        assert "https://" in problems[0]
        assert "allow_private_cidrs" in problems[1]
        assert "base64" in problems[2]
        assert "does not exist" in problems[3]
        assert "two receivers" in problems[4]
        assert "T0" not in str(caught.value)

    def test_a_missing_file_of_authorities_is_found_before_the_first_event(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        with pytest.raises(ReceiversError, match=r"ca\.pem \(REQUESTS_CA_BUNDLE\) do not exist"):
            build(kind="webhook", url="https://hooks.example/")

    def test_secrets_of_the_settings_are_not_read_into_the_receiver(self) -> None:
        receiver = build(kind="webhook", url="https://hooks.example/T0KEN", secret=KEY)

        assert isinstance(receiver.url, Secret)  # type: ignore[attr-defined]
        assert "T0KEN" not in repr(receiver)

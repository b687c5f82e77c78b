"""What every kind of receiver must keep to, and how receivers come out of settings."""

from __future__ import annotations

import base64
import json
import logging
import socket
import ssl
import sys
import traceback
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
import trustme
from pydantic import TypeAdapter
from standardwebhooks import Webhook

from alertvalues import IDENTITY, NOW, entry, finding, firing, payload_of, resolved
from hookserver import Answer, HookServer, Received
from layerwatch.alerts.errors import DeliveryError, DeliveryReason, ReceiversError
from layerwatch.alerts.model import Transition
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


TOKEN = "T0KEN0123456789abcdefghijklmnopq"
"""Secret of every receiver but the webhook's key; as long as a routing key of PagerDuty."""

REMOTE = sorted(set(BUILDERS) - {"log"})
POSTING = sorted(set(REMOTE) - {"apprise"})
"""Kinds that post through layerwatch.alerts.http."""


def values_for(kind: str, url: str) -> dict[str, object]:
    """Settings of a receiver of ``kind`` that leads to the server at ``url``."""
    allowed = {} if kind == "log" else {"allow_private_cidrs": LOOPBACK}
    particular: dict[str, dict[str, object]] = {
        "webhook": {"url": f"{url}/{TOKEN}", "secret": KEY},
        "log": {},
        "alertmanager": {"urls": [url.replace("://", f"://user:{TOKEN}@")]},
        "pagerduty": {"url": f"{url}/v2/enqueue", "routing_key": TOKEN},
        "slack": {"url": f"{url}/services/{TOKEN}"},
        "teams": {"url": f"{url}/workflows/w/triggers/manual/paths/invoke?sig={TOKEN}"},
        "apprise": {"url": f"{url.replace('https', 'jsons').replace('http', 'json')}/{TOKEN}"},
    }
    return {"kind": kind, **allowed, **particular[kind]}


def needs(kind: str) -> None:
    if kind == "apprise":
        pytest.importorskip("apprise", reason="the extra apprise is not installed")


@dataclass(frozen=True)
class Case:
    """A receiver that works, and a way to see what reached the other side."""

    kind: str
    receiver: Receiver
    server: HookServer
    caplog: pytest.LogCaptureFixture

    def arrived(self) -> list[str]:
        """What the other side knows each event by: an id if its protocol has one, else all that it got."""
        logged = [
            str(record.args[4])
            for record in self.caplog.records
            if record.name == LOG_NAME and isinstance(record.args, tuple)
        ]
        return logged + [self._identity(received) for received in self.server.received]

    def _identity(self, received: Received) -> str:
        if self.kind == "webhook":
            return received.headers["webhook-id"]
        body = json.loads(received.body)
        if self.kind == "pagerduty":
            return str(body["dedup_key"])
        if self.kind == "alertmanager":
            return str(body[0]["annotations"]["event_id"])
        return received.body.decode()


@pytest.fixture(params=sorted(BUILDERS))
def case(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Case]:
    needs(request.param)
    caplog.set_level(logging.INFO, logger=LOG_NAME)
    with HookServer() as server:
        yield Case(request.param, build(**values_for(request.param, server.url)), server, caplog)


@pytest.fixture
def server() -> Iterator[HookServer]:
    with HookServer() as running:
        yield running


def failure(receiver: Receiver) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        receiver.send(entry(), NOW)
    return caught.value


class TestEveryKind:
    def test_it_knows_its_name_and_limits(self, case: Case) -> None:
        assert case.receiver.name == "oncall"
        assert case.receiver.send_resolved is True
        assert case.receiver.max_age > timedelta(0)

    @pytest.mark.parametrize("transition", [firing(), resolved(), resolved(version=None)])
    def test_one_call_tells_one_event_once(self, case: Case, transition: Transition) -> None:
        event = entry(transition=transition)
        before = deepcopy(event)
        case.receiver.send(event, NOW)

        (arrived,) = case.arrived()
        if case.kind in ("webhook", "log", "alertmanager"):
            assert arrived == event.event_id
        assert event == before

    def test_the_same_event_told_again_is_known_for_the_same(self, case: Case) -> None:
        case.receiver.send(entry(), NOW)
        case.receiver.send(replace(entry(), attempts=1), NOW + timedelta(seconds=2))

        first, second = case.arrived()
        assert first == second

    def test_an_event_about_several_alerts_is_one_message_with_each_of_them(self, case: Case) -> None:
        identities = [replace(IDENTITY, model=model) for model in ("worst-model", "other-model")]
        told = [firing(identity=identity) for identity in identities]
        case.receiver.send(replace(entry(), payload=payload_of(*told)), NOW)

        assert len(case.arrived()) == 1
        text = case.caplog.text + "".join(received.body.decode() for received in case.server.received)
        assert "worst-model" in text
        assert "other-model" in text

    def test_what_it_says_is_made_of_the_stored_payload_alone(self, case: Case) -> None:
        """A replay, weeks later and by another release's receiver, tells the same event."""
        stored = json.loads(entry().payload)
        stored["data"]["summary"] = stored["data"]["alerts"][0]["headline"] = "as it was stored"
        case.receiver.send(replace(entry(), payload=json.dumps(stored)), NOW + timedelta(days=30))

        text = case.caplog.text + "".join(received.body.decode() for received in case.server.received)
        assert "as it was stored" in text

    def test_neither_the_receiver_nor_the_log_shows_a_secret(self, case: Case) -> None:
        case.caplog.set_level(logging.DEBUG)
        case.receiver.send(entry(), NOW)

        for shown in (repr(case.receiver), str(case.receiver), case.caplog.text):
            assert "T0KEN" not in shown
            assert KEY not in shown

    def test_foreign_names_cannot_break_out_of_the_line(self, case: Case) -> None:
        identity = replace(IDENTITY, model="m\r\nWARNING forged line\x1b[2J")
        case.receiver.send(entry(transition=firing(finding("fc\n2"), identity=identity)), NOW)

        told = [record.getMessage() for record in case.caplog.records if record.name == LOG_NAME]
        told += [text for received in case.server.received for text in texts(json.loads(received.body))]
        assert any("m WARNING forged line[2J" in text.replace("［", "[") for text in told)
        for text in told:
            assert not {"\r", "\x1b"} & set(text)
            assert "\nWARNING" not in text

    def test_the_end_of_an_alert_is_told_in_words_or_by_the_protocol(self, case: Case) -> None:
        case.receiver.send(entry(transition=firing()), NOW)
        case.receiver.send(entry(transition=resolved()), NOW + timedelta(hours=1))

        told = [record.getMessage() for record in case.caplog.records if record.name == LOG_NAME]
        told += [received.body.decode() for received in case.server.received]
        if case.kind == "alertmanager":
            assert json.loads(told[1])[0]["endsAt"] == "2026-03-01T13:00:00Z"
        else:
            assert "resolve" not in told[0].lower()
            assert "resolve" in told[1].lower()


def texts(value: object) -> Iterator[str]:
    """All text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)


@pytest.mark.parametrize("kind", REMOTE)
class TestEveryKindBehindANetwork:
    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_an_answer_of_the_200s_is_a_delivery(self, server: HookServer, kind: str, status: int) -> None:
        needs(kind)
        server.answer = Answer(status)

        build(**values_for(kind, server.url)).send(entry(), NOW)
        assert len(server.received) == 1

    @pytest.mark.parametrize(
        ("status", "reason", "retryable"),
        [
            (301, DeliveryReason.REDIRECTED, True),
            (307, DeliveryReason.REDIRECTED, True),
            (400, DeliveryReason.CLIENT_ERROR, False),
            (404, DeliveryReason.CLIENT_ERROR, True),
            (410, DeliveryReason.GONE, False),
            (413, DeliveryReason.CLIENT_ERROR, False),
            (429, DeliveryReason.RATE_LIMITED, True),
            (500, DeliveryReason.SERVER_ERROR, True),
            (503, DeliveryReason.SERVER_ERROR, True),
        ],
    )
    def test_any_other_answer_is_one_failed_attempt_of_its_class(
        self,
        server: HookServer,
        caplog: pytest.LogCaptureFixture,
        kind: str,
        status: int,
        reason: DeliveryReason,
        retryable: bool,
    ) -> None:
        needs(kind)
        caplog.set_level(logging.DEBUG)
        with HookServer() as elsewhere:
            headers = {"Retry-After": "7", "Location": f"{elsewhere.url}/stolen"}
            server.answer = Answer(status, headers, b"B0DY")
            error = failure(build(**values_for(kind, server.url)))

            assert elsewhere.received == []
        assert len(server.received) == 1
        assert (error.reason, error.retryable) == (reason, retryable)
        assert error.retry_after == (timedelta(seconds=7) if retryable else None)
        told = f"{error!r} {error.detail} {''.join(traceback.format_exception(error))} {caplog.text}"
        for secret in ("T0KEN0", "B0DY", KEY, "SIGNINGK", "stolen"):
            assert secret not in told

    def test_a_receiver_that_is_away_or_silent_is_tried_again(
        self, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        needs(kind)
        caplog.set_level(logging.DEBUG)
        with socket.create_server(("127.0.0.1", 0)) as listener:  # Accepts by its backlog and never answers.
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            silent = failure(build(**values_for(kind, url), timeout="1s"))
        away = failure(build(**values_for(kind, url), timeout="1s"))

        assert (silent.reason, silent.retryable) == (DeliveryReason.TIMEOUT, True)
        assert (away.reason, away.retryable) == (DeliveryReason.CONNECTION, True)
        assert "T0KEN0" not in f"{silent!r} {away!r} {caplog.text}"

    def test_a_certificate_that_nobody_signed_is_refused(
        self, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        needs(kind)
        caplog.set_level(logging.DEBUG)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        with HookServer(context) as server:
            error = failure(build(**values_for(kind, server.url)))

            assert server.received == []
        assert (error.reason, error.retryable) == (DeliveryReason.TLS, True)
        assert "T0KEN0" not in f"{error!r} {''.join(traceback.format_exception(error))} {caplog.text}"


@pytest.mark.parametrize("kind", POSTING)
class TestEveryKindThatPosts:
    def test_a_private_address_is_refused_when_it_is_configured(self, server: HookServer, kind: str) -> None:
        values = {**values_for(kind, server.url), "allow_private_cidrs": ()}

        with pytest.raises(ReceiversError, match="add it to allow_private_cidrs") as caught:
            build(**values)
        assert "T0KEN" not in str(caught.value)

    def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_used(
        self, server: HookServer, kind: str
    ) -> None:
        values = values_for(kind, f"http://localhost:{server.port}")
        error = failure(build(**{**values, "allow_private_cidrs": ()}))

        assert (error.reason, error.retryable) == (DeliveryReason.FORBIDDEN_ADDRESS, False)
        assert server.received == []

    def test_secrets_are_read_from_their_files_at_each_attempt(
        self, server: HookServer, tmp_path: Path, kind: str
    ) -> None:
        values = values_for(kind, server.url)
        key = "routing_key" if kind == "pagerduty" else "urls" if kind == "alertmanager" else "url"
        file = tmp_path / "secret"
        text = values[key][0] if isinstance(values[key], list) else values[key]  # type: ignore[index]
        file.write_text(f"{text}\n")
        given = {"file": str(file)}
        receiver = build(**{**values, key: [given] if key == "urls" else given})
        receiver.send(entry(), NOW)
        file.unlink()

        error = failure(receiver)
        assert (error.reason, error.retryable) == (DeliveryReason.BAD_SECRET, True)
        assert str(file) in error.detail
        assert len(server.received) == 1


class TestAlertmanager:
    def receiver(self, *urls: str, **values: object) -> Receiver:
        return build(kind="alertmanager", urls=list(urls), allow_private_cidrs=LOOPBACK, **values)

    def test_each_peer_is_told_below_its_own_path(self) -> None:
        with HookServer() as one, HookServer() as other:
            self.receiver(f"{one.url}/", f"{other.url}/am").send(entry(), NOW)

            assert [received.path for received in one.received] == ["/api/v2/alerts"]
            assert [received.path for received in other.received] == ["/am/api/v2/alerts"]
            assert one.received[0].body == other.received[0].body

    def test_credentials_in_an_address_are_sent_as_basic_authentication(self, server: HookServer) -> None:
        self.receiver(server.url.replace("://", "://user:pass@")).send(entry(), NOW)

        expected = base64.b64encode(b"user:pass").decode()
        assert server.received[0].headers["authorization"] == f"Basic {expected}"

    def test_one_peer_that_takes_it_is_enough_and_the_others_are_logged(
        self, server: HookServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with HookServer() as failing:
            failing.answer = Answer(500)
            self.receiver(failing.url, server.url).send(entry(), NOW)

        assert len(server.received) == 1
        assert f"127.0.0.1:{failing.port} answered 500" in caplog.text

    def test_when_none_takes_it_the_one_that_may_later_decides(self, server: HookServer) -> None:
        server.answer = Answer(400)
        with HookServer() as busy:
            busy.answer = Answer(429, {"Retry-After": "30"})
            error = failure(self.receiver(server.url, busy.url))

        assert (error.reason, error.retryable) == (DeliveryReason.RATE_LIMITED, True)
        assert error.retry_after == timedelta(seconds=30)
        assert f":{server.port} answered 400; http://127.0.0.1:{busy.port} answered 429" in error.detail

    def test_a_firing_alert_is_held_for_as_long_as_configured(self, server: HookServer) -> None:
        self.receiver(server.url, hold="36h").send(entry(), NOW)

        (alert, *_) = json.loads(server.received[0].body)
        assert (alert["startsAt"], alert["endsAt"]) == ("2026-03-01T12:00:00Z", "2026-03-03T00:00:00Z")


class TestSlack:
    def test_a_workflow_gets_one_variable_in_place_of_blocks(self, server: HookServer) -> None:
        values = {"kind": "slack", "allow_private_cidrs": LOOPBACK}
        build(url=f"{server.url}/triggers/T1/2/{TOKEN}", **values).send(entry(), NOW)
        build(url=f"{server.url}/services/T1/B2/{TOKEN}", **values).send(entry(), NOW)

        workflow, channel = (json.loads(received.body) for received in server.received)
        assert list(workflow) == ["text"]
        assert workflow["text"].startswith("CRITICAL: digits-mlp v5 (latest): layer fc2 is broken")
        assert channel["blocks"]


class TestPagerDuty:
    def test_a_key_of_another_length_is_refused_before_the_first_event(self) -> None:
        with pytest.raises(ReceiversError, match="must have 32 characters, this one has 8") as caught:
            build(kind="pagerduty", routing_key="T0KEN678")
        assert "T0KEN" not in str(caught.value)

    def test_all_events_of_a_group_are_about_one_incident(self, server: HookServer) -> None:
        receiver = build(**values_for("pagerduty", server.url))
        for transition in (firing(), resolved()):
            receiver.send(entry(transition=transition), NOW)

        first, last = (json.loads(received.body) for received in server.received)
        assert (first["event_action"], last["event_action"]) == ("trigger", "resolve")
        assert first["dedup_key"] == last["dedup_key"]
        assert first["routing_key"] == last["routing_key"] == TOKEN


class TestApprise:
    def test_its_json_target_gets_title_text_and_type(self, server: HookServer) -> None:
        needs("apprise")
        receiver = build(**values_for("apprise", server.url))
        for transition in (firing(), resolved()):
            receiver.send(entry(transition=transition), NOW)

        first, last = (json.loads(received.body) for received in server.received)
        assert (first["title"], first["type"]) == ("CRITICAL: digits-mlp v5 (latest)", "failure")
        assert first["message"].startswith(
            "digits-mlp v5 (latest): layer fc2 is broken: relative change 0.92"
        )
        assert (last["title"], last["type"]) == ("RESOLVED: digits-mlp v6 (latest)", "success")

    def test_text_that_is_no_address_of_a_service_is_refused(self) -> None:
        needs("apprise")
        for url in ("T0KEN", "nothing://T0KEN"):
            with pytest.raises(ReceiversError, match="not one URL that Apprise understands") as caught:
                build(kind="apprise", url=url)
            assert "T0KEN" not in str(caught.value)

    def test_without_the_library_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "apprise", None)
        with pytest.raises(ReceiversError, match=r"needs the package apprise: .*pip install .*\[apprise\]"):
            build(kind="apprise", url="json://host")


class TestWebhook:
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
        assert body["data"]["alerts"][0]["model"] == "größe-模型"

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

        # A heartbeat is told of no alert: build_heartbeats.
        assert set(BUILDERS) == kinds - {"heartbeat"}
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

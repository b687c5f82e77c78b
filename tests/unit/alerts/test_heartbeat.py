"""Signs of life: what is asked for, when, and what is told of failures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from hookserver import Answer, HookServer
from layerwatch.alerts.errors import DeliveryError, DeliveryReason, ReceiversError
from layerwatch.alerts.heartbeat import HeartbeatTelemetry, Pulses, wait_after_failure
from layerwatch.alerts.receivers import build_heartbeats, build_receivers
from layerwatch.alerts.receivers.heartbeat import HeartbeatReceiver
from layerwatch_testing.sending import LOOPBACK, TOKEN, settings_of
from layerwatch_testing.waiting import until

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SOON, NEVER = "10ms", "1h"


def heartbeat(url: str, /, **values: object) -> HeartbeatReceiver:
    settings = settings_of("heartbeat", url, allow_private_cidrs=LOOPBACK, **values)
    return build_heartbeats([settings])[0]


@pytest.fixture
def server() -> Iterator[HookServer]:
    with HookServer() as running:
        yield running


class TestReceiver:
    def test_a_sign_of_life_is_a_get_without_a_body(self, server: HookServer) -> None:
        heartbeat(server.url).beat(True, NOW)

        (received,) = server.received
        assert (received.method, received.path, received.body) == ("GET", f"/ping/{TOKEN}", b"")
        assert received.headers["user-agent"].startswith("layerwatch/")
        assert "content-type" not in received.headers

    def test_a_daemon_that_is_late_is_silent(self, server: HookServer) -> None:
        heartbeat(server.url).beat(False, NOW)

        assert server.received == []

    @pytest.mark.parametrize(
        ("path", "failed"),
        [("/ping/u1", "/ping/u1/fail"), ("/u1/", "/u1/fail"), ("", "/fail"), ("/p?k=v", "/p/fail?k=v")],
    )
    def test_or_says_so_where_that_is_wanted(self, server: HookServer, path: str, failed: str) -> None:
        receiver = heartbeat("", url=server.url + path, report_failure=True)
        receiver.beat(False, NOW)
        receiver.beat(True, NOW)

        assert [received.path for received in server.received] == [failed, path or "/"]

    def test_a_service_that_does_not_take_it_is_a_failure_of_its_class(self, server: HookServer) -> None:
        for status, reason in ((404, DeliveryReason.CLIENT_ERROR), (410, DeliveryReason.GONE)):
            server.answer = Answer(status)
            with pytest.raises(DeliveryError) as caught:
                heartbeat(server.url).beat(True, NOW)
            assert caught.value.reason is reason


class TestBuilding:
    def test_heartbeats_are_no_receivers_of_alerts(self) -> None:
        settings = [
            settings_of("heartbeat", "https://hc.example"),
            settings_of("webhook", "https://hooks.example", name="w"),
        ]

        assert list(build_receivers(settings)) == ["w"]
        assert [one.name for one in build_heartbeats(settings)] == ["oncall"]

    def test_settings_reach_it(self) -> None:
        (built,) = build_heartbeats(
            [settings_of("heartbeat", "https://hc.example", every="5m", timeout="3s", report_failure=True)]
        )

        assert (built.every, built.posting.timeout) == (timedelta(minutes=5), timedelta(seconds=3))
        assert built.report_failure

    def test_every_problem_is_told_and_no_secret(self) -> None:
        with pytest.raises(ReceiversError) as caught:
            build_heartbeats(
                [settings_of("heartbeat", f"http://10.0.0.{number}", name=f"h{number}") for number in (1, 2)]
            )

        assert [problem.split(":")[0] for problem in caught.value.problems] == ["h1", "h2"]
        assert "T0KEN" not in str(caught.value)


class Running:
    """Pulses with a switch for health, and their counters."""

    def __init__(self) -> None:
        self.healthy = True
        self.registry = CollectorRegistry()
        self.pulses = Pulses(lambda: self.healthy, HeartbeatTelemetry(self.registry), lambda: NOW)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"layerwatch_heartbeat{name}", {"receiver": "oncall", **labels})


@pytest.fixture
def running() -> Iterator[Running]:
    one = Running()
    yield one
    one.pulses.stop()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("layerwatch-heartbeat")]


class TestPulses:
    def test_they_go_on_and_are_counted(self, server: HookServer, running: Running) -> None:
        running.pulses.follow([heartbeat(server.url, every=SOON)])
        until(lambda: len(server.received) >= 3, "three signs of life")

        until(lambda: (running.value("s_total") or 0) >= 2, "they are counted")
        assert running.value("_last_success_timestamp_seconds") == NOW.timestamp()
        assert running.value("_failures_total", reason="timeout") == 0

    def test_a_start_alone_is_no_sign_of_life(self, server: HookServer, running: Running) -> None:
        running.pulses.follow([heartbeat(server.url, every=NEVER)])
        running.pulses.stop()

        until(lambda: not threads(), "the thread has ended")
        assert server.received == []

    def test_they_stop_while_the_daemon_is_late_and_go_on_after(
        self, server: HookServer, running: Running, caplog: pytest.LogCaptureFixture
    ) -> None:
        running.healthy = False
        running.pulses.follow([heartbeat(server.url, every=SOON)])
        until(lambda: "the daemon is late" in caplog.text, "it was asked")
        assert server.received == []

        running.healthy = True
        until(lambda: server.received, "it goes on")
        assert "healthy again" in caplog.text

    def test_a_reported_failure_is_no_success(self, server: HookServer, running: Running) -> None:
        running.healthy = False
        running.pulses.follow([heartbeat(server.url, every=SOON, report_failure=True)])
        until(lambda: (running.value("s_total") or 0) >= 1, "it was reported")

        assert {received.path for received in server.received} == {f"/ping/{TOKEN}/fail"}
        assert running.value("_last_success_timestamp_seconds") == 0

    def test_a_slow_service_delays_no_other(self, server: HookServer, running: Running) -> None:
        with HookServer() as slow:
            slow.answer = Answer(500, {"Retry-After": "3600"})
            running.pulses.follow(
                [heartbeat(slow.url, every=SOON, name="slow"), heartbeat(server.url, every=SOON)]
            )
            until(lambda: len(server.received) >= 3, "the other goes on")

            assert len(slow.received) == 1

    @pytest.mark.parametrize(
        ("failures", "retryable", "asked", "shortest", "longest"),
        [
            # 1 s, doubled for each failure, of which half may be taken away.
            (1, True, None, 0.5, 1),
            (4, True, None, 4, 8),
            (1000, True, None, 600, 600),
            (1, False, None, 600, 600),
            (1, True, 30, 30, 30),
            (1, True, 7200, 7200, 7200),
        ],
    )
    def test_a_failure_that_may_pass_is_tried_again_before_the_next_is_due(
        self, failures: int, retryable: bool, asked: float | None, shortest: float, longest: float
    ) -> None:
        wait = None if asked is None else timedelta(seconds=asked)
        error = DeliveryError(DeliveryReason.SERVER_ERROR, "x", retryable=retryable, retry_after=wait)

        seconds = wait_after_failure(
            heartbeat("http://127.0.0.1", every="10m"), failures, error
        ).total_seconds()
        assert shortest <= seconds <= longest

    def test_a_failure_that_goes_on_is_told_once(
        self, server: HookServer, running: Running, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        server.answer = Answer(503)
        running.pulses.follow([heartbeat(server.url, every=SOON)])
        until(
            lambda: (running.value("_failures_total", reason="server_error") or 0) >= 3, "it is tried again"
        )

        assert caplog.text.count("answered 503") == 1
        assert "T0KEN" not in caplog.text

    def test_a_reload_leaves_what_did_not_change_alone(self, server: HookServer, running: Running) -> None:
        running.pulses.follow([heartbeat(server.url, every=SOON)])
        before = [thread for thread in threading.enumerate() if thread.name == "layerwatch-heartbeat-oncall"]
        running.pulses.follow([heartbeat(server.url, every=SOON), heartbeat(server.url, name="new")])

        assert before == [
            thread for thread in threading.enumerate() if thread.name == "layerwatch-heartbeat-oncall"
        ]
        assert "layerwatch-heartbeat-new" in threads()

        running.pulses.follow([heartbeat(server.url, name="new")])
        until(lambda: threads() == ["layerwatch-heartbeat-new"], "the one that went is ended")
        assert running.value("_last_success_timestamp_seconds") is None

    def test_a_broken_health_check_does_not_end_them(
        self, server: HookServer, running: Running, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken() -> bool:
            raise RuntimeError("broken")

        running.pulses = Pulses(broken, HeartbeatTelemetry(CollectorRegistry()), lambda: NOW)
        running.pulses.follow([heartbeat(server.url, every=SOON)])

        until(lambda: caplog.text.count("unexpected error in heartbeat oncall") >= 2, "it goes on")
        assert server.received == []

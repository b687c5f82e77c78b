"""A real Alertmanager is told of alerts: it shows, groups and resolves them, and sends them on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from alertvalues import entry, finding
from hookserver import HookServer
from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, AlertState, Observation, Transition
from layerwatch.alerts.receivers.alertmanager import ALERT_NAME, AlertmanagerReceiver
from layerwatch.alerts.receivers.posting import Posting
from layerwatch.config.secrets import Secret
from layerwatch.metrics.findings import RuleGroup, Severity, Verdict
from layerwatch_testing.servers.alertmanager import AlertmanagerServer
from layerwatch_testing.waiting import until

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        shutil.which("prometheus-alertmanager") is None and shutil.which("alertmanager") is None,
        reason="Alertmanager is not installed: tests/install-servers.sh installs it",
    ),
]

# Alertmanager goes by its own clock, so these events are of now; whole seconds as it prints them.
NOW = datetime.now(tz=UTC).replace(microsecond=0) - timedelta(seconds=30)


@pytest.fixture
def hook() -> Iterator[HookServer]:
    with HookServer() as running:
        yield running


@pytest.fixture
def alertmanager(hook: HookServer, tmp_path: Path) -> Iterator[AlertmanagerServer]:
    configuration = {
        "route": {
            "receiver": "hook",
            "group_by": ["registry", "model"],
            "group_wait": "1s",
            "group_interval": "1s",
        },
        "receivers": [{"name": "hook", "webhook_configs": [{"url": f"{hook.url}/", "send_resolved": True}]}],
    }
    with AlertmanagerServer(tmp_path / "alertmanager", configuration) as running:
        yield running


class Story:
    """One alert, told as its life goes on."""

    def __init__(self, receiver: AlertmanagerReceiver, ref: str, model: str = "digits") -> None:
        self.receiver = receiver
        self.identity = AlertIdentity("local", model, ref, RuleGroup.WEIGHTS)
        self.state: AlertState | None = None

    def look(self, *severities: Severity, at: datetime = NOW) -> None:
        """The current version has findings of these severities; the event that follows is delivered."""
        observation = Observation(
            identity=self.identity,
            version="v5",
            fingerprint="sha256:5",
            verdict=Verdict.FAIL if severities else Verdict.PASS,
            findings=tuple(finding(f"fc{number}", each) for number, each in enumerate(severities)),
        )
        self.state, (transition,) = advance(self.state, observation, at, timedelta(hours=12))
        self._tell(transition, at)

    def _tell(self, transition: Transition, at: datetime) -> None:
        self.receiver.send(entry(transition=transition), at)


@pytest.fixture
def receiver(alertmanager: AlertmanagerServer) -> AlertmanagerReceiver:
    posting = Posting(AddressPolicy.from_cidrs(["127.0.0.0/8"]), timedelta(seconds=10))
    url = Secret(alertmanager.url)
    return AlertmanagerReceiver("am", (url,), timedelta(hours=24), posting, timedelta(days=3))


def notifications(hook: HookServer) -> list[dict[str, Any]]:
    return [json.loads(received.body) for received in hook.received]


def shown(alertmanager: AlertmanagerServer) -> list[tuple[str, str]]:
    return sorted((alert["labels"]["ref"], alert["labels"]["severity"]) for alert in alertmanager.alerts())


def test_an_alert_is_shown_with_all_that_was_said_and_sent_on(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver, hook: HookServer
) -> None:
    Story(receiver, "latest").look(Severity.CRITICAL)

    (alert,) = alertmanager.alerts()
    assert alert["status"]["state"] in ("active", "unprocessed")
    assert alert["labels"] == {
        "alertname": ALERT_NAME,
        "registry": "local",
        "model": "digits",
        "ref": "latest",
        "rule_group": "weights",
        "severity": "critical",
    }
    assert alert["annotations"]["summary"].startswith("digits v5 (latest): layer fc0 is broken")
    assert "Findings, worst first:" in alert["annotations"]["description"]
    assert datetime.fromisoformat(alert["startsAt"]) == NOW
    assert datetime.fromisoformat(alert["endsAt"]) == NOW + timedelta(hours=24)

    until(lambda: len(hook.received) >= 1, "the notification")
    (notification,) = notifications(hook)
    assert notification["status"] == "firing"
    assert [each["labels"]["severity"] for each in notification["alerts"]] == ["critical"]


def test_refs_of_one_model_are_one_notification_and_another_model_another(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver, hook: HookServer
) -> None:
    for ref, model in (("latest", "digits"), ("@champion", "digits"), ("latest", 'say "no" \\ é')):
        Story(receiver, ref, model).look(Severity.CRITICAL)

    assert len(alertmanager.alerts()) == 3

    def groups() -> dict[str, list[str]]:
        """The refs in the last notification about each model."""
        return {
            each["groupLabels"]["model"]: sorted(alert["labels"]["ref"] for alert in each["alerts"])
            for each in notifications(hook)
        }

    expected = {"digits": ["@champion", "latest"], 'say "no" \\ é': ["latest"]}
    until(lambda: groups() == expected, "one notification for each model")


def test_the_end_is_shown_and_sent_on_once(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver, hook: HookServer
) -> None:
    story = Story(receiver, "latest")
    story.look(Severity.CRITICAL)
    until(lambda: len(hook.received) >= 1, "the notification")
    story.look(at=NOW + timedelta(seconds=10))

    assert alertmanager.alerts() == []
    until(lambda: len(hook.received) >= 2, "the notification of the end")
    last = notifications(hook)[1]
    assert last["status"] == "resolved"
    assert [each["labels"]["severity"] for each in last["alerts"]] == ["critical"]


def test_an_alert_that_becomes_worse_is_shown_once_as_it_is_now(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    story = Story(receiver, "latest")
    story.look(Severity.WARNING)
    assert shown(alertmanager) == [("latest", "warning")]

    story.look(Severity.CRITICAL, at=NOW + timedelta(seconds=10))
    assert shown(alertmanager) == [("latest", "critical")]

    story.look(at=NOW + timedelta(seconds=20))
    assert shown(alertmanager) == []


def test_the_same_event_told_twice_is_one_alert(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    for _ in range(2):
        Story(receiver, "latest").look(Severity.CRITICAL)

    assert shown(alertmanager) == [("latest", "critical")]


def test_an_alert_that_is_not_told_again_ends_with_its_hold(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    Story(receiver, "latest").look(Severity.CRITICAL, at=NOW - timedelta(hours=25))

    assert alertmanager.alerts() == []


def test_a_repetition_extends_the_hold(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    story = Story(receiver, "latest")
    story.look(Severity.CRITICAL, at=NOW - timedelta(hours=13))
    story.look(Severity.CRITICAL, at=NOW)

    (alert,) = alertmanager.alerts()
    assert datetime.fromisoformat(alert["endsAt"]) == NOW + timedelta(hours=24)
    assert datetime.fromisoformat(alert["startsAt"]) == NOW - timedelta(hours=13)

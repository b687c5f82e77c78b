"""A real Alertmanager is told of alerts: it shows, groups and resolves them, and sends them on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from alertvalues import entry, finding, payload_of, seen
from firedalerts import ended, fired
from hookserver import HookServer
from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, AlertState, Transition
from layerwatch.alerts.payload import AlertContext
from layerwatch.alerts.receivers.alertmanager import ALERT_NAME, AlertmanagerReceiver
from layerwatch.alerts.receivers.posting import Posting
from layerwatch.config.secrets import Secret
from layerwatch.daemon.resending import Resender
from layerwatch.daemon.store import alerts
from layerwatch.daemon.store.database import Database
from layerwatch.metrics.findings import RuleGroup, Severity
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


def configuration(hook: HookServer) -> Mapping[str, Any]:
    return {
        "route": {
            "receiver": "hook",
            "group_by": ["registry", "model"],
            "group_wait": "1s",
            "group_interval": "1s",
        },
        "receivers": [{"name": "hook", "webhook_configs": [{"url": f"{hook.url}/", "send_resolved": True}]}],
    }


@pytest.fixture
def alertmanager(hook: HookServer, tmp_path: Path) -> Iterator[AlertmanagerServer]:
    with AlertmanagerServer(tmp_path / "alertmanager", configuration(hook)) as running:
        yield running


def led_to(server: AlertmanagerServer) -> AlertmanagerReceiver:
    posting = Posting(AddressPolicy.from_cidrs(["127.0.0.0/8"]), timedelta(seconds=10))
    return AlertmanagerReceiver("am", (Secret(server.url),), timedelta(hours=24), posting, timedelta(days=3))


@pytest.fixture
def receiver(alertmanager: AlertmanagerServer) -> AlertmanagerReceiver:
    return led_to(alertmanager)


class Story:
    """One alert as its life goes on."""

    def __init__(self, ref: str, model: str = "digits", group: RuleGroup = RuleGroup.WEIGHTS) -> None:
        self.identity = AlertIdentity("local", model, ref, group)
        self.state: AlertState | None = None

    def look(self, *severities: Severity, at: datetime = NOW) -> Transition:
        """What follows when the current version has findings of these severities."""
        found = [
            replace(finding(f"fc{number}", severity), group=self.identity.group)
            for number, severity in enumerate(severities)
        ]
        self.state, (transition,) = advance(self.state, seen(*found, identity=self.identity), at)
        return transition


def tell(
    receiver: AlertmanagerReceiver,
    *transitions: Transition,
    at: datetime = NOW,
    milder: tuple[Severity, ...] = (),
) -> None:
    """Deliver one event about all of them."""
    context = AlertContext("v4", "finetuned", "parent", external_url="https://lw.example", milder=milder)
    event = replace(entry(), payload=payload_of(*transitions, context=context))
    receiver.send(event, at)


def notifications(hook: HookServer) -> list[dict[str, Any]]:
    return [json.loads(received.body) for received in hook.received]


def shown(alertmanager: AlertmanagerServer) -> list[tuple[str, str]]:
    return sorted((alert["labels"]["ref"], alert["labels"]["severity"]) for alert in alertmanager.alerts())


def test_an_alert_is_shown_with_all_that_was_said_and_sent_on(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver, hook: HookServer
) -> None:
    told = Story("latest").look(Severity.CRITICAL)
    tell(receiver, told)

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
    annotations = alert["annotations"]
    assert annotations["summary"].startswith("digits v5 (latest, against v4): layer fc0 is broken")
    assert "Findings, worst first:" in annotations["description"]
    assert (annotations["event_id"], annotations["version"]) == (told.event_id, "v5")
    assert annotations["report_url"] == alert["generatorURL"]
    assert alert["generatorURL"] == "https://lw.example/report?registry=local&model=digits&ref=latest"
    assert datetime.fromisoformat(alert["startsAt"]) == NOW
    assert datetime.fromisoformat(alert["endsAt"]) == NOW + timedelta(hours=24)

    until(lambda: len(hook.received) >= 1, "the notification")
    (notification,) = notifications(hook)
    assert notification["status"] == "firing"
    assert [each["labels"]["severity"] for each in notification["alerts"]] == ["critical"]


def test_all_alerts_of_an_event_arrive_with_one_request_and_are_grouped_by_model(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver, hook: HookServer
) -> None:
    told = [
        Story(ref, model, group).look(Severity.CRITICAL)
        for ref, model, group in (
            ("latest", "digits", RuleGroup.WEIGHTS),
            ("latest", "digits", RuleGroup.EXAMINATION),
            ("@champion", "digits", RuleGroup.WEIGHTS),
            ("latest", 'say "no" \\ é', RuleGroup.WEIGHTS),
        )
    ]
    tell(receiver, *told)

    assert len(alertmanager.alerts()) == 4

    def groups() -> dict[str, list[tuple[str, str]]]:
        """Ref and group of rules of the alerts in the last notification about each model."""
        return {
            each["groupLabels"]["model"]: sorted(
                (alert["labels"]["ref"], alert["labels"]["rule_group"]) for alert in each["alerts"]
            )
            for each in notifications(hook)
        }

    expected = {
        "digits": [("@champion", "weights"), ("latest", "examination"), ("latest", "weights")],
        'say "no" \\ é': [("latest", "weights")],
    }
    until(lambda: groups() == expected, "one notification for each model")


def test_an_event_in_which_one_alert_ended_ends_that_one_only(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    one, other = Story("latest"), Story("@champion")
    tell(receiver, one.look(Severity.CRITICAL), other.look(Severity.WARNING))
    assert shown(alertmanager) == [("@champion", "warning"), ("latest", "critical")]

    more = one.look(Severity.CRITICAL, Severity.CRITICAL)
    tell(receiver, more, other.look(at=NOW + timedelta(seconds=10)), at=NOW + timedelta(seconds=10))
    assert shown(alertmanager) == [("latest", "critical")]


def test_the_end_is_shown_and_sent_on_once(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver, hook: HookServer
) -> None:
    story = Story("latest")
    tell(receiver, story.look(Severity.CRITICAL))
    until(lambda: len(hook.received) >= 1, "the notification")
    over = story.look(at=NOW + timedelta(seconds=10))
    for _ in range(3):
        tell(receiver, over, at=NOW + timedelta(seconds=20))

    assert alertmanager.alerts() == []
    until(lambda: len(hook.received) >= 2, "the notification of the end")
    last = notifications(hook)[1]
    assert last["status"] == "resolved"
    assert [each["labels"]["severity"] for each in last["alerts"]] == ["critical"]

    # What follows comes after any second notification of the end.
    tell(receiver, Story("latest", "other").look(Severity.CRITICAL))
    until(lambda: notifications(hook)[-1]["groupLabels"]["model"] == "other", "the other's notification")
    assert [each["status"] for each in notifications(hook)] == ["firing", "resolved", "firing"]


def test_an_alert_that_becomes_worse_is_shown_once_as_it_is_now(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    story = Story("latest")
    tell(receiver, story.look(Severity.WARNING))
    assert shown(alertmanager) == [("latest", "warning")]

    later = NOW + timedelta(seconds=10)
    tell(receiver, story.look(Severity.CRITICAL, at=later), at=later, milder=(Severity.WARNING,))
    assert shown(alertmanager) == [("latest", "critical")]

    later = NOW + timedelta(seconds=20)
    tell(receiver, story.look(at=later), at=later, milder=(Severity.WARNING,))
    assert shown(alertmanager) == []


def test_the_same_event_told_twice_is_one_alert(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    for _ in range(2):
        tell(receiver, Story("latest").look(Severity.CRITICAL))

    assert shown(alertmanager) == [("latest", "critical")]


def test_an_alert_that_is_not_told_again_ends_with_its_hold(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    before = NOW - timedelta(hours=25)
    tell(receiver, Story("latest").look(Severity.CRITICAL, at=before), at=before)

    assert alertmanager.alerts() == []


def test_what_is_told_again_is_held_for_longer_and_began_when_it_began(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    before = NOW - timedelta(hours=13)
    told = Story("latest").look(Severity.CRITICAL, at=before)
    tell(receiver, told, at=before)
    tell(receiver, told, at=NOW)

    (alert,) = alertmanager.alerts()
    assert datetime.fromisoformat(alert["endsAt"]) == NOW + timedelta(hours=24)
    assert datetime.fromisoformat(alert["startsAt"]) == before


def test_an_alert_that_ended_under_a_clock_that_was_set_back_ends_here_too(
    alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
) -> None:
    story = Story("latest")
    tell(receiver, story.look(Severity.CRITICAL))
    yesterday = NOW - timedelta(days=1)
    tell(receiver, story.look(at=yesterday), at=yesterday)

    assert alertmanager.alerts() == []


class TestResending:
    """What the daemon does each minute, because an Alertmanager keeps no alert over a restart."""

    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Database]:
        opened = Database.open(f"sqlite:///{tmp_path / 'layerwatch.db'}")
        yield opened
        opened.close()

    def resender(self, database: Database, receiver: AlertmanagerReceiver) -> Resender:
        return Resender(database, lambda: {"am": receiver}, lambda: NOW)

    def test_an_alertmanager_that_was_restarted_shows_everything_again_after_one_turn(
        self, database: Database, hook: HookServer, tmp_path: Path
    ) -> None:
        with database.write() as connection:
            for ref, severity in (("latest", Severity.CRITICAL), ("@champion", Severity.WARNING)):
                state = fired(connection, "prod/fraud", ref, severity=severity, now=NOW)
                alerts.save_told_to(connection, [("am", state)])
        server = AlertmanagerServer(tmp_path / "alertmanager", configuration(hook))
        resender = self.resender(database, led_to(server))
        expected = [("@champion", "warning"), ("latest", "critical")]
        with server:
            assert resender.turn() == "resend: 2 alerts"
            assert shown(server) == expected
            until(lambda: len(hook.received) >= 1, "the notification")
        with server:
            assert shown(server) == []
            assert resender.turn() == "resend: 2 alerts"
            assert shown(server) == expected
            (alert, _) = server.alerts()
            assert datetime.fromisoformat(alert["startsAt"]) == NOW

            # What follows comes after any second notification of what it knew before.
            tell(led_to(server), Story("latest", "other").look(Severity.CRITICAL))
            until(lambda: notifications(hook)[-1]["groupLabels"]["model"] == "other", "the other's")
        assert [each["groupLabels"]["model"] for each in notifications(hook)] == ["fraud", "other"]

    def test_while_it_is_away_a_turn_fails_softly(
        self, database: Database, hook: HookServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with database.write() as connection:
            alerts.save_told_to(connection, [("am", fired(connection, now=NOW))])
        server = AlertmanagerServer(tmp_path / "alertmanager", configuration(hook))

        assert self.resender(database, led_to(server)).turn() == "resend: 0 alerts"
        assert "receiver am was not told again" in caplog.text

    def test_an_end_that_was_told_is_told_again_for_a_while(
        self, database: Database, alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
    ) -> None:
        with database.write() as connection:
            state = fired(connection, "prod/fraud", now=NOW - timedelta(hours=1))
            alerts.save_told_to(connection, [("am", state)])
        resender = self.resender(database, receiver)
        resender.turn()
        assert shown(alertmanager) == [("latest", "critical")]

        with database.write() as connection:
            over = ended(connection, state, now=NOW - timedelta(minutes=14))
            # Told of it, or so the store says; the request that told it was lost.
            alerts.save_told_to(connection, [("am", over)])
        assert resender.turn() == "resend: 1 alerts"
        assert shown(alertmanager) == []

        later = Resender(database, lambda: {"am": receiver}, lambda: NOW + timedelta(minutes=2))
        assert later.turn() == "resend: 0 alerts"

    def test_nothing_is_told_here_that_was_not_told_before(
        self, database: Database, alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
    ) -> None:
        with database.write() as connection:
            fired(connection, "prod/new", now=NOW)
            elsewhere = fired(connection, "prod/elsewhere", now=NOW)
            alerts.save_told_to(connection, [("another", elsewhere)])

        assert self.resender(database, receiver).turn() == "resend: 0 alerts"
        assert alertmanager.alerts() == []

    def test_what_it_holds_is_sent_as_it_is_now_also_while_its_news_is_muted(
        self, database: Database, alertmanager: AlertmanagerServer, receiver: AlertmanagerReceiver
    ) -> None:
        """An alert that is not sent again would end there although it fires."""
        with database.write() as connection:
            mild = fired(connection, "prod/worse", severity=Severity.WARNING, now=NOW)
            alerts.save_told_to(connection, [("am", mild)])
            fired(connection, "prod/worse", severity=Severity.CRITICAL, now=NOW)

        assert self.resender(database, receiver).turn() == "resend: 1 alerts"
        assert [alert["labels"]["severity"] for alert in alertmanager.alerts()] == ["critical"]

    def test_receivers_that_keep_what_they_are_told_are_left_alone(self, database: Database) -> None:
        assert Resender(database, dict, lambda: NOW).turn() == "resend: no receiver forgets"

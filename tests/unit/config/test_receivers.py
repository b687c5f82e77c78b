"""Settings of receivers that are services."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings, secret_problems
from layerwatch.config.receivers import (
    AlertmanagerReceiverSettings,
    AppriseReceiverSettings,
    HeartbeatReceiverSettings,
    PagerDutyReceiverSettings,
)
from layerwatch.config.redaction import dump_redacted

Writer = Callable[[str], Path]

SERVICES = """
alerts:
  receivers:
    - {name: am, kind: alertmanager, urls: ["https://me:hunter2@am-0:9093", {file: am-url}], hold: 36h}
    - {name: pager, kind: pagerduty, routing_key: hunter2}
    - {name: slack, kind: slack, url: "https://hooks.slack.example/services/hunter2"}
    - {name: teams, kind: teams, url: "https://flow.example/?sig=hunter2", allow_private_cidrs: [10.0.0.0/8]}
    - {name: phone, kind: apprise, url: "ntfy://hunter2"}
    - {name: alive, kind: heartbeat, url: "https://hc.example/hunter2", ca_file: ca.pem}
  route: {receiver: am}
"""


def one(text: str) -> str:
    return f"alerts: {{receivers: [{{name: a, {text}}}], route: {{receiver: a}}}}"


def test_every_service_can_be_configured_with_little(write_config: Writer) -> None:
    path = write_config(SERVICES)
    am, pager, _, teams, phone, alive = load_settings(path, {}).alerts.receivers

    assert isinstance(am, AlertmanagerReceiverSettings)
    assert (len(am.urls), am.hold, am.timeout) == (2, timedelta(hours=36), timedelta(seconds=15))
    assert isinstance(pager, PagerDutyReceiverSettings)
    assert pager.url == "https://events.pagerduty.com/v2/enqueue"
    assert isinstance(phone, AppriseReceiverSettings)
    assert (teams.kind, phone.allow_private_cidrs, phone.send_resolved) == ("teams", (), True)
    assert isinstance(alive, HeartbeatReceiverSettings)
    assert (alive.every, alive.ca_file) == (timedelta(minutes=1), path.parent / "ca.pem")


def test_an_alertmanager_holds_alerts_for_three_minutes_at_least(write_config: Writer) -> None:
    text = one("kind: alertmanager, urls: ['http://am'], hold: 3m")
    (receiver,) = load_settings(write_config(text), {}).alerts.receivers
    assert isinstance(receiver, AlertmanagerReceiverSettings)
    assert receiver.hold == timedelta(minutes=3)


def test_no_service_shows_its_secret(write_config: Writer) -> None:
    settings = load_settings(write_config(SERVICES), {})

    for shown in (repr(settings), str(settings), settings.model_dump_json(), dump_redacted(settings)):
        assert "hunter2" not in shown
        assert shown.count("<secret>") >= 7


def test_secrets_in_lists_are_looked_at_too(write_config: Writer) -> None:
    (problem,) = secret_problems(load_settings(write_config(SERVICES), {}))

    assert str(problem.path) == "alerts.receivers[0].urls[1]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: alertmanager, urls: []", r"alerts\.receivers\[0\]\.urls"),
        ("kind: alertmanager, urls: [hunter2]", r"urls\[0\]: must be an http:// or https:// URL"),
        ("kind: alertmanager, urls: ['http://am'], hold: 0s", r"alerts\.receivers\[0\]\.hold"),
        (
            "kind: alertmanager, urls: ['http://am'], hold: 2m59s",
            r"hold: must be at least 3m",
        ),
        ("kind: pagerduty", r"routing_key: is missing"),
        (
            "kind: pagerduty, routing_key: hunter2, url: 'ftp://hunter2'",
            r"url: must be an http:// or https://",
        ),
        ("kind: slack, url: 'https://h/hunter2', channel: x", r"channel: unknown key"),
        ('kind: slack, url: "https://h/hunter2\\tx"', r"url: must be a URL without white space"),
        ("kind: slack, url: 'https://h\\@hunter2'", r"url: must be a URL without .*backslashes"),
        ("kind: teams, url: hunter2", r"url: must be an http:// or https:// URL"),
        ("kind: apprise", r"url: is missing"),
        (
            "kind: apprise, url: 'json://hunter2', allow_private_cidrs: [10.1.2.3/8]",
            r"write 10\.0\.0\.0/8",
        ),
        ("kind: heartbeat, url: hunter2", r"url: must be an http:// or https:// URL"),
        ("kind: heartbeat, url: 'https://h/hunter2'", r"route\.receiver: \"a\" is a heartbeat"),
        ("kind: heartbeat, url: 'https://h/hunter2', every: 0s", r"every: must be longer than 0s"),
        ("kind: heartbeat, url: 'https://h/hunter2', send_resolved: true", r"send_resolved: unknown key"),
        ("kind: webhook, url: 'https://h/hunter2', format: cloudevent", r"did you mean \"cloudevents\""),
    ],
)
def test_a_mistake_is_named_without_the_secret(write_config: Writer, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        load_settings(write_config(one(text)), {})
    assert "hunter2" not in str(caught.value)

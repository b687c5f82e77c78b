"""What the page about alerts lists is what there is: fields, reasons, outcomes, metrics, commands, times."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from standardwebhooks import WebhookVerificationError
from typer.main import get_command

from alertvalues import event_of, payload_of, resolved
from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.heartbeat import HeartbeatTelemetry
from layerwatch.alerts.http import status_error
from layerwatch.alerts.model import TransitionReason
from layerwatch.alerts.payload import AlertContext
from layerwatch.alerts.signing import Signer
from layerwatch.alerts.telemetry import AlertTelemetry
from layerwatch.config.routes import RouteSettings
from layerwatch.daemon.cli import app
from layerwatch.daemon.health import Heartbeats
from layerwatch.daemon.telemetry import DaemonTelemetry, LoopCollector
from layerwatch.metrics.findings import RuleGroup

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "alerts" / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, with what is below that."""
    found = re.search(rf"(?ms)^(#+) {re.escape(title)}\n(.*?)(?=^\1 |^## |\Z)", PAGE)
    assert found is not None, title
    return found[2]


def table(text: str, head: str) -> list[list[str]]:
    """The cells of the first table below a line that ends with ``head``, without its own head."""
    found = re.search(rf"(?ms)^[^\n]*{re.escape(head)}\n+\|[^\n]*\n\|[-| ]*\n((?:\|[^\n]*\n)+)", text)
    assert found is not None, head
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]


def named(rows: list[list[str]]) -> list[str]:
    """What stands in code in the first cells."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]


def described() -> dict[str, Any]:
    return event_of(context=AlertContext(baseline_version="v4", external_url="https://layerwatch.example"))


def test_every_field_of_an_event_is_listed_and_no_other() -> None:
    event = described()
    text = section("The event")
    assert set(named(table(text, "not only what changed."))) == set(event)
    assert set(named(table(text, "Fields of `data`:"))) == set(event["data"])
    assert set(named(table(text, "Fields of each of `data.alerts`:"))) == set(event["data"]["alerts"][0])


def test_the_parts_of_a_field_are_those_that_it_has() -> None:
    alert = described()["data"]["alerts"][0]
    rows = {
        row[0].strip("`"): row[1] for row in table(section("The event"), "Fields of each of `data.alerts`:")
    }
    assert set(re.findall(r"`(\w+)`", rows["findings"])) == set(alert["findings"][0])
    assert set(re.findall(r"`(\w+)`", rows["baseline"])) == set(alert["baseline"])
    assert set(re.findall(r"`(\w+)`", rows["links"])) == set(alert["links"])


def test_every_reason_of_a_transition_and_every_rule_group_is_listed() -> None:
    text = section("The life of an alert")
    assert set(named(table(text, "Its reason is told with it:"))) == set(TransitionReason)
    assert named(table(text, "it is one alert. It follows the ref: what no watched ref points at is judged and reported, and alerts nobody.")) == [str(group) for group in RuleGroup]  # fmt: skip


def test_every_outcome_of_an_attempt_is_listed() -> None:
    rows = table(section("What is promised"), "is decided by its outcome:")
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[1])} == set(DeliveryReason)


def test_what_follows_from_a_status_is_what_the_table_says() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    rows = {row[0]: row for row in table(section("What is promised"), "is decided by its outcome:")}
    (repeated,) = (text for text in rows if text.startswith("401"))
    listed = {int(status) for status in re.findall(r"\d{3}", repeated)}
    for status in range(400, 500):
        error = status_error(status, None, "https://hooks.example", now)
        assert error is not None
        assert error.retryable is (status in listed or status == 429)
    for row, status in (("3xx", 302), ("410", 410), ("429", 429), ("5xx, no HTTP", 503)):
        error = status_error(status, None, "https://hooks.example", now)
        assert error is not None
        assert f"`{error.reason}`" in rows[row][1]
        assert rows[row][2].startswith("tried again" if error.retryable else "given up")


def test_the_metrics_to_alert_on_are_exported_with_these_labels() -> None:
    registry = CollectorRegistry()
    DaemonTelemetry(registry)
    AlertTelemetry(registry).init_for(["oncall"])
    HeartbeatTelemetry(registry).init_for("alive")
    heartbeats = Heartbeats(lambda: datetime(2026, 3, 1, tzinfo=UTC))
    registry.register(LoopCollector(heartbeats))
    exported = generate_latest(registry).decode()
    listed = re.findall(r"`(layerwatch_\w+)(?:\{([\w,]+)\})?`", section("Watching the alerting"))
    assert len(listed) >= 12
    for name, labels in listed:
        assert f"# TYPE {name} " in exported, name
        samples = re.findall(rf"(?m)^{name}\{{(.*)\}} ", exported)
        for sample in samples:
            assert set(re.findall(r"(\w+)=", sample)) == set(labels.split(",")), name


def test_the_times_of_a_route_are_the_defaults() -> None:
    rows = {
        row[0].strip("`"): row[1] for row in table(section("Who is told: routes"), "a group is one\nmessage:")
    }
    root = RouteSettings(receiver="oncall")
    assert rows["group_by"] == f"`[{', '.join(root.group_by)}]`"
    seconds = {"s": 1, "m": 60, "h": 3600}
    for key in ("group_wait", "group_interval", "repeat_interval"):
        text = rows[key]
        assert getattr(root, key).total_seconds() == int(text[:-1]) * seconds[text[-1]]
    assert set(rows) == {*RouteSettings.model_fields, "matchers", "continue"} - {"receiver"}


def test_the_commands_are_there_with_these_options() -> None:
    shown = re.findall(r"(?:^ *\$ |`)layerwatch ((?:alert|silence|delivery) .*?)(?:`|$)", PAGE, re.MULTILINE)
    assert len(shown) >= 8
    groups: Any = get_command(app)
    for text in shown:
        group, command, *rest = text.split()
        parameters = groups.commands[group].commands[command].params
        known = {option for parameter in parameters for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, text


@pytest.fixture
def take() -> Any:
    """The function of the example for receivers."""
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the page's own
    return names["take"]


def test_the_example_for_receivers_takes_an_event_once_and_nothing_older(take: Any) -> None:
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    now = datetime.now(UTC)

    def told(payload: str) -> Any:
        return take(secret, payload, Signer(secret).headers("evt_1", now, payload))

    first, second = payload_of(), payload_of(resolved())
    assert told(first)["phase"] == "firing"
    assert told(first) is None
    assert told(second)["phase"] == "resolved"
    assert told(first) is None


def test_the_example_for_receivers_refuses_what_is_forged(take: Any) -> None:
    payload = payload_of()
    with pytest.raises(WebhookVerificationError):
        take("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", payload, Signer("another").headers("evt_1", datetime.now(UTC), payload))  # fmt: skip

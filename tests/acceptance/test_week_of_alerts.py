"""A week of the demonstration's models under the default rules and times: who is told what, when, in which words.

The texts are in ``tests/_data/messages/week``; ``LAYERWATCH_UPDATE_GOLDEN=1 pytest`` of this file writes them anew.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from layerwatch.alerts.model import AlertPhase
from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.demo.preparing import prepare
from layerwatch.daemon.demo.story import CNN, MLP
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.store import alerts, versions
from layerwatch.daemon.store.database import Database
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.weekofalerts import REGISTRY, Week, at, digest_of, without_trained_numbers

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "_data" / "messages" / "week"
TRAINED = GOLDEN / "trained.json"
UPDATE = os.environ.get("LAYERWATCH_UPDATE_GOLDEN") == "1"

ALERTS = {
    "owners": [{"models": [f"*/{CNN}"], "labels": {"team": "vision"}}],
    "receivers": [{"name": "oncall", "kind": "log"}, {"name": "vision-chat", "kind": "log"}],
    "mute_times": [
        {"name": "off-hours", "times": [{"hours": ["18:00-08:00"]}, {"weekdays": ["sat", "sun"]}]}
    ],
    "route": {
        "receiver": "oncall",
        "routes": [
            {
                "matchers": ['team="vision"'],
                "receiver": "vision-chat",
                "continue": True,
                "mute_times": ["off-hours"],
            },
            {"receiver": "oncall"},
        ],
    },
}

MESSAGES = [
    # Both v5 are broken. The chat of those who own the CNN is told in working hours only.
    ("fri 16:56", "oncall", f"first, firing: {CNN} v5 weights firing (latest)"),
    ("fri 16:56", "oncall", f"first, firing: {MLP} v5 weights firing (latest)"),
    ("fri 16:56", "vision-chat", f"first, firing: {CNN} v5 weights firing (latest)"),
    # The champion follows: one more alert in the same group.
    ("fri 17:03:30", "oncall", f"first, firing: {MLP} v5 weights firing (latest, champion)"),
    ("sat 04:56", "oncall", f"repeat_interval, firing: {CNN} v5 weights firing (latest)"),
    ("sat 05:03:30", "oncall", f"repeat_interval, firing: {MLP} v5 weights firing (latest, champion)"),
    # The rollback of the one; the other goes on.
    ("sat 09:00:30", "oncall", f"moved_back, resolved: {MLP} v4 weights resolved (latest, champion)"),
    ("sat 16:56", "oncall", f"repeat_interval, firing: {CNN} v5 weights firing (latest)"),
    # Both uploads of the night broke off.
    ("sat 23:31", "oncall", f"first, firing: {CNN} v6 examination firing (latest)"),
    ("sat 23:31", "oncall", f"first, firing: {MLP} v6 examination firing (latest)"),
    # One was taken back, which leaves v5, and the other completed.
    (
        "sun 00:30:30",
        "oncall",
        f"moved_back, firing: {CNN} v5 weights firing (latest); {CNN} v5 examination resolved (latest)",
    ),
    ("sun 00:31", "oncall", f"version_passed, resolved: {MLP} v6 examination resolved (latest)"),
    ("sun 12:30:30", "oncall", f"repeat_interval, firing: {CNN} v5 weights firing (latest)"),
    # Broken at half past ten, told when the silence ends.
    (
        "sun 14:00",
        "oncall",
        f"first, firing: {MLP} v6 weights firing (latest); {MLP} v6 integrity firing (latest)",
    ),
    (
        "next mon 02:00",
        "oncall",
        f"repeat_interval, firing: {MLP} v6 weights firing (latest); {MLP} v6 integrity firing (latest)",
    ),
    ("next mon 09:01", "oncall", f"version_passed, resolved: {CNN} v6 weights resolved (latest)"),
    (
        "next mon 09:01",
        "oncall",
        f"version_passed, resolved: {MLP} v7 weights resolved (latest); {MLP} v7 integrity resolved (latest)",
    ),
    ("next mon 09:01", "vision-chat", f"version_passed, resolved: {CNN} v6 weights resolved (latest)"),
]
"""Time, receiver, and why and of what it is told; nothing else is told in that week."""


def live_through(week: Week) -> None:
    """What people and their jobs do with the two models."""

    def publish(version: str) -> None:
        for model in (MLP, CNN):
            week.publish(model, version)

    def promote(version: str) -> None:
        for model in (MLP, CNN):
            week.point(model, "champion", version)

    week.until(at("mon 09:00"))
    publish("v1")
    week.until(at("mon 12:00"))
    promote("v1")
    week.until(at("tue 10:00"))
    publish("v2")
    week.until(at("tue 12:00"))
    promote("v2")
    week.until(at("wed 10:00"))
    publish("v3")
    week.until(at("wed 14:00"))
    promote("v3")
    week.until(at("thu 17:00"))
    publish("v4")
    week.until(at("thu 18:00"))
    week.point(MLP, "champion", "v4")
    # Shortly before the weekend.
    week.until(at("fri 16:55"))
    publish("v5")
    week.until(at("fri 17:03"))
    week.point(MLP, "champion", "v5")
    # A rollback: the champion back, and the version away.
    week.until(at("sat 09:00"))
    week.point(MLP, "champion", "v4")
    week.remove(MLP, "v5")
    # The machine is updated.
    week.until(at("sat 12:00"))
    week.restart()
    # The upload of the night breaks off.
    week.until(at("sat 23:30"))
    week.publish_half(MLP, "v6")
    week.publish_half(CNN, "v6")
    week.until(at("sun 00:30"))
    week.replace(MLP, "v6", by="v6")
    week.remove(CNN, "v6")
    # An experiment writes over a published version, and nobody wants to hear of it.
    week.until(at("sun 10:00"))
    week.silence(f'model="{MLP}"', hours=4, author="Ada", reason="trying out exporters")
    week.until(at("sun 10:30"))
    week.replace(MLP, "v6", by="v5")
    week.until(at("sun 13:00"))
    week.acknowledge(CNN, by="Grace", reason="v6 is on its way")
    week.until(at("next mon 09:00"))
    week.publish(MLP, "v7")
    week.publish(CNN, "v6")
    week.until(at("next mon 23:59"))


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Week]:
    folder = tmp_path_factory.mktemp("week")
    prepared = {(one.model, one.version): one for one in prepare(folder / "staging")}
    prepared[MLP, "v7"] = replace(prepared[MLP, "v6"], version="v7")
    database = Database.open(f"sqlite:///{folder / 'layerwatch.db'}")
    executor = LocalExecutor(ScanSettings(niceness=0, threads=1))
    try:
        lived = Week(folder, prepared, database, executor, ALERTS)
        live_through(lived)
        yield lived
    finally:
        executor.close()
        database.close()


def test_exactly_the_alerts_are_told_that_should_be_at_the_right_time(week: Week) -> None:
    assert [one.line for one in week.received] == [f"{when} {who}: {what}" for when, who, what in MESSAGES]


def test_each_change_of_an_alert_is_told_to_each_receiver_once(week: Week) -> None:
    assert max(Counter((one.receiver, one.event_id) for one in week.received).values()) == 1
    told = Counter((one.receiver, event) for one in week.received for event in one.data["transitions"])
    assert set(told.values()) == {1}
    with week.database.read() as connection:
        states = alerts.list_states(connection)
        changes = alerts.transitions_of(connection, [state.identity for state in states])
    everything = {event for of_one in changes.values() for _, event in of_one}
    assert {event for receiver, event in told if receiver == "oncall"} == everything
    # What began and ended while the chat was not to be told is never told there.
    cnn = [state.identity for state in states if state.identity.model == CNN]
    by_day = {event for one in cnn if one.group == "weights" for _, event in changes[one]}
    assert {event for receiver, event in told if receiver == "vision-chat"} == by_day


def test_every_verdict_is_the_one_that_the_test_images_give(week: Week) -> None:
    with week.database.read() as connection:
        found = {
            (one.key.model, one.key.version, one.revision): one.verdict
            for one in versions.list_versions(connection, REGISTRY, limit=1000)
        }
    failed = {(MLP, "v5", 1), (CNN, "v5", 1), (MLP, "v6", 3)}
    unread = {(MLP, "v6", 1), (CNN, "v6", 1)}
    healthy = {(model, f"v{number}", 1) for model in (MLP, CNN) for number in range(1, 5)}
    healthy |= {(MLP, "v6", 2), (MLP, "v7", 1), (CNN, "v6", 2)}
    assert found == (
        dict.fromkeys(failed, Verdict.FAIL)
        | dict.fromkeys(unread, Verdict.UNDECIDED)
        | dict.fromkeys(healthy, Verdict.PASS)
    )


def test_at_the_end_nothing_fires_and_every_receiver_knows(week: Week) -> None:
    with week.database.read() as connection:
        assert {state.phase for state in alerts.list_states(connection)} == {AlertPhase.RESOLVED}
        assert not any(told.firing for told in alerts.load_told(connection).values())


def test_each_message_reads_as_its_golden_file(week: Week) -> None:
    """To the letter where training gave the same weights, else with other numbers about the weights."""
    texts = {f"{place:02}-{one.title}.txt": one.text for place, one in enumerate(week.received, 1)}
    trained = {
        f"{model} {version}": digest_of(week.prepared[model, version])
        for model in (MLP, CNN)
        for version in ("v2", "v5")
    }
    if UPDATE:
        GOLDEN.mkdir(parents=True, exist_ok=True)
        for old in GOLDEN.glob("*.txt"):
            old.unlink()
        for name, text in texts.items():
            (GOLDEN / name).write_text(text, encoding="utf-8")
        TRAINED.write_text(json.dumps(trained, indent=1) + "\n", encoding="utf-8")
        return
    expected = {path.name: path.read_text(encoding="utf-8") for path in sorted(GOLDEN.glob("*.txt"))}
    if trained != json.loads(TRAINED.read_text(encoding="utf-8")):
        texts = {name: without_trained_numbers(text) for name, text in texts.items()}
        expected = {name: without_trained_numbers(text) for name, text in expected.items()}
    assert texts == expected

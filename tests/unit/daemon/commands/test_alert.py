"""``layerwatch alert``: what fires, what was told, who is on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from firedalerts import ended, fired
from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertState
from layerwatch.daemon.store import alerts
from layerwatch.daemon.store.database import Database
from layerwatch.metrics.findings import RuleGroup, Severity
from layerwatch_testing.daemons import write_config
from storetools import NOW, judged, later

Call = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of the same store as ``database``."""
    return write_config(tmp_path / "layerwatch.yaml")


def named(state: AlertState) -> str:
    return alert_id(state.identity, state.episode)


def loaded(database: Database, state: AlertState) -> AlertState:
    with database.read() as connection:
        found = alerts.load_state(connection, state.identity)
    assert found is not None
    return found


def table(result: Result) -> list[list[str]]:
    """The lines below the heads; cells stand two spaces apart or more."""
    assert result.exit_code == 0, result.output
    _, *lines = result.stdout.splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_firing_alerts_are_listed_worst_first(config: Path, call: Call, database: Database) -> None:
    with database.write() as connection:
        mild = fired(connection, "prod/mild", severity=Severity.WARNING, now=later(-9999))
        young = fired(connection, "prod/young", layers=("a", "b", "c", "d", "e"))
        old = fired(connection, "prod/old", layers=(None,), group=RuleGroup.EXAMINATION, now=later(-60))
        ended(connection, fired(connection, "prod/over"))
    rows = table(call("alert", "list", "--config", config))
    assert [row[0] for row in rows] == [named(state)[6:18] for state in (old, young, mild)]
    assert rows[0][1:] == [
        "critical",
        "prod/old",
        "latest",
        "v3",
        "examination",
        "2025-03-01 11:59 UTC",
        "whole version",
    ]
    assert rows[1][-1] == "a, b, c, 2 more"


def test_all_alerts_are_listed_with_those_that_ended(config: Path, call: Call, database: Database) -> None:
    assert call("alert", "list", "--all", "--config", config).stdout == "there was no alert yet\n"
    with database.write() as connection:
        ended(connection, fired(connection, "prod/over"), now=later(3600))
    assert call("alert", "list", "--config", config).stdout == "no alert is firing\n"
    (row,) = table(call("alert", "list", "--all", "--config", config))
    assert row[2] == "prod/over"
    assert row[6:] == ["2025-03-01 13:00 UTC", "fc1", "resolved"]


def test_the_list_says_who_is_on_an_alert_and_which_silence_holds_it_back(
    config: Path, call: Call, database: Database
) -> None:
    with database.write() as connection:
        state = fired(connection)
    call("alert", "acknowledge", named(state), "--reason", "on it", "--author", "ann", "--config", config)
    call("silence", "add", "model=fraud", "--for", "2h", "--reason", "planned", "--config", config)
    (row,) = table(call("alert", "list", "--config", config))
    assert row[-1].startswith("acknowledged by ann; muted: silence 1 by ")


def test_the_list_as_json_is_what_the_api_answers(config: Path, call: Call, database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)
    (one,) = json.loads(call("alert", "list", "--format", "json", "--config", config).stdout)
    assert (one["alert_id"], one["phase"], one["layers"]) == (named(state), "firing", ["fc1"])
    assert (one["acknowledged_by"], one["muted_by"]) == (None, None)
    arguments = ("add", "model=fraud", "--for", "2h", "--reason", "planned", "--author", "ann")
    call("silence", *arguments, "--config", config)
    (one,) = json.loads(call("alert", "list", "--format", "json", "--config", config).stdout)
    assert one["muted_by"] == "silence 1 by ann: planned"


@pytest.mark.parametrize("as_model", [False, True], ids=["by id", "by model"])
def test_what_people_are_told_is_shown(config: Path, call: Call, database: Database, as_model: bool) -> None:
    with database.write() as connection:
        state = fired(connection)
    result = call("alert", "show", "prod/fraud" if as_model else named(state)[6:14], "--config", config)
    assert result.exit_code == 0, result.output
    line, text = result.stdout.split("\n", 1)
    assert (
        line
        == f"{named(state)[6:18]} prod/fraud latest v3 (weights, critical): firing since 2025-03-01 12:00 UTC"
    )
    told = json.loads(text)
    assert told["alert_id"] == named(state)
    assert told["findings"][0]["layer"] == "fc1"


def test_an_alert_that_nobody_was_told_of_is_shown_as_such(
    config: Path, call: Call, database: Database
) -> None:
    with database.write() as connection:
        state = fired(connection)
        connection.exec_driver_sql("UPDATE alert_states SET told = NULL")
    assert "  nobody was told of it yet\n" in call("alert", "show", named(state), "--config", config).stdout


def test_an_alert_is_acknowledged_and_given_back(config: Path, call: Call, database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)
        other = fired(connection, "prod/spam")
    arguments = ("acknowledge", named(state)[:14], "--reason", "on it", "--author", "ann")
    result = call("alert", *arguments, "--config", config)
    assert result.exit_code == 0, result.output
    assert ", acknowledged by ann on " in result.stdout
    assert result.stdout.endswith(" UTC: on it\n")
    taken = loaded(database, state).acknowledgement
    assert taken is not None and (taken.by, taken.reason) == ("ann", "on it")
    assert loaded(database, other).acknowledgement is None
    result = call("alert", "unacknowledge", named(state), "--config", config)
    assert result.exit_code == 0, result.output
    assert loaded(database, state).acknowledgement is None
    again = call("alert", "unacknowledge", named(state), "--config", config)
    assert (again.exit_code, again.stderr) == (
        2,
        "nobody acknowledged the alert of prod/fraud latest (weights)\n",
    )


def test_by_a_models_name_all_of_its_firing_alerts_are_acknowledged(
    config: Path, call: Call, database: Database
) -> None:
    with database.write() as connection:
        latest = fired(connection)
        unread = fired(connection, group=RuleGroup.EXAMINATION, layers=(None,))
        champion = fired(connection, ref="champion")
        other = fired(connection, "prod/fraud2")
    mine = ("--reason", "on it", "--config", config)
    assert call("alert", "acknowledge", "prod/fraud", "--ref", "latest", *mine).stdout.count("\n") == 2
    taken = [loaded(database, one).acknowledgement is not None for one in (latest, unread, champion, other)]
    assert taken == [True, True, False, False]
    # What nobody is on needs no giving back.
    assert call("alert", "unacknowledge", "prod/fraud", "--config", config).stdout.count("\n") == 2
    assert call("alert", "acknowledge", "prod/fraud", *mine).stdout.count("\n") == 3
    assert call("alert", "unacknowledge", "prod/fraud2", "--config", config).exit_code == 2


@pytest.mark.parametrize("command", ["show", "acknowledge", "unacknowledge"])
def test_an_alert_that_is_not_there_is_a_usage_error_that_says_what_to_do(
    config: Path, call: Call, database: Database, command: str
) -> None:
    with database.write() as connection:
        judged(connection, "v1", model="fraud", registry="prod", now=NOW)
        fired(connection, "prod/spam")
    reason = ("--reason", "on it") if command == "acknowledge" else ()
    for name, told in (
        ("00000000", "there is no alert alert_00000000; layerwatch alert list --all shows those there are"),
        (
            "fraud",
            "'fraud' is no id of an alert: those are alert_ and hexadecimal digits, of which 8 are enough",
        ),
        ("prod/fraud", "no alert of prod/fraud is firing; layerwatch alert list shows those that are"),
        ("prod/frod", "the store holds no model prod/frod; did you mean prod/fraud?"),
        ("/fraud", "/fraud: must be REGISTRY/MODEL, for example prod/fraud"),
    ):
        result = call("alert", command, name, *reason, "--config", config)
        assert (result.exit_code, result.stderr) == (2, f"{told}\n")
    result = call("alert", command, "prod/spam", "--ref", "champion", *reason, "--config", config)
    assert result.exit_code == 2
    result = call("alert", command, "00000000", "--ref", "latest", *reason, "--config", config)
    assert result.stderr == "--ref goes with REGISTRY/MODEL, not with the id of an alert\n"


def test_an_alert_that_ended_cannot_be_acknowledged(config: Path, call: Call, database: Database) -> None:
    with database.write() as connection:
        state = ended(connection, fired(connection))
    result = call("alert", "acknowledge", named(state), "--reason", "on it", "--config", config)
    assert (result.exit_code, result.stderr) == (
        2,
        "the alert of prod/fraud latest (weights) is not firing\n",
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--reason", " "), "--reason: must not be empty"),
        (("--reason", "on it", "--author", ""), "--author: must not be empty"),
    ],
)
def test_nobody_for_no_reason_is_a_usage_error(
    config: Path, call: Call, database: Database, arguments: tuple[str, ...], told: str
) -> None:
    with database.write() as connection:
        state = fired(connection)
    result = call("alert", "acknowledge", named(state), *arguments, "--config", config)
    assert (result.exit_code, result.stderr) == (2, f"{told}\n")
    assert loaded(database, state).acknowledgement is None


def test_hostile_names_reach_no_terminal(config: Path, call: Call, database: Database) -> None:
    hostile = "x\u202ey\x1b[31mz"
    with database.write() as connection:
        state = fired(
            connection, f"prod/{hostile}", ref=hostile, version=hostile, layers=(hostile,), numbers=hostile
        )
    name = named(state)
    for result in (
        call("alert", "list", "--config", config),
        call("alert", "acknowledge", name, "--reason", hostile, "--author", hostile, "--config", config),
        call("alert", "show", name, "--config", config),
    ):
        assert result.exit_code == 0, result.output
        assert result.stdout.replace("\n", "").isprintable()

"""``layerwatch baseline`` and a store that cannot be found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from layerwatch.daemon.commands.baseline import app
from layerwatch_testing.daemons import write_config
from layerwatch_testing.networks import network
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld

Call = Callable[..., Result]


def test_a_store_url_in_a_variable_that_is_not_set_is_a_usage_error_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORE_URL", raising=False)
    config = write_config(tmp_path / "layerwatch.yaml", store={"url": {"env": "STORE_URL"}})
    result = CliRunner().invoke(app, ["list", "--config", str(config)])
    assert result.exit_code == 2
    assert result.output == "store.url: environment variable STORE_URL is not set; set it to the secret\n"


def test_the_query_of_a_store_url_is_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URL", f"sqlite:///{tmp_path}/none.db?password=hidden")
    config = write_config(tmp_path / "layerwatch.yaml", store={"url": {"env": "STORE_URL"}})
    result = CliRunner().invoke(app, ["list", "--config", str(config)])
    assert result.exit_code == 2
    assert "there is no store at" in result.output
    assert "hidden" not in result.output


def cells(result: Result) -> list[list[str]]:
    """The lines of a table; its cells stand two spaces apart or more."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in result.stdout.splitlines()
    ]


def test_the_versions_are_listed_newest_first_with_what_they_were_judged_against(
    config: Path, call: Call
) -> None:
    result = call("baseline", "versions", "reg/m", "--config", config)
    assert result.exit_code == 0, result.output
    head, *rows = cells(result)
    assert head == ["version", "verdict", "judged", "relation", "judged against"]
    assert [[row[0], row[1], *row[3:]] for row in rows] == [
        ["v3", "fail", "quantized from v2", "v2 (parent)"],
        ["v2", "pass", "-", "v1 (history)"],
        ["v1", "pass", "-", "nothing"],
    ]


def test_replaced_and_vanished_versions_are_listed_as_such(
    config: Path, call: Call, rig: Rig, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", network(5))
    world.remove("m", "v2")
    rig.cycle()
    _, *rows = cells(call("baseline", "versions", "reg/m", "--config", config))
    remarks = {(row[0], row[1]): row[-1] for row in rows}
    assert remarks[("v2", "pass")] == "gone"
    assert remarks[("v1", "pass")] == "replaced by other bytes"
    assert remarks[("v1", "fail")] == "nothing"


def test_a_model_that_the_store_does_not_hold_has_no_versions(config: Path, call: Call) -> None:
    result = call("baseline", "versions", "reg/other", "--config", config)
    assert result.exit_code == 2
    assert result.stderr == "the store holds no model reg/other; layerwatch baseline list shows all\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["versions", "rag/m"],
        ["show", "rag/m"],
        ["accept", "rag/m", "v1", "--reason", "r"],
        ["pin", "rag/m", "v1", "--reason", "r"],
        ["unpin", "rag/m", "--reason", "r"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_misspelt_model_gets_a_suggestion(config: Path, call: Call, arguments: list[str]) -> None:
    result = call("baseline", *arguments, "--config", config)
    assert result.exit_code == 2
    assert result.stderr == "the store holds no model rag/m; did you mean reg/m?\n"


def test_what_people_chose_is_shown_beside_the_verdict(config: Path, call: Call) -> None:
    def verdicts() -> list[str]:
        _, *rows = cells(call("baseline", "versions", "reg/m", "--config", config))
        return [row[1] for row in rows]

    def choose(command: str, *arguments: str) -> None:
        result = call("baseline", command, "reg/m", *arguments, "--reason", "as wanted", "--config", config)
        assert result.exit_code == 0, result.output

    choose("accept", "v3")
    assert verdicts() == ["fail (accepted)", "pass", "pass"]
    choose("pin", "v1")
    assert verdicts() == ["fail (accepted)", "pass", "pass (pinned)"]
    choose("unpin")
    choose("accept", "v2")
    assert verdicts() == ["fail (accepted)", "pass (accepted)", "pass"]


def test_what_is_accepted_is_listed_behind_a_pin(config: Path, call: Call) -> None:
    for command, version in (("accept", "v1"), ("pin", "v2")):
        call("baseline", command, "reg/m", version, "--reason", f"to {command}", "--config", config)
    listed = call("baseline", "list", "--config", config).stdout
    pinned, accepted = listed.removeprefix("reg/m: ").split("; ")
    assert pinned.startswith("v2 pinned by ")
    assert accepted.startswith("v1 accepted by ")


def test_accepting_a_version_that_is_not_there_names_the_command_that_lists_them(
    config: Path, call: Call
) -> None:
    result = call("baseline", "accept", "reg/m", "v9", "--reason", "typo", "--config", config)
    assert result.exit_code == 2
    assert "layerwatch baseline versions reg/m lists them" in result.stderr

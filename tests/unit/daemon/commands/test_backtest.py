"""``layerwatch backtest`` over a store that real scans filled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from layerwatch.daemon.store.schema import VERSION_TABLE
from layerwatch_testing.daemons import write_config
from layerwatch_testing.rigs import Rig

Call = Callable[..., Result]


def test_without_a_change_every_version_fires_what_it_did(config: Path, call: Call) -> None:
    result = call("backtest", "--config", config)
    assert result.exit_code == 0, result.output
    first, *rest, last = result.stdout.splitlines()
    assert first == "reg/m: 3 versions, 0 changed"
    assert rest[0] == "  v3  fail against v2"
    assert "fc2: scaled" in rest[1]
    assert last == ("with these settings 1 of 3 versions would have paged (now 1): 0 new alarms, 0 gone")


def test_a_changed_limit_shows_what_would_appear_and_vanish(config: Path, call: Call) -> None:
    result = call(
        *("backtest", "reg/m", "--config", config),
        *("--set", "rules.relative_change.limit=0.001", "--set", "rules.relative_change.times_median=0.1"),
        *("--set", "rules.scaled.enabled=false"),
    )
    assert result.exit_code == 0, result.output
    assert "  v2  pass -> fail against v1" in result.stdout
    assert "    + fc1: relative_change: relative change 0.0" in result.stdout
    assert "    - fc2: scaled: " in result.stdout
    assert "with these settings 2 of 3 versions would have paged (now 1)" in result.stdout


def test_json_holds_the_same_for_programs(config: Path, call: Call) -> None:
    result = call(
        *("backtest", "--config", config, "--format", "json", "--set", "rules.scaled.enabled=false"),
        *("--false-alarms", "3"),
    )
    found = json.loads(result.stdout)
    assert found["changes"] == {
        "rules.scaled.enabled": "false",
        "rules.false_alarms_per_1000_versions": "3.0",
    }
    assert found["totals"]["versions"] == 3
    assert found["totals"]["alarms_gone"] >= 1
    assert [one["version"] for one in found["versions"]] == ["v1", "v2", "v3"]
    (gone,) = [one for one in found["versions"][2]["gone"] if one["rule"] == "scaled"]
    assert gone["layer"] == "fc2"


def test_the_rules_of_another_configuration_are_tried_on_the_same_store(
    config: Path, call: Call, tmp_path: Path
) -> None:
    other = write_config(
        tmp_path / "other.yaml", rules={"relative_change": {"limit": 0.001, "times_median": 0.1}}
    )
    result = call("backtest", "--config", other)
    assert "with these settings 2 of 3 versions would have paged (now 1)" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "rules.scaled.cosin=0.9"], "did you mean rules.scaled.cosine?"),
        (["--set", "scaled.cosine=0.9"], "did you mean rules.scaled.cosine?"),
        (["--set", "rules.scaled.cosine"], "must be KEY=VALUE"),
        (["--set", "store.url=x"], "is no key of the rules"),
        (["--set", "rules.scaled.cosine=much"], "rules.scaled.cosine"),
        (["--false-alarms", "0"], "false_alarms_per_1000_versions"),
        (["reg/n"], "did you mean reg/m?"),
        (["m"], "must be REGISTRY/MODEL"),
    ],
)
def test_a_mistake_is_a_usage_error_that_says_what_would_be_right(
    config: Path, call: Call, arguments: list[str], told: str
) -> None:
    result = call("backtest", "--config", config, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_store_of_an_older_release_is_not_changed_but_refused(config: Path, call: Call, rig: Rig) -> None:
    with rig.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
    result = call("backtest", "--config", config)
    assert result.exit_code == 1
    assert "start the daemon once" in result.stderr
    with rig.database.read() as connection:
        assert connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar() == "0001"

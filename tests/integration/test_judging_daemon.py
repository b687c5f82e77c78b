"""How a daemon as a process of its own judges: exactly or by sketches, against what it accepted; and asked while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.processes import layerwatch
from layerwatch_testing.worlds.directory import DirectoryWorld


@pytest.fixture
def world(tmp_path: Path) -> DirectoryWorld:
    return DirectoryWorld(tmp_path, marker=None)


@pytest.fixture
def config(tmp_path: Path, world: DirectoryWorld) -> Path:
    return write_config(
        tmp_path / "layerwatch.yaml", directory("local", world.root), baselines={"accept": "pass"}
    )


@pytest.fixture
def daemon(config: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(config) as running:
        running.wait_until_listening()
        yield running


def report(daemon: DaemonProcess, version: str) -> dict[str, Any]:
    rows = daemon.get("/api/v1/versions", limit="100").json()
    (number,) = [row["id"] for row in rows if row["version"] == version]
    found: dict[str, Any] = daemon.get(f"/api/v1/versions/{number}/report").json()
    return found


def methods(daemon: DaemonProcess, version: str) -> set[str]:
    return {layer["change"]["method"] for layer in report(daemon, version)["layers"]}


def test_a_daemon_compares_exactly_accepts_what_passes_and_answers_while_it_runs(
    daemon: DaemonProcess, world: DirectoryWorld, config: Path
) -> None:
    healthy = finetuned(network())
    world.publish("m", "v1", network())
    assert daemon.wait_for_verdict("local/m/v1") == "pass"
    world.publish("m", "v2", healthy)
    assert daemon.wait_for_verdict("local/m/v2") == "pass"
    assert methods(daemon, "v2") == {"exact"}

    # The baseline's files go: estimates serve, and the version is judged all the same.
    world.remove("m", "v2")
    world.publish("m", "v3", with_wrong_scale(finetuned(healthy, 3)))
    assert daemon.wait_for_verdict("local/m/v3") == "fail"
    assert methods(daemon, "v3") == {"sketch"}
    world.publish("m", "v4", finetuned(healthy, 4))
    assert daemon.wait_for_verdict("local/m/v4") == "pass"
    baseline = report(daemon, "v4")["baseline"]
    assert (baseline["version"], baseline["chosen_by"]) == ("v2", "accepted automatically")

    def ask(*arguments: str) -> str:
        done = layerwatch([*arguments, "--config", str(config)], config.parent)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = ask("baseline", "show", "local/m")
    assert shown.splitlines()[0].startswith("v4 auto-accepted by layerwatch on ")
    assert "v3" not in shown.replace("verdict pass against v3", "")
    listed = ask("baseline", "versions", "local/m")
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["v4", "pass"],
        ["v3", "fail"],
        ["v2", "pass"],
        ["v1", "pass"],
    ]
    tried = json.loads(
        ask("backtest", "local/m", "--set", "rules.relative_change.limit=100", "--format", "json")
    )
    assert (tried["totals"]["versions"], tried["totals"]["paged"]) == (4, 1)
    gone = {(one["layer"], one["rule"]) for one in tried["versions"][2]["gone"]}
    assert ("fc2", "relative_change") in gone
    assert "fc2 broke with v3; v2 is the last good version" in ask("bisect", "local/m", "fc2", "--to", "v3")
    # Asking changed nothing: the daemon goes on as before.
    world.publish("m", "v5", finetuned(healthy, 5))
    assert daemon.wait_for_verdict("local/m/v5") == "pass"
    assert methods(daemon, "v5") == {"exact"}

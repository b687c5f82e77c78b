"""The story of ``make run``, told by the installed command with the daemon as a process of its own."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("demo") / "story"
    command = [str(Path(sys.executable).with_name("layerwatch")), "demo", "--directory", str(folder)]
    finished = subprocess.run(
        [*command, "--between", "0", "--exit"], capture_output=True, text=True, timeout=240, check=False
    )
    return finished, folder


def _verdicts(folder: Path) -> dict[tuple[str, str], str]:
    with sqlite3.connect(folder / "layerwatch.db") as connection:
        rows = connection.execute("SELECT model, version, verdict FROM versions").fetchall()
    return {(model, version): verdict for model, version, verdict in rows}


def test_the_demo_ends_well_and_every_verdict_agrees_with_the_test_images(
    told: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    finished, folder = told
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "12 of 12 verdicts agree with the test accuracy" in finished.stdout
    verdicts = _verdicts(folder)
    assert len(verdicts) == 12
    for (_, version), verdict in verdicts.items():
        assert verdict == ("fail" if version == "v5" else "pass")


def test_only_the_broken_layer_is_named_and_by_the_most_specific_rule(
    told: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, folder = told
    with sqlite3.connect(folder / "layerwatch.db") as connection:
        reports = connection.execute("SELECT model, report FROM versions WHERE version = 'v5'").fetchall()
    broken = {"digits-mlp": "fc2", "digits-cnn": "conv2"}
    for model, text in reports:
        report = json.loads(text)
        critical = [finding for finding in report["findings"] if finding["severity"] == "critical"]
        assert {finding["layer"] for finding in critical} == {broken[model]}
        assert critical[0]["rule"] == "scaled"
        assert report["baseline"]["version"] == "v2"
        assert report["baseline"]["chosen_by"] == "parent"


def test_each_model_fires_once_and_resolves_once_at_the_webhook(
    told: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    finished, _ = told
    received = finished.stdout.partition("received at the demonstration's own webhook")[2]
    events = re.findall(r"webhook received (FIRING|RESOLVED) (evt_\w+): (\S+) (v\d)", received)
    assert sorted((phase, model, version) for phase, _, model, version in events) == [
        ("FIRING", "digits-cnn", "v5"),
        ("FIRING", "digits-mlp", "v5"),
        ("RESOLVED", "digits-cnn", "v6"),
        ("RESOLVED", "digits-mlp", "v6"),
    ]
    assert len({event for _, event, _, _ in events}) == 4


def test_the_gauges_of_the_broken_layer_move_with_the_versions(
    told: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    finished, _ = told
    moves = re.findall(r"alpha: .*fc2 ([\d.]+) -> ([\d.]+)", finished.stdout)
    assert any(before != after for before, after in moves)


def test_no_secret_of_the_configuration_is_in_log_or_output(
    told: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    finished, folder = told
    match = re.search(r"secret: (whsec_\S+)", (folder / "layerwatch.yaml").read_text())
    assert match is not None
    assert match[1] not in finished.stdout + finished.stderr + (folder / "daemon.log").read_text()

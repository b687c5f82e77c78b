"""``layerwatch gate``: what it refuses, what it prints, and its exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import Result

from layerwatch.daemon.gate.formats.gateformat import GateFormat
from layerwatch.daemon.gate.formats.markdown import SUMMARY_LIMIT
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import Network, finetuned, network, with_wrong_scale

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAYERWATCH_SCAN__NICENESS", "0")
    monkeypatch.setenv("LAYERWATCH_SCAN__THREADS", "1")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)


def with_nan(state: Network, layer: str) -> Network:
    values = state[f"{layer}.weight"].copy()
    values[0, 0] = np.nan
    return {**state, f"{layer}.weight": values}


@pytest.fixture
def old(tmp_path: Path) -> str:
    write_safetensors(tmp_path / "old.safetensors", network())
    return "old.safetensors"


@pytest.fixture
def scaled(tmp_path: Path) -> str:
    """A fine-tune with a wrong scale in fc2, which only a comparison can find."""
    write_safetensors(tmp_path / "scaled.safetensors", with_wrong_scale(finetuned(network())))
    return "scaled.safetensors"


def ignore_file(folder: Path, *entries: dict[str, str]) -> str:
    (folder / "ignore.yaml").write_text(json.dumps({"ignore": entries}))
    return "ignore.yaml"


def in_days(days: int) -> str:
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def report_of(result: Result) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_the_exit_codes_are_those_of_the_contract(call: Call, old: str, scaled: str, tmp_path: Path) -> None:
    lost: dict[str, NDArray[Any]] = {**network()}
    lost["fc1.weight"] = lost["fc1.weight"].astype(np.int8)
    write_safetensors(tmp_path / "lost.safetensors", lost)

    assert call("gate", old, "--baseline", old).exit_code == 0
    assert call("gate", scaled, "--baseline", old).exit_code == 1
    assert call("gate", scaled, "--baseline", "nowhere").exit_code == 2
    assert call("gate", "lost.safetensors", "--baseline", old).exit_code == 3
    assert call("gate", "lost.safetensors", "--baseline", old, "--allow-undecided").exit_code == 0


@pytest.mark.parametrize("format_", list(GateFormat))
def test_every_format_has_the_same_exit_code_and_goes_to_a_file(
    call: Call, old: str, scaled: str, tmp_path: Path, format_: GateFormat
) -> None:
    result = call("gate", scaled, "--baseline", old, "--format", format_, "-o", "report")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "fc2" in (tmp_path / "report").read_text()


def test_an_accepted_finding_passes_and_is_told_with_its_reason(
    call: Call, old: str, scaled: str, tmp_path: Path
) -> None:
    rules = {
        one["rule"]
        for one in report_of(call("gate", scaled, "--baseline", old, "--format", "json"))["findings"]
    }
    ignores = ignore_file(
        tmp_path,
        *({"rule": rule, "layer": "fc2*", "reason": "ticket 12", "expires": in_days(90)} for rule in rules),
    )

    result = call("gate", scaled, "--baseline", old, "--ignore-file", ignores)
    shown = call("gate", scaled, "--baseline", old, "--ignore-file", ignores, "--show-suppressed")

    assert result.exit_code == 0, result.output
    assert "suppressed by ignore.yaml; see --show-suppressed" in result.stdout
    assert "gate passes: no finding at or above critical counts" in result.stdout
    assert f"suppressed until {in_days(90)}: ticket 12" not in result.stdout
    assert f"suppressed until {in_days(90)}: ticket 12" in shown.stdout
    assert "what to do" not in result.stdout


def test_entries_that_need_a_person_are_told_on_standard_error(
    call: Call, old: str, scaled: str, tmp_path: Path
) -> None:
    ignores = ignore_file(
        tmp_path,
        {"rule": "scaled", "layer": "fc2", "reason": "soon", "expires": in_days(3)},
        {"rule": "scaled", "layer": "fc9", "reason": "gone", "expires": in_days(90)},
        {"rule": "zero_rows", "reason": "over", "expires": in_days(-1)},
        {"rule": "zero_rows", "reason": "elsewhere", "model": "other-*", "expires": in_days(-1)},
    )

    result = call("gate", scaled, "--baseline", old, "--ignore-file", ignores, "--format", "json")

    told = [line for line in result.stderr.splitlines() if line.startswith("warning: ignore.yaml")]
    assert [line.split(": ", 2)[2].rpartition(":")[0] or line.split(": ", 2)[2] for line in told] == [
        f"the entry for zero_rows expired on {in_days(-1)} and suppresses nothing any more",
        "the entry for scaled in fc9 matches no finding",
        f"the entry for scaled in fc2 expires on {in_days(3)}",
    ]
    gate = report_of(result)["gate"]
    assert [len(gate[key]) for key in ("expired", "stale", "expiring")] == [1, 1, 1]
    assert gate["ignore_file"] == "ignore.yaml"


def test_a_wrong_ignore_file_is_a_usage_error_before_anything_is_read(
    call: Call, old: str, tmp_path: Path
) -> None:
    ignores = ignore_file(tmp_path, {"rule": "scaled", "reason": "x"})

    result = call("gate", old, "--ignore-file", ignores)

    assert result.exit_code == 2
    assert "ignore.yaml:1: ignore[0].expires: is missing" in result.stderr
    assert "warning: without --baseline" not in result.stderr


def test_only_findings_that_the_baseline_lacks_fail_with_fail_new(call: Call, tmp_path: Path) -> None:
    sick = with_nan(network(), "fc3")
    write_safetensors(tmp_path / "sick.safetensors", sick)
    write_safetensors(tmp_path / "same.safetensors", finetuned(sick))
    write_safetensors(tmp_path / "worse.safetensors", with_nan(finetuned(sick), "fc1"))
    options = ("--baseline", "sick.safetensors", "--fail-new", "--format", "json")

    same = call("gate", "same.safetensors", *options, "--allow-undecided")
    worse = call("gate", "worse.safetensors", *options, "--allow-undecided")

    assert same.exit_code == 0, same.stdout
    assert [(one["layer"], one["new"]) for one in findings(same, "non_finite")] == [("fc3", False)]
    assert worse.exit_code == 1
    assert {one["layer"]: one["new"] for one in findings(worse, "non_finite")} == {"fc1": True, "fc3": False}
    # There is nothing to compare fc3 with: that is never a pass.
    assert call("gate", "same.safetensors", *options).exit_code == 3
    assert call("gate", "same.safetensors", "--baseline", "sick.safetensors").exit_code == 1


def findings(result: Result, rule: str) -> list[dict[str, Any]]:
    return [one for one in report_of(result)["findings"] if one["rule"] == rule]


def test_what_only_a_comparison_finds_is_always_new(call: Call, old: str, scaled: str) -> None:
    result = call("gate", scaled, "--baseline", old, "--fail-new", "--format", "json")

    assert result.exit_code == 1
    assert {one["new"] for one in report_of(result)["findings"]} == {True}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fail-new",), "--fail-new compares with the findings of the baseline: give --baseline"),
        (("--cache", "here", "--no-cache"), "--cache and --no-cache exclude each other"),
        (("--cache", "old.safetensors"), "old.safetensors: is not a directory"),
        (("--ignore-file", "none.yaml"), "none.yaml: there is no such file"),
        (("--as-if", "champion=3", "--format", "sarif"), "--as-if answers by stored alerts"),
        (("--as-if", "champion=3", "--ignore-file", "x"), "--as-if answers by stored alerts"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(
    call: Call, old: str, arguments: tuple[str, ...], told: str
) -> None:
    result = call("gate", old, *arguments)

    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""


def test_the_job_summary_is_appended_beside_the_annotations(
    call: Call, old: str, scaled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))

    result = call("gate", scaled, "--baseline", old, "--format", "github")

    assert result.exit_code == 1
    assert result.stdout.startswith("::error title=layerwatch%3A ")
    assert summary.read_text().startswith("before\n\n### layerwatch: fail: `scaled`\n")


def test_a_summary_that_is_full_or_cannot_be_written_costs_no_job(
    call: Call, old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full.md"
    full.write_bytes(b"x" * (SUMMARY_LIMIT - 50))
    for path, told in ((full, "no room left for a job summary"), (tmp_path, "cannot be written")):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
        result = call("gate", old, "--baseline", old, "--format", "github")
        assert result.exit_code == 0
        assert told in result.stderr
    assert full.stat().st_size == SUMMARY_LIMIT - 50


def test_only_the_format_of_github_writes_a_summary(
    call: Call, old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))

    call("gate", old, "--baseline", old, "--format", "markdown")

    assert not (tmp_path / "summary.md").exists()


def test_the_cache_lies_where_it_is_told_or_where_caches_lie_or_nowhere(
    call: Call, old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))

    call("gate", old, "--no-cache")
    assert not (tmp_path / "xdg").exists()
    call("gate", old, "--cache", "here")
    assert not (tmp_path / "xdg").exists()
    assert len(list((tmp_path / "here").iterdir())) == 1
    call("gate", old)
    assert len(list((tmp_path / "xdg" / "layerwatch" / "gate").iterdir())) == 1


def test_a_cache_that_was_asked_for_and_cannot_be_written_is_told(
    call: Call, old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = call("gate", old, "--cache", f"{old}/cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / old))
    usual = call("gate", old)

    assert asked.exit_code == usual.exit_code == 0
    assert "warning: the cache cannot be written: old.safetensors/cache: Not a directory" in asked.stderr
    assert "cache" not in usual.stderr


def test_a_machine_that_starts_no_scan_process_is_told_and_examines_nothing(
    call: Call, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    result = call("gate", old, "--allow-undecided")

    assert result.exit_code == 3
    assert "the scan process cannot be started: No such file or directory" in result.stderr
    assert result.stdout == ""


def test_a_machine_without_a_home_has_no_cache_and_an_answer(
    call: Call, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)

    assert call("gate", old).exit_code == 0

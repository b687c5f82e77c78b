"""``layerwatch convert``: a stored report prints as the gate would have printed it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from typer.testing import CliRunner, Result

from layerwatch.daemon.cli import app
from layerwatch.daemon.gate.formats.gateformat import GateFormat
from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.formats.table import FORMATS
from layerwatch.daemon.gate.ignorefile import IgnoreFile
from layerwatch.daemon.gate.outcome import GatePolicy, decided
from layerwatch.daemon.gate.stored import read_report
from layerwatch.metrics.report import Report
from layerwatch_testing.examinations import among_healthy, unreadable_layer
from layerwatch_testing.gating import TODAY, broken, entry, reshaped
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.reports import report_of
from layerwatch_testing.reportstrategies import REPORTS

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)


def judged() -> Report:
    ignores = IgnoreFile("ignore.yaml", "00" * 32, (entry(layer="fc"), entry(layer="gone")))
    report = report_of(among_healthy(broken("fc"), broken("other"), reshaped(), unreadable_layer("dark")))
    return decided(report, GatePolicy(), ignores, TODAY)


def stored(folder: Path, change: Callable[[dict[str, Any]], None] = lambda report: None) -> str:
    report = json.loads(judged().to_json())
    change(report)
    (folder / "report.json").write_text(json.dumps(report))
    return "report.json"


@given(REPORTS)
def test_a_report_comes_back_from_its_json_and_prints_the_same(report: Report) -> None:
    back = read_report(report.to_json(indent=2).encode())

    assert back == report
    for format_, render in FORMATS.items():
        assert render(back, Rendering(True)) == render(report, Rendering(True)), format_


@pytest.mark.parametrize("format_", [one for one in GateFormat if one is not GateFormat.HTML])
@pytest.mark.parametrize("show", [(), ("--show-suppressed",)], ids=["", "show suppressed"])
def test_what_the_gate_prints_is_what_convert_makes_of_its_json(
    tmp_path: Path, format_: GateFormat, show: tuple[str, ...]
) -> None:
    write_safetensors(tmp_path / "old.safetensors", network())
    write_safetensors(tmp_path / "new.safetensors", with_wrong_scale(finetuned(network())))
    day = (datetime.now(UTC).date() + timedelta(days=30)).isoformat()
    (tmp_path / "ignore.yaml").write_text(
        json.dumps(
            {
                "ignore": [
                    {"rule": "scaled", "layer": "fc2", "reason": "a|b", "expires": day},
                    {"rule": "scaled", "layer": "fc9", "reason": "gone", "expires": day},
                    {"rule": "scaled", "reason": "over", "expires": "2001-01-01"},
                ]
            }
        )
    )
    options = [
        "new.safetensors",
        "--baseline",
        "old.safetensors",
        "--ignore-file",
        "ignore.yaml",
        "--fail-new",
    ]
    runner = CliRunner()

    runner.invoke(app, ["gate", *options, "--format", "json", "-o", "report.json"])
    printed = runner.invoke(app, ["gate", *options, "--format", format_, *show])
    text = (tmp_path / "report.json").read_text()
    converted = runner.invoke(app, ["convert", "-", "--format", format_, *show], input=text)

    assert converted.exit_code == 0
    assert without_seconds(converted.stdout) == without_seconds(printed.stdout)


def without_seconds(text: str) -> str:
    """Two runs never take the same time; everything else is the same."""
    import re

    text = re.sub(r'("\w+_seconds": )[\d.e-]+', r"\1_", text)
    return re.sub(r'time="[\d.]+"|[\d.]+ s\b', "_", text)


def test_a_report_is_written_to_a_file_and_the_verdict_is_no_exit_code(call: Call, tmp_path: Path) -> None:
    result = call("convert", stored(tmp_path), "--format", "junit", "-o", "report.xml")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "<testsuites " in (tmp_path / "report.xml").read_text()


def test_the_report_of_a_scan_is_converted_too(call: Call, tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text(report_of(among_healthy(broken("fc"))).to_json())

    result = call("convert", "scan.json", "--format", "github")

    assert result.exit_code == 0
    assert result.stdout.startswith("::error title=layerwatch%3A non_finite%3A fc::")


def test_a_report_of_a_version_before_the_gate_wrote_its_answer_is_read(call: Call, tmp_path: Path) -> None:
    def older(report: dict[str, Any]) -> None:
        del report["gate"], report["complete"]
        for finding in report["findings"]:
            del finding["new"], finding["suppressed"]

    assert call("convert", stored(tmp_path, older), "--format", "sarif").exit_code == 0


def test_fields_that_a_later_version_added_are_left_out(call: Call, tmp_path: Path) -> None:
    def later(report: dict[str, Any]) -> None:
        report["colour"] = "blue"
        report["findings"][0]["mood"] = {"a": 1}
        report["layers"][0]["metrics"]["beta"] = 1.0

    result = call("convert", stored(tmp_path, later), "--format", "json")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(judged().to_json())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda report: report.update(schema_version=2), "has schema_version 2 (written by layerwatch"),
        (lambda report: report.update(schema_version=True), "has schema_version true"),
        (lambda report: report.pop("schema_version"), "is no report: it has no schema_version"),
        (lambda report: report.pop("layers"), "is no report: layers: field required; make one with"),
        (lambda report: report["findings"][0].update(severity="bad"), 'there is no severity "bad"'),
        (lambda report: report["findings"][0].update(rule=3), "is no report: findings.0.rule: "),
        (lambda report: report["timings"].update(a=float("nan")), "is no JSON (NaN is no number of JSON)"),
    ],
)
def test_what_is_no_report_of_this_version_is_refused_with_what_to_do(
    call: Call, tmp_path: Path, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    result = call("convert", stored(tmp_path, change), "--format", "text")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert told in result.stderr
    assert "make" in result.stderr


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b'{"schema_version": 1e999}']
)
def test_anything_else_is_refused_too(call: Call, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)

    result = call("convert", "report.json", "--format", "text")

    assert result.exit_code == 2
    assert "make one with: layerwatch gate MODEL --format json -o REPORT.json" in result.stderr


def test_a_missing_file_and_a_missing_format_are_usage_errors(call: Call, tmp_path: Path) -> None:
    missing = call("convert", "none.json", "--format", "text")

    assert missing.exit_code == 2
    assert "none.json: cannot be read: No such file or directory" in missing.stderr
    assert call("convert", stored(tmp_path)).exit_code == 2
    assert call("convert", stored(tmp_path), "--format", "text", "-o", "none/x").exit_code == 2


def test_the_job_summary_is_written_by_convert_as_by_the_gate(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))

    call("convert", stored(tmp_path), "--format", "github")

    assert (tmp_path / "summary.md").read_text().startswith("\n### layerwatch: fail: `v2`\n")

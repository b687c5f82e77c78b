"""SARIF 2.1.0: valid by the schema of OASIS, whatever the layers are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.daemon.gate.formats.rendering import Rendering
from layerwatch.daemon.gate.formats.sarif import artifact_uri, to_sarif
from layerwatch.daemon.gate.ignorefile import IgnoreEntry, IgnoreFile
from layerwatch.daemon.gate.outcome import GatePolicy, decided
from layerwatch.metrics.examination import Problem
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.report import Report
from layerwatch.metrics.rules import RULES
from layerwatch_testing.examinations import among_healthy, examination, layer, measurement, unreadable_layer
from layerwatch_testing.gating import TODAY, broken, entry, reshaped
from layerwatch_testing.reports import report_of
from layerwatch_testing.reportstrategies import REPORTS

SCHEMA = json.loads((Path(__file__).parents[4] / "_data" / "sarif-schema-2.1.0.json").read_text())
VALIDATOR = jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker())


def log_of(report: Report) -> dict[str, Any]:
    text = to_sarif(report, Rendering())
    log: dict[str, Any] = json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
    VALIDATOR.validate(log)
    return log


def run_of(report: Report) -> dict[str, Any]:
    run: dict[str, Any] = log_of(report)["runs"][0]
    return run


def ignoring(report: Report, *entries: IgnoreEntry, policy: GatePolicy | None = None) -> Report:
    return decided(report, policy or GatePolicy(), IgnoreFile("ignore.yaml", "00" * 32, entries), TODAY)


@given(REPORTS)
def test_every_report_is_valid(report: Report) -> None:
    run = run_of(report)

    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    prints = [result["partialFingerprints"]["layerwatch/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints)
    # Present on every result of a run, or on none (3.27.24).
    assert len({"baselineState" in result for result in run["results"]}) <= 1


def test_a_rule_carries_what_it_means_and_what_to_do() -> None:
    run = run_of(report_of(among_healthy(broken())))

    (rule,) = run["tool"]["driver"]["rules"]
    own = next(one for one in RULES if one.name == "non_finite")
    assert rule["id"] == "non_finite"
    assert rule["shortDescription"]["text"] == own.title
    assert own.what_to_do in rule["help"]["text"]
    assert "layerwatch explain non_finite" in rule["help"]["text"]


def test_a_result_names_the_layer_and_the_file_and_has_the_level_of_its_severity() -> None:
    run = run_of(report_of(among_healthy(broken("net.fc"), reshaped("net.head"))))

    levels = {
        result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]: result["level"]
        for result in run["results"]
    }
    assert levels == {"net.fc": "error", "net.head": "warning"}
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert place == {"uri": "models/v2.safetensors", "index": 0}
    assert run["artifacts"][0]["location"]["uri"] == "models/v2.safetensors"


def test_the_fingerprint_of_a_result_outlives_other_numbers_and_tells_layers_apart() -> None:
    def prints(*names: str, non_finite: int) -> list[str]:
        layers = [layer(name, measurement=measurement(non_finite=non_finite), change=None) for name in names]
        run = run_of(report_of(among_healthy(*layers)))
        return [result["partialFingerprints"]["layerwatch/v1"] for result in run["results"]]

    assert prints("a", "b", non_finite=1) == prints("a", "b", non_finite=7)
    assert len(set(prints("a", "b", non_finite=1))) == 2


def test_a_suppressed_finding_is_a_result_with_its_justification() -> None:
    report = ignoring(
        report_of(among_healthy(broken("fc"), broken("other"))),
        entry(layer="fc", reason="known since January"),
    )

    suppressions = {
        result["locations"][0]["logicalLocations"][0]["name"]: result["suppressions"]
        for result in run_of(report)["results"]
    }
    assert suppressions["other"] == []
    (suppression,) = suppressions["fc"]
    assert suppression["kind"] == "external"
    assert suppression["justification"] == "known since January"


def test_entries_that_need_a_person_are_configuration_notifications() -> None:
    report = ignoring(report_of(among_healthy()), entry(layer="gone"))

    (note,) = run_of(report)["invocations"][0]["toolConfigurationNotifications"]
    assert note["level"] == "warning"
    assert "matches no finding" in note["message"]["text"]


def test_what_could_not_be_examined_is_a_notification_and_no_result() -> None:
    run = run_of(report_of(among_healthy(unreadable_layer("dark"))))

    assert run["results"] == []
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is True
    errors = [one for one in invocation["toolExecutionNotifications"] if one["level"] == "error"]
    assert [one["locations"][0]["logicalLocations"][0]["name"] for one in errors] == ["dark"]
    assert invocation["exitCode"] == 3


def test_an_undecided_layer_is_told_where_the_rule_about_it_is_switched_off() -> None:
    report = report_of(among_healthy(unreadable_layer("dark")))
    silent = report.model_copy(update={"findings": ()})

    notes = run_of(silent)["invocations"][0]["toolExecutionNotifications"]
    assert [one["message"]["text"] for one in notes if one["level"] == "error"] == [
        "dark: could not be examined"
    ]


def test_the_execution_failed_where_nothing_of_the_model_was_examined() -> None:
    unread = examination(problem=Problem("truncated", "3 bytes are missing"), has_baseline=True)

    (invocation,) = run_of(report_of(unread))["invocations"]
    assert invocation["executionSuccessful"] is False
    assert any("3 bytes are missing" in one["message"]["text"] for one in _errors(invocation))


def _errors(invocation: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in invocation["toolExecutionNotifications"] if one["level"] == "error"]


def test_results_say_whether_they_are_new_only_when_the_gate_was_asked() -> None:
    report = report_of(among_healthy(broken("a"), broken("b")))
    marked = report.model_copy(
        update={
            "findings": tuple(one.model_copy(update={"new": one.layer == "b"}) for one in report.findings)
        }
    )
    asked = decided(marked, GatePolicy(Severity.CRITICAL, fail_new=True), None, TODAY)

    assert [result["baselineState"] for result in run_of(asked)["results"]] == ["unchanged", "new"]
    assert all("baselineState" not in result for result in run_of(report)["results"])


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ("models/v2.safetensors", "models/v2.safetensors"),
        ("./v2.safetensors", "v2.safetensors"),
        ("a b#c?.pt", "a%20b%23c%3F.pt"),
        ("x:y/z.pt", "./x:y/z.pt"),
        ("/data/m.pt", "file:///data/m.pt"),
        ("mlflow:/fraud/3", "mlflow:/fraud/3"),
        ("hf:owner/name@main", "hf:owner/name@main"),
        ("100%.pt", "100%25.pt"),
    ],
)
def test_a_source_becomes_a_uri_reference(source: str, uri: str) -> None:
    assert artifact_uri(source) == uri


@given(st.text(min_size=1).filter(lambda text: "\ud800" not in text))
def test_a_relative_path_comes_back_from_its_uri(path: str) -> None:
    path = "models/" + path.encode("utf-8", "replace").decode()

    uri = artifact_uri(path)

    assert uri.isascii()
    assert not set(uri) & set(' <>"\\^`{|}?#')
    assert unquote(uri) == path

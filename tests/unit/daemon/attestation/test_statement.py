"""The statement: what was judged, in a form that others read, about exactly those bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement import Statement as OtherStatement  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage  # type: ignore[import-untyped]

from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.attestation.errors import AttestationError, AttestationReason
from layerwatch.daemon.attestation.rulesettings import rules_digest
from layerwatch.daemon.attestation.statement import (
    PREDICATE_TYPE,
    GateOutcome,
    Statement,
    build_statement,
    read_statement,
)
from layerwatch.metrics.manifest import Manifest, ManifestEntry, build_manifest
from layerwatch.metrics.report import Report
from layerwatch_testing.attested import Judged

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
OUTCOME = GateOutcome(exit_code=0, fail_on="critical")


def statement_of(report: Report, files: Manifest, outcome: GateOutcome = OUTCOME) -> Statement:
    return build_statement(report, files, outcome, RulesSettings(), NOW)


def test_it_says_what_was_judged_and_against_what(judged: Judged) -> None:
    files = build_manifest(judged.model)
    found = json.loads(statement_of(judged.report, files).to_bytes())

    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == PREDICATE_TYPE
    assert found["subject"] == [
        {"name": "weights.safetensors", "digest": {"sha256": files.entries[0].sha256}}
    ]
    predicate = found["predicate"]
    assert predicate["verdict"] == "pass"
    assert predicate["fingerprint"] == files.fingerprint == judged.report.model.fingerprint
    assert predicate["baseline"]["relation"] == "finetuned"
    assert predicate["baseline"]["fingerprint"] not in (None, files.fingerprint)
    assert predicate["findings"] == {"critical": 0, "warning": 0, "info": 0}
    assert predicate["undecidedLayers"] == {"count": 0, "names": []}
    assert predicate["time"] == "2026-11-22T12:00:00Z"
    assert predicate["gate"] == {
        "exitCode": 0,
        "failOn": "critical",
        "allowUndecided": False,
        "failNew": False,
        "ignored": 0,
        "ignoreFile": None,
    }
    assert predicate["rules"] == {
        "sha256": rules_digest(RulesSettings()),
        "switchedOff": [],
        "altered": [],
    }
    tool = judged.report.tool
    assert predicate["tool"] == {
        "name": "layerwatch",
        "version": tool.version,
        "metricSet": tool.metric_set,
        "ruleSet": tool.rule_set,
    }


def test_rules_that_were_not_checked_as_usual_are_named(judged: Judged) -> None:
    rules = RulesSettings.model_validate(
        {
            "non_finite": {"enabled": False},
            "scaled": {"severity": "info"},
            "sparsity": {"rise": 1.0},
            "false_alarms_per_1000_versions": 1.0,
        }
    )

    found = build_statement(judged.report, build_manifest(judged.model), OUTCOME, rules, NOW).predicate.rules

    assert found is not None
    assert found.switched_off == ("non_finite",)
    assert set(found.altered) == {"scaled", "sparsity", "false_alarms_per_1000_versions"}
    assert found.sha256 == rules_digest(rules) != rules_digest(RulesSettings())


def test_no_path_or_address_of_the_machine_is_told(judged: Judged) -> None:
    text = statement_of(judged.report, build_manifest(judged.model)).to_bytes().decode()

    assert str(Path(judged.report.model.source).parent) not in text


def test_findings_are_counted_and_rules_named_once(judged: Judged) -> None:
    change = {"rule": "scale_changed", "severity": "critical", "layer": "fc1", "message": "m", "evidence": {}}
    data = json.loads(judged.report.to_json())
    data["findings"] = [change, {**change, "layer": "fc2"}, {**change, "rule": "other", "severity": "info"}]
    data["verdict"] = "fail"
    data["layers"][0]["status"] = "undecided"
    report = Report.model_validate_json(json.dumps(data))

    predicate = statement_of(report, build_manifest(judged.model)).predicate

    assert predicate.findings.model_dump() == {"critical": 2, "warning": 0, "info": 1}
    assert predicate.rules_fired == ("other", "scale_changed")
    assert predicate.undecided_layers.names == (report.layers[0].name,)


def test_another_implementation_reads_it_and_finds_it_valid(judged: Judged) -> None:
    written = statement_of(judged.report, build_manifest(judged.model)).to_bytes()

    message = json_format.Parse(written, StatementMessage())
    OtherStatement.copy_from_pb(message).validate()

    assert message.predicate_type == PREDICATE_TYPE
    assert message.predicate["verdict"] == "pass"


def test_what_another_implementation_wrote_is_read(judged: Judged) -> None:
    message = StatementMessage()
    json_format.ParseDict(judged.statement, message)
    OtherStatement.copy_from_pb(message).validate()
    written = json_format.MessageToJson(message).encode()

    # Numbers of a protobuf Struct are doubles.
    assert b'"critical": 0.0' in written
    assert read_statement(written) == read_statement(json.dumps(judged.statement).encode())


def test_it_is_read_as_it_was_written(judged: Judged) -> None:
    statement = statement_of(judged.report, build_manifest(judged.model))

    assert read_statement(statement.to_bytes()) == statement


def test_bytes_that_changed_after_the_judgement_are_not_signed(judged: Judged) -> None:
    (judged.model / "late.safetensors").write_bytes(b"more")

    with pytest.raises(AttestationError, match="changed while it was judged") as caught:
        statement_of(judged.report, build_manifest(judged.model))

    assert caught.value.reason is AttestationReason.NOT_ATTESTABLE


def test_a_model_that_could_not_be_read_is_not_signed(judged: Judged) -> None:
    model = judged.report.model.model_copy(update={"fingerprint": None})
    report = judged.report.model_copy(update={"model": model})

    with pytest.raises(AttestationError, match="could not be read"):
        statement_of(report, build_manifest(judged.model))


def test_a_file_name_that_is_no_text_is_signed_all_the_same(judged: Judged) -> None:
    files = Manifest((ManifestEntry("a\udcff.safetensors", 1, "ab" * 32),))
    model = judged.report.model.model_copy(update={"fingerprint": files.fingerprint})
    report = judged.report.model_copy(update={"model": model})

    read = read_statement(statement_of(report, files).to_bytes())

    assert read.subject[0].name == "a\\udcff.safetensors"


def refused(statement: dict[str, Any]) -> str:
    with pytest.raises(AttestationError) as caught:
        read_statement(json.dumps(statement).encode())
    assert caught.value.reason is AttestationReason.MALFORMED
    return caught.value.detail


def test_statements_of_other_kinds_are_named_as_such(judged: Judged) -> None:
    genuine = judged.statement

    assert "no in-toto statement" in refused({**genuine, "_type": "https://in-toto.io/Statement/v0.1"})
    assert "no verdict of layerwatch" in refused(
        {**genuine, "predicateType": "https://slsa.dev/provenance/v1"}
    )
    assert "no verdict of layerwatch" in refused({**genuine, "predicateType": PREDICATE_TYPE + "/"})
    assert "names a file twice" in refused({**genuine, "subject": genuine["subject"] * 2})
    assert "subject" in refused({**genuine, "subject": []})
    assert "no in-toto statement" in refused({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("verdict", "good"),
        ("verdict", None),
        ("fingerprint", "AB" * 32),
        ("fingerprint", "ab" * 31),
        ("fingerprint", "ab" * 32 + "\n"),
        ("findings", {"critical": -1, "warning": 0, "info": 0}),
        ("findings", {"critical": "0", "warning": 0, "info": 0}),
        ("gate", {"exitCode": False, "failOn": "critical"}),
        ("gate", {"exitCode": 0, "failOn": "never"}),
        ("time", "yesterday"),
        ("time", "2026-11-22T12:00:00"),
        ("baseline", {"fingerprint": "ä" * 64, "name": "", "version": "", "relation": None, "chosenBy": ""}),
    ],
)
def test_a_predicate_with_a_wrong_value_is_refused(judged: Judged, name: str, value: object) -> None:
    predicate = {**judged.statement["predicate"], name: value}

    assert f"predicate.{name}" in refused({**judged.statement, "predicate": predicate})


@pytest.mark.parametrize("name", ["verdict", "fingerprint", "baseline", "gate", "time", "tool"])
def test_a_predicate_without_a_part_is_refused(judged: Judged, name: str) -> None:
    predicate = {key: value for key, value in judged.statement["predicate"].items() if key != name}

    assert f"predicate.{name}" in refused({**judged.statement, "predicate": predicate})


def test_fields_of_a_later_version_are_passed_over(judged: Judged) -> None:
    predicate = {**judged.statement["predicate"], "more": {"a": 1}}
    digests = {**judged.statement["subject"][0]["digest"], "blake3": "00"}
    subject = [{"name": "weights.safetensors", "digest": digests, "uri": "x"}]

    assert read_statement(
        json.dumps({**judged.statement, "predicate": predicate, "subject": subject}).encode()
    )


def test_a_key_that_stands_twice_in_the_payload_is_refused(judged: Judged) -> None:
    text = json.dumps(judged.statement).replace('"verdict": "pass"', '"verdict": "fail", "verdict": "pass"')

    with pytest.raises(AttestationError, match="'verdict' stands twice"):
        read_statement(text.encode())

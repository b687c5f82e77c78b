"""Rule unreadable: what could not be examined is said, with its reason."""

from __future__ import annotations

from layerwatch.metrics.examination import Problem
from layerwatch.metrics.findings import RuleGroup, Severity
from layerwatch_testing.examinations import (
    among_healthy,
    examination,
    findings_of,
    settings,
    unreadable_layer,
    vector,
)

RULE = "unreadable"


def test_an_unreadable_layer_is_a_warning_with_its_reason() -> None:
    (finding,) = findings_of(RULE, among_healthy(unreadable_layer("fc", "truncated")))

    assert (finding.layer, finding.severity, finding.group) == ("fc", Severity.WARNING, RuleGroup.EXAMINATION)
    assert finding.message == "could not be examined: 3 bytes are missing"
    assert finding.evidence == {"reason": "truncated"}


def test_an_unreadable_vector_is_named_too() -> None:
    broken = vector("fc.bias", measurement=None, change=None, problem=Problem("corrupt", "bad checksum"))

    assert [finding.layer for finding in findings_of(RULE, among_healthy(broken))] == ["fc.bias"]


def test_an_unreadable_version_is_reported_once_without_a_layer() -> None:
    version = examination(has_baseline=False, problem=Problem("missing_shard", "shard 2 of 3 is not there"))

    (finding,) = findings_of(RULE, version)

    assert finding.layer is None
    assert finding.evidence == {"reason": "missing_shard"}


def test_an_unreadable_baseline_is_reported_as_the_baselines_problem() -> None:
    version = among_healthy(baseline_problem=Problem("truncated", "3 bytes are missing"))

    (finding,) = findings_of(RULE, version)

    assert (finding.layer, finding.severity) == (None, Severity.WARNING)
    assert finding.message == "the baseline could not be examined: 3 bytes are missing"


def test_what_was_examined_is_silent() -> None:
    assert findings_of(RULE, among_healthy()) == []


def test_the_severity_comes_from_the_settings() -> None:
    (finding,) = findings_of(RULE, among_healthy(unreadable_layer()), settings(RULE, severity="critical"))

    assert finding.severity is Severity.CRITICAL

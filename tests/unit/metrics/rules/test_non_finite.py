"""Rule non_finite: one NaN or infinity anywhere is enough."""

from __future__ import annotations

import pytest

from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.findings import RuleGroup, Severity
from layerwatch_testing.examinations import (
    among_healthy,
    examination,
    findings_of,
    layer,
    measurement,
    new_layer,
    settings,
    vector,
)

RULE = "non_finite"


def broken(count: int = 1) -> ExaminedLayer:
    return layer("fc", measurement=measurement(non_finite=count, numbers=None, folded=None), change=None)


def test_one_non_finite_weight_is_reported_with_its_share() -> None:
    (finding,) = findings_of(RULE, among_healthy(broken()))

    assert (finding.layer, finding.severity, finding.group) == ("fc", Severity.CRITICAL, RuleGroup.WEIGHTS)
    assert "1 of 4096" in finding.message
    assert finding.evidence == {"non_finite": 1, "elements": 4096, "limit": 0}


def test_finite_weights_are_silent() -> None:
    assert findings_of(RULE, among_healthy(broken(0))) == []


def test_vectors_are_looked_at_too() -> None:
    bias = vector("fc.bias", measurement=measurement(non_finite=2, numbers=None, folded=None), change=None)

    assert [finding.layer for finding in findings_of(RULE, among_healthy(bias))] == ["fc.bias"]


def test_no_baseline_is_needed() -> None:
    alone = new_layer("fc", measurement=measurement(non_finite=3, numbers=None, folded=None))

    assert len(findings_of(RULE, examination(alone, has_baseline=False))) == 1


def test_what_could_not_be_read_is_left_to_another_rule() -> None:
    assert findings_of(RULE, among_healthy(layer("fc", measurement=None, change=None))) == []


@pytest.mark.parametrize("severity", ["info", "warning", "critical"])
def test_the_severity_comes_from_the_settings(severity: str) -> None:
    (finding,) = findings_of(RULE, among_healthy(broken()), settings(RULE, severity=severity))

    assert finding.severity == severity

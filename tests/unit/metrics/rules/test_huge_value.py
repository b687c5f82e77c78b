"""Rule huge_value: more than 8 times the baseline's largest in a layer, 30 times in a vector."""

from __future__ import annotations

import pytest

from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.measurement import LayerKind
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    new_layer,
    settings,
    vector,
)

RULE = "huge_value"


def version(ratio: float | None) -> Examination:
    return among_healthy(layer("fc", change=change(max_abs_ratio=ratio)))


def with_vector(ratio: float) -> Examination:
    moved = change(aligned=None, norm_ratio=None, max_abs_ratio=ratio)
    return among_healthy(vector("bn.running_var", LayerKind.STATISTIC, change=moved))


@pytest.mark.parametrize(
    ("ratio", "fires"), [(7.99, False), (8.0, False), (8.01, True), (2.0**20, True), (None, False)]
)
def test_a_layer_fires_above_eight_times(ratio: float | None, fires: bool) -> None:
    findings = findings_of(RULE, version(ratio))

    assert [finding.layer for finding in findings] == ["fc"] * fires
    for finding in findings:
        assert finding.severity is Severity.CRITICAL
        assert finding.strength == pytest.approx((ratio or 0) / 8)


@pytest.mark.parametrize(("ratio", "fires"), [(30.0, False), (30.1, True)])
def test_a_vector_fires_above_thirty_times(ratio: float, fires: bool) -> None:
    findings = findings_of(RULE, with_vector(ratio))

    assert [finding.layer for finding in findings] == ["bn.running_var"] * fires
    assert all(finding.severity is Severity.CRITICAL for finding in findings)


def test_vectors_are_a_warning_where_the_whole_model_moved_far() -> None:
    # Running variances grew by a factor of 100 in a healthy fine-tune of 100 epochs (Distiller ResNet-20).
    moved = change(aligned=None, norm_ratio=None, max_abs_ratio=100.0)
    far = [layer(f"other{number}", change=change(aligned=aligned(0.6, 0.8))) for number in range(4)]
    version = examination(
        *far, layer("fc", change=change(max_abs_ratio=9.0)), vector("bn.running_var", change=moved)
    )

    found = {finding.layer: finding.severity for finding in findings_of(RULE, version)}

    assert found == {"fc": Severity.CRITICAL, "bn.running_var": Severity.WARNING}


def test_no_baseline_no_finding() -> None:
    assert findings_of(RULE, examination(new_layer("fc"), has_baseline=False)) == []


def test_limits_and_severity_come_from_the_settings() -> None:
    rules = settings(RULE, limit=100, vector_limit=3, severity="warning")

    assert findings_of(RULE, version(99.0), rules) == []
    (finding,) = findings_of(RULE, with_vector(3.5), rules)
    assert finding.severity is Severity.WARNING
    assert finding.evidence["limit"] == 3


def test_a_running_variance_that_grew_with_the_weights_in_front_is_healthy() -> None:
    growing = layer(
        "conv1", measurement=measurement(norm=48.0, folded_by="bn1"), baseline=measurement(norm=8.0)
    )
    variance = vector("bn1.running_var", LayerKind.STATISTIC, change=change(max_abs_ratio=99.0))

    assert findings_of(RULE, among_healthy(growing, variance)) == []
    assert [finding.layer for finding in findings_of(RULE, among_healthy(variance))] == ["bn1.running_var"]

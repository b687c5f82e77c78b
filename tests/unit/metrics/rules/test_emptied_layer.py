"""Rule emptied_layer: all weights zero, and why that may be no alarm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.measurement import LayerKind, Measurement
from layerwatch_testing.examinations import (
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

RULE = "emptied_layer"


def zeros(**other: Any) -> Measurement:
    return measurement(**({"max_abs": 0.0, "norm": 0.0, "zero_share": 1.0} | other))


def emptied(**other: Any) -> ExaminedLayer:
    return layer(
        "fc", **({"measurement": zeros(), "change": change(emptied=True, max_abs_ratio=0.0)} | other)
    )


def test_a_layer_that_became_zero_is_critical_and_tells_what_it_was() -> None:
    (finding,) = findings_of(RULE, among_healthy(emptied()))

    assert (finding.layer, finding.severity) == ("fc", Severity.CRITICAL)
    assert "in the baseline the largest was 0.5" in finding.message
    assert finding.evidence["baseline_max_abs"] == 0.5


def test_one_weight_that_is_not_zero_is_enough_to_be_silent() -> None:
    assert findings_of(RULE, among_healthy(emptied(measurement=zeros(max_abs=1e-30)))) == []


def test_a_zero_layer_without_baseline_is_critical() -> None:
    alone = examination(new_layer("fc", measurement=zeros()), has_baseline=False)

    (finding,) = findings_of(RULE, alone)

    assert finding.severity is Severity.CRITICAL


def test_a_layer_that_was_zero_before_is_information() -> None:
    (finding,) = findings_of(RULE, among_healthy(emptied(baseline=zeros())))

    assert finding.severity is Severity.INFO
    assert "as in the baseline" in finding.message


def test_a_branch_whose_batch_norm_saw_only_zeros_was_removed_on_purpose() -> None:
    removed = zeros(folded_by="layer1.0.bn2", fold_statistics_empty=True)

    (finding,) = findings_of(RULE, among_healthy(emptied(measurement=removed)))

    assert finding.severity is Severity.INFO
    assert "layer1.0.bn2 saw only zeros during training" in finding.message


def test_a_layer_of_nothing_but_nan_is_left_to_another_rule() -> None:
    assert findings_of(RULE, among_healthy(emptied(measurement=zeros(non_finite=4096)))) == []


def test_a_norm_gain_that_became_zero_is_reported_and_a_bias_is_not() -> None:
    gain = vector("norm.weight", LayerKind.NORM, measurement=zeros(shape=(64,)))
    bias = vector("fc.bias", LayerKind.BIAS, measurement=zeros(shape=(64,)))

    assert [finding.layer for finding in findings_of(RULE, among_healthy(gain, bias))] == ["norm.weight"]


def test_a_zero_gain_without_baseline_is_a_common_way_to_start_training() -> None:
    gain = vector("norm.weight", LayerKind.NORM, measurement=zeros(shape=(64,)), baseline=None, change=None)

    assert findings_of(RULE, examination(gain, has_baseline=False)) == []


@pytest.mark.parametrize("severity", ["info", "warning"])
def test_the_severity_comes_from_the_settings(severity: str) -> None:
    (finding,) = findings_of(RULE, among_healthy(emptied()), settings(RULE, severity=severity))

    assert finding.severity == severity


def test_what_feeds_nothing_but_a_removed_branch_belongs_to_it() -> None:
    end = emptied(measurement=zeros(folded_by="layer1.0.bn2", fold_statistics_empty=True))
    branch = replace(end, name="layer1.0.conv2")
    partner = replace(emptied(measurement=zeros(folded_by="layer1.0.bn1")), name="layer1.0.conv1")
    gain = vector("layer1.0.bn2.weight", LayerKind.NORM, measurement=zeros(shape=(64,)))
    elsewhere = replace(partner, name="layer1.1.conv1")

    findings = findings_of(RULE, among_healthy(partner, branch, elsewhere, gain))

    assert {finding.layer: finding.severity for finding in findings} == {
        "layer1.0.conv1": Severity.INFO,
        "layer1.0.conv2": Severity.INFO,
        "layer1.0.bn2.weight": Severity.INFO,
        "layer1.1.conv1": Severity.CRITICAL,
    }
    assert "belongs to the removed branch that ends in layer1.0.conv2" in findings[0].message


def test_a_layer_emptied_after_training_takes_nobody_with_it() -> None:
    # The statistics behind it still tell of the outputs that it had.
    end = replace(emptied(measurement=zeros(folded_by="layer1.0.bn2")), name="layer1.0.conv2")
    partner = replace(emptied(measurement=zeros(folded_by="layer1.0.bn1")), name="layer1.0.conv1")

    findings = findings_of(RULE, among_healthy(partner, end))

    assert {finding.severity for finding in findings} == {Severity.CRITICAL}


@pytest.mark.parametrize("name", ["q.lora_B.weight", "q.lora_up.weight", "e.lora_embedding_B"])
def test_the_second_factor_of_an_adapter_is_zero_before_training(name: str) -> None:
    fresh = new_layer(name, measurement=zeros())

    (finding,) = findings_of(RULE, examination(fresh, has_baseline=False))

    assert finding.severity is Severity.INFO
    assert "before its training" in finding.message


def test_a_first_factor_of_zeros_and_a_second_one_that_was_alive_are_critical() -> None:
    first = new_layer("q.lora_A.weight", measurement=zeros())
    second = replace(emptied(), name="q.lora_B.weight")

    findings = findings_of(RULE, among_healthy(first, second))

    assert {finding.severity for finding in findings} == {Severity.CRITICAL}
    assert len(findings) == 2

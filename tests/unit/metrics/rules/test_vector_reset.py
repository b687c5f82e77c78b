"""Rule vector_reset: biases, gains and running statistics that were reset or rescaled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layerwatch.metrics import compare_models
from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch.metrics.measurement import LayerKind, Measurement
from layerwatch_testing.examinations import (
    aligned,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    settings,
    vector,
)

RULE = "vector_reset"


def of_vector(norm: float, kind: LayerKind, **other: Any) -> Measurement:
    values: dict[str, Any] = {"shape": (64,), "norm": norm, "max_abs": norm / 3.0}
    return measurement(kind=kind, numbers=None, folded=None, **(values | other))


def moved(
    ratio: float, name: str = "ln.weight", kind: LayerKind = LayerKind.NORM, before: float = 8.0, **now: Any
) -> ExaminedLayer:
    return vector(
        name, kind, measurement=of_vector(before * ratio, kind, **now), baseline=of_vector(before, kind)
    )


def version(
    one: ExaminedLayer, *layers: ExaminedLayer, change_: float = 0.05, cosine: float = 0.999
) -> Examination:
    others = (layer(f"other{number}", change=change(aligned=aligned(change_, cosine))) for number in range(4))
    return examination(*others, *layers, one)


def severities(found: Examination) -> list[Severity]:
    return [finding.severity for finding in findings_of(RULE, found)]


@pytest.mark.parametrize(
    ("ratio", "fires"), [(3.19, False), (3.21, True), (1 / 3.19, False), (1 / 3.21, True), (1.0, False)]
)
def test_a_norm_that_changed_more_than_three_times_is_critical_after_a_short_change(
    ratio: float, fires: bool
) -> None:
    assert severities(version(moved(ratio))) == [Severity.CRITICAL] * fires


@pytest.mark.parametrize(("change_", "cosine"), [(0.3, 0.9), (1.4, 0.0)], ids=["long", "unaligned"])
def test_it_is_a_warning_after_a_long_change_or_a_retrain(change_: float, cosine: float) -> None:
    assert severities(version(moved(62.0), change_=change_, cosine=cosine)) == [Severity.WARNING]


@pytest.mark.parametrize(("change_", "cosine"), [(0.05, 0.999), (0.3, 0.9), (1.4, 0.0)])
@pytest.mark.parametrize("ratio", [101.0, 1 / 101.0])
def test_beyond_a_hundred_times_it_is_critical_in_any_case(
    ratio: float, change_: float, cosine: float
) -> None:
    assert severities(version(moved(ratio), change_=change_, cosine=cosine)) == [Severity.CRITICAL]


@pytest.mark.parametrize(("change_", "cosine"), [(0.05, 0.999), (0.3, 0.9), (1.4, 0.0)])
def test_a_vector_that_became_constant_was_reset(change_: float, cosine: float) -> None:
    (finding,) = findings_of(RULE, version(moved(1.0, constant=True), change_=change_, cosine=cosine))

    assert finding.severity is Severity.CRITICAL
    assert "all elements have become equal (2.67 in size)" in finding.message


def test_a_bias_of_zeros_is_told_as_such() -> None:
    (finding,) = findings_of(RULE, version(moved(0.0, "fc.bias", LayerKind.BIAS, constant=True, max_abs=0.0)))

    assert finding.severity is Severity.CRITICAL
    assert "all elements have become equal (zero)" in finding.message


def test_a_vector_that_was_constant_before_and_a_new_one_are_silent() -> None:
    before = of_vector(8.0, LayerKind.NORM, constant=True)
    same = vector("ln.weight", LayerKind.NORM, measurement=before, baseline=before)
    nearly = vector(
        "ln.weight",
        LayerKind.NORM,
        measurement=of_vector(8.0, LayerKind.NORM, constant=True, max_abs=1.0),
        baseline=of_vector(8.0, LayerKind.NORM, max_abs=1.01),
    )
    new = vector("ln.weight", LayerKind.NORM, measurement=before, baseline=None, change=None)

    for one in (same, nearly, new):
        assert severities(version(one)) == []


def test_short_vectors_and_those_of_nothing_are_left_out() -> None:
    small = vector(
        "v",
        LayerKind.VECTOR,
        shape=(7,),
        measurement=of_vector(9.0, LayerKind.VECTOR, shape=(7,)),
        baseline=of_vector(1.0, LayerKind.VECTOR, shape=(7,)),
    )

    assert severities(version(small)) == []
    assert severities(version(moved(1e3, before=1e-15))) == []
    assert severities(version(moved(5.0, before=0.0))) == []


def statistic(ratio: float, name: str = "bn1.running_mean") -> ExaminedLayer:
    return moved(ratio, name, LayerKind.STATISTIC)


def test_a_running_statistic_is_a_warning_at_most_up_to_a_hundred_times() -> None:
    assert severities(version(statistic(50.0))) == [Severity.WARNING]
    assert severities(version(statistic(101.0))) == [Severity.CRITICAL]


def test_of_a_running_variance_the_square_root_counts() -> None:
    assert severities(version(statistic(10.0, "bn1.running_var"))) == []
    assert severities(version(statistic(11.0, "bn1.running_var"))) == [Severity.WARNING]
    assert severities(version(statistic(9000.0, "bn1.running_var"))) == [Severity.WARNING]
    assert severities(version(statistic(11000.0, "bn1.running_var"))) == [Severity.CRITICAL]


def convolution(growth: float) -> ExaminedLayer:
    return layer(
        "conv1", measurement=measurement(norm=8.0 * growth, folded_by="bn1"), baseline=measurement(norm=8.0)
    )


@pytest.mark.parametrize(("name", "ratio"), [("bn1.running_mean", 6.0), ("bn1.running_var", 36.0)])
def test_statistics_that_grew_with_the_weights_in_front_are_healthy(name: str, ratio: float) -> None:
    assert severities(version(statistic(ratio, name), convolution(6.0))) == []
    assert severities(version(statistic(1 / ratio, name), convolution(1 / 6.0))) == []
    assert severities(version(statistic(1 / ratio, name), convolution(6.0))) == [Severity.WARNING]


def test_statistics_that_stayed_are_not_blamed_for_the_weights_in_front() -> None:
    assert severities(version(statistic(1.0), convolution(50.0))) == []


def test_weights_that_are_damaged_themselves_explain_nothing() -> None:
    assert severities(version(statistic(1e6), convolution(1e6))) == [Severity.CRITICAL]


def test_the_vectors_of_a_removed_branch_are_left_out() -> None:
    first = layer("layer1.0.conv1", measurement=measurement(folded_by="layer1.0.bn1"))
    removed = measurement(
        max_abs=0.0, norm=0.0, zero_share=1.0, folded_by="layer1.0.bn2", fold_statistics_empty=True
    )
    second = layer("layer1.0.conv2", measurement=removed, change=change(emptied=True))
    for name in ("layer1.0.bn2.running_var", "layer1.0.bn2.weight", "layer1.0.bn1.running_mean"):
        reset = moved(1e-6, name, LayerKind.STATISTIC, constant=True)
        assert severities(version(reset, first, second)) == []
    elsewhere = moved(1e-6, "layer1.1.bn2.running_mean", LayerKind.STATISTIC)
    assert severities(version(elsewhere, first, second)) == [Severity.CRITICAL]


def test_limits_come_from_the_settings() -> None:
    assert findings_of(RULE, version(moved(5.0)), settings(RULE, norm_ratio=6)) == []
    assert findings_of(RULE, version(moved(5.0)), settings(RULE, min_elements=65)) == []
    retrained = version(moved(50.0), change_=1.4, cosine=0.0)
    (finding,) = findings_of(RULE, retrained, settings(RULE, extreme_norm_ratio=40))
    assert finding.severity is Severity.CRITICAL


@pytest.mark.parametrize("has_baseline", [True, False])
@pytest.mark.parametrize("elements", [4, 64])
def test_a_variance_below_zero_is_critical_with_or_without_a_baseline(
    has_baseline: bool, elements: int
) -> None:
    now = of_vector(8.0, LayerKind.STATISTIC, min_value=-1e-3, shape=(elements,))
    before = of_vector(8.0, LayerKind.STATISTIC, min_value=0.5, shape=(elements,)) if has_baseline else None
    statistic = vector(
        "bn.running_var", LayerKind.STATISTIC, measurement=now, baseline=before, shape=(elements,)
    )

    (finding,) = findings_of(RULE, examination(layer(), statistic, has_baseline=has_baseline))

    assert finding.severity is Severity.CRITICAL
    assert "a variance is below zero (smallest -0.001)" in finding.message
    assert finding.evidence["baseline_min_value"] == (0.5 if has_baseline else None)


@pytest.mark.parametrize(
    ("name", "smallest"), [("bn.running_var", 0.0), ("bn.running_mean", -3.0), ("bn.bias", -3.0)]
)
def test_what_is_no_variance_may_be_below_zero(name: str, smallest: float) -> None:
    now = of_vector(8.0, LayerKind.STATISTIC, min_value=smallest)

    assert findings_of(RULE, version(vector(name, LayerKind.STATISTIC, measurement=now, baseline=now))) == []


def test_a_negative_variance_in_a_file_is_found() -> None:
    rng = np.random.default_rng(0)
    state = {
        "conv1.weight": rng.standard_normal((16, 8, 3, 3)).astype(np.float32),
        "bn1.weight": np.ones(16, np.float32),
        "bn1.bias": np.zeros(16, np.float32),
        "bn1.running_mean": np.zeros(16, np.float32),
        "bn1.running_var": np.where(np.arange(16) == 5, -0.25, 1.0).astype(np.float32),
    }

    healthy = {**state, "bn1.running_var": np.ones(16, np.float32)}

    found = compare_models(state, healthy)

    assert found.verdict is Verdict.FAIL
    assert [one.layer for one in found.findings if one.rule == RULE] == ["bn1.running_var"]

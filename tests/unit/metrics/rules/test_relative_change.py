"""Rule relative_change: above max(0.35, 4 x the median layer's), where weights are comparable."""

from __future__ import annotations

import pytest

from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    findings_of,
    layer,
    new_layer,
    settings,
)

RULE = "relative_change"


def moved(value: float, name: str = "fc", cosine: float | None = 0.9) -> ExaminedLayer:
    return layer(name, change=change(aligned=aligned(value, cosine)))


def beside(median: float, value: float) -> Examination:
    return examination(*(moved(median, f"other{number}") for number in range(4)), moved(value))


@pytest.mark.parametrize(
    ("median", "value", "fires"),
    [
        (0.0, 0.35, False),
        (0.0, 0.351, True),
        (0.05, 0.349, False),
        (0.05, 0.351, True),
        # 4 x 0.15 = 0.60 is the limit now.
        (0.15, 0.59, False),
        (0.15, 0.61, True),
        # Long fine-tunes (median 0.2 and more) are comparable too.
        (0.45, 1.79, False),
        (0.45, 1.81, True),
    ],
)
def test_the_limit_is_the_larger_of_an_absolute_and_a_relative_one(
    median: float, value: float, fires: bool
) -> None:
    findings = findings_of(RULE, beside(median, value))

    assert [finding.layer for finding in findings] == ["fc"] * fires
    for finding in findings:
        assert finding.severity is Severity.CRITICAL
        assert finding.strength == pytest.approx(value / max(0.35, 4 * median))


def test_silent_where_nothing_is_aligned() -> None:
    # A retrain from another seed: cosines near zero, relative changes near the square root of two.
    others = [moved(1.4, f"other{number}", cosine=0.01) for number in range(4)]

    assert findings_of(RULE, examination(*others, moved(9.0, cosine=0.01))) == []


def test_no_baseline_no_finding() -> None:
    assert findings_of(RULE, examination(new_layer("fc"), has_baseline=False)) == []


def test_a_layer_that_was_empty_before_has_no_relative_change() -> None:
    empty_before = change(aligned=aligned(0.0, None))
    nothing = change(aligned=None)

    version = among_healthy(layer("a", change=empty_before), layer("b", change=nothing))

    assert findings_of(RULE, version) == []


def test_an_estimate_says_so_with_its_error() -> None:
    estimated = change(aligned=aligned(0.9, 0.6, error=0.12, method=Method.SKETCH))

    (finding,) = findings_of(RULE, among_healthy(layer("fc", change=estimated)))

    assert "estimated, +-12%" in finding.message
    assert finding.evidence["method"] == "sketch"
    assert finding.evidence["relative_error"] == 0.12


def test_limits_and_severity_come_from_the_settings() -> None:
    rules = settings(RULE, limit=0.1, times_median=1.5, severity="warning")

    assert findings_of(RULE, beside(0.1, 0.149), rules) == []
    (finding,) = findings_of(RULE, beside(0.1, 0.151), rules)
    assert finding.severity is Severity.WARNING

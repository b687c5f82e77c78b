"""Rule spectral_outlier: one layer's spectrum moved, measured against the others'."""

from __future__ import annotations

from typing import Any

import pytest

from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.measurement import LayerKind
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

RULE = "spectral_outlier"


def moved(severity: float, name: str = "fc", cosine: float = 0.99, relative: float = 0.05) -> ExaminedLayer:
    """A layer whose stable rank moved by so many times the healthy 0.15 decades."""
    numbers = change(
        aligned=aligned(relative, cosine),
        stable_rank_ratio=10 ** (-0.15 * severity),
    )
    return layer(name, change=numbers)


def beside(median: float, value: float, cosine: float = 0.99, relative: float = 0.05) -> Examination:
    others = [moved(median, f"other{number}", cosine, relative) for number in range(4)]
    return examination(*others, moved(value, "fc", cosine, relative))


@pytest.mark.parametrize(
    ("median", "value", "fires"),
    [
        (0.0, 0.99, False),
        (0.0, 1.01, True),
        (0.3, 0.99, False),
        (0.3, 1.01, True),
        (0.5, 1.49, False),
        (0.5, 1.51, True),
    ],
)
def test_the_limit_is_one_and_three_times_the_median(median: float, value: float, fires: bool) -> None:
    findings = findings_of(RULE, beside(median, value))

    assert [finding.layer for finding in findings] == ["fc"] * fires
    for finding in findings:
        assert finding.severity is Severity.CRITICAL
        assert finding.strength == pytest.approx(value / max(1.0, 3 * median))


@pytest.mark.parametrize(
    ("median", "value", "fires"),
    [(0.0, 1.79, False), (0.0, 1.81, True), (0.5, 2.69, False), (0.5, 2.71, True)],
)
def test_after_another_seed_a_warning_begins_at_nine_tenths_of_what_is_critical(
    median: float, value: float, fires: bool
) -> None:
    findings = findings_of(RULE, beside(median, value, cosine=0.0, relative=1.4))

    assert [(finding.layer, finding.severity) for finding in findings] == [("fc", Severity.WARNING)] * fires
    for finding in findings:
        assert finding.strength == pytest.approx(value / max(1.0, 3 * median))


@pytest.mark.parametrize(
    ("median", "value", "severity"),
    [(0.0, 1.99, "warning"), (0.0, 2.01, "critical"), (0.5, 2.99, "warning"), (0.5, 3.01, "critical")],
)
def test_after_another_seed_only_twice_the_limit_is_critical(
    median: float, value: float, severity: str
) -> None:
    (finding,) = findings_of(RULE, beside(median, value, cosine=0.0, relative=1.4))

    assert finding.severity == severity


@pytest.mark.parametrize(
    "other", [{"kind": LayerKind.EMBEDDING}, {"eigenvalues": 31}], ids=["an embedding", "few eigenvalues"]
)
@pytest.mark.parametrize(("value", "fires"), [(4.9, False), (5.1, True)])
def test_what_differs_from_seed_to_seed_by_nature_needs_more(
    other: dict[str, Any], value: float, fires: bool
) -> None:
    seeds = [moved(0.1, f"other{number}", 0.0, 1.4) for number in range(4)]
    kind = other.get("kind", LayerKind.LINEAR)
    numbers = change(
        aligned=aligned(1.4, 0.0),
        stable_rank_ratio=10 ** (-0.15 * value),
        num_eigenvalues=other.get("eigenvalues", 64),
    )

    assert len(findings_of(RULE, examination(*seeds, layer("fc", kind=kind, change=numbers)))) == fires


@pytest.mark.parametrize(
    ("median", "cosine", "relative"), [(0.3, 0.99, 0.5), (0.7, 0.0, 1.4)], ids=["long", "unaligned and wide"]
)
@pytest.mark.parametrize(("value", "fires"), [(4.99, False), (5.01, True)])
def test_where_everything_moved_the_limit_is_five_and_six_times_the_median(
    median: float, cosine: float, relative: float, value: float, fires: bool
) -> None:
    assert len(findings_of(RULE, beside(median, value, cosine, relative))) == fires


def test_six_times_the_median_counts_where_it_is_the_larger() -> None:
    assert findings_of(RULE, beside(1.0, 5.9, 0.0, 1.4)) == []
    assert len(findings_of(RULE, beside(1.0, 6.1, 0.0, 1.4))) == 1


@pytest.mark.parametrize(
    "numbers",
    [
        # Each divided by its divisor in section 10 of the detection study.
        {"norm_ratio": 10 ** (0.20 / 2)},
        {"spectral_ratio": 10 ** (-0.35 / 2)},
        {"stable_rank_ratio": 10**0.15},
        {"effective_rank_ratio": 10**-0.08},
        {"kurtosis_ratio": 10**0.55},
        {"rank_loss_shift": 0.20},
        # 1.63 sqrt(2/2000) = 0.05: the distance of 0.15 counts.
        {"esd_distance": 0.15, "num_eigenvalues": 2000},
        # 1.63 sqrt(2/64) = 0.288 is what chance gives 64 eigenvalues.
        {"esd_distance": 1.63 * (2 / 64) ** 0.5, "num_eigenvalues": 64},
    ],
)
def test_each_number_counts_one_at_its_divisor(numbers: dict[str, Any]) -> None:
    name = next(iter(numbers))
    value = numbers[name]
    scaled = {key: part for key, part in numbers.items() if key == "num_eigenvalues"}

    def fires(factor: float) -> bool:
        at = value**factor if name.endswith("ratio") else value * factor
        return bool(findings_of(RULE, among_healthy(layer("fc", change=change(**scaled, **{name: at})))))

    assert fires(1.01)
    assert not fires(0.99)


def test_a_gain_of_rank_is_no_defect() -> None:
    assert findings_of(RULE, among_healthy(layer("fc", change=change(rank_loss_shift=-0.9)))) == []


def test_an_emptied_layer_is_left_to_its_own_rule() -> None:
    emptied = change(emptied=True, norm_ratio=None, effective_rank_ratio=100.0)

    assert findings_of(RULE, among_healthy(layer("fc", change=emptied))) == []


def test_a_layer_of_another_shape_is_not_judged() -> None:
    reshaped = change(aligned=None, norm_ratio=30.0)

    assert findings_of(RULE, among_healthy(layer("fc", change=reshaped))) == []


def test_no_baseline_no_finding() -> None:
    assert findings_of(RULE, examination(new_layer("fc"), has_baseline=False)) == []


def test_limits_divisors_and_severity_come_from_the_settings() -> None:
    rules = settings(
        RULE, severity_limit=2.0, times_median=1.0, divisors={"log_stable_rank": 0.075}, severity="warning"
    )

    assert findings_of(RULE, beside(0.0, 0.99), rules) == []
    (finding,) = findings_of(RULE, beside(0.0, 1.01), rules)
    assert finding.severity is Severity.WARNING
    assert finding.evidence["spectral_severity"] == pytest.approx(2.02)

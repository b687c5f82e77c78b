"""Rule scaled: cosine above 0.95 and a norm that moved by more than 10^0.45 against the median layer's."""

from __future__ import annotations

import pytest

from layerwatch.metrics.change import Change
from layerwatch.metrics.examination import Examination
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

RULE = "scaled"


def scaled(ratio: float | None, cosine: float | None = 0.999) -> Change:
    return change(aligned=aligned(abs((ratio or 1.0) - 1), cosine), norm_ratio=ratio)


def version(ratio: float | None, cosine: float | None = 0.999) -> Examination:
    return among_healthy(layer("fc", change=scaled(ratio, cosine)))


@pytest.mark.parametrize(
    ("ratio", "fires"),
    [(10**0.44, False), (10**0.46, True), (10**-0.44, False), (10**-0.46, True), (1.0, False), (None, False)],
)
def test_a_norm_that_moved_by_more_than_the_limit_fires_in_both_directions(
    ratio: float | None, fires: bool
) -> None:
    findings = findings_of(RULE, version(ratio))

    assert [finding.layer for finding in findings] == ["fc"] * fires
    assert all(finding.severity is Severity.CRITICAL for finding in findings)


@pytest.mark.parametrize(("cosine", "fires"), [(0.94, False), (0.96, True), (-0.99, False), (None, False)])
def test_only_a_layer_that_kept_its_direction_is_scaled(cosine: float | None, fires: bool) -> None:
    assert len(findings_of(RULE, version(10.0, cosine))) == fires


@pytest.mark.parametrize(("ratio", "words"), [(10.0, "10 times larger"), (0.1, "10 times smaller")])
def test_the_message_names_the_factor(ratio: float, words: str) -> None:
    (finding,) = findings_of(RULE, version(ratio))

    assert words in finding.message


def test_a_factor_that_all_layers_share_is_not_a_wrong_scale_of_one() -> None:
    every = [layer(f"fc{number}", change=scaled(10.0)) for number in range(5)]

    assert findings_of(RULE, examination(*every)) == []


def test_the_layer_that_was_left_out_of_a_common_factor_is_named() -> None:
    others = [layer(f"fc{number}", change=scaled(10.0)) for number in range(4)]

    findings = findings_of(RULE, examination(*others, layer("left", change=scaled(1.0))))

    assert [finding.layer for finding in findings] == ["left"]


def test_silent_where_nothing_is_aligned() -> None:
    others = [layer(f"fc{number}", change=change(aligned=aligned(1.4, 0.0))) for number in range(4)]

    assert findings_of(RULE, examination(*others, layer("fc", change=scaled(10.0)))) == []


def test_no_baseline_no_finding() -> None:
    assert findings_of(RULE, examination(new_layer("fc"), has_baseline=False)) == []


def test_limits_and_severity_come_from_the_settings() -> None:
    rules = settings(RULE, cosine=0.5, log10_norm_ratio=0.1, severity="info")

    (finding,) = findings_of(RULE, version(1.3, 0.6), rules)

    assert finding.severity is Severity.INFO

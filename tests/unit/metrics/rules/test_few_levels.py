"""Rule few_levels: four different values per row where there were more than sixteen."""

from __future__ import annotations

import pytest

from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.relation import Relation
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    settings,
)

RULE = "few_levels"


def rounded(
    now: float | None, before: float | None = 64.0, name: str = "fc", cosine: float = 0.9
) -> ExaminedLayer:
    return layer(
        name,
        measurement=measurement(levels_per_row=now),
        baseline=measurement(levels_per_row=before),
        change=change(aligned=aligned(0.3, cosine)),
    )


@pytest.mark.parametrize(
    ("now", "before", "fires"),
    [
        (4.0, 17.0, True),
        (4.0, 16.0, False),
        (5.0, 64.0, False),
        (2.0, 64.0, True),
        (None, 64.0, False),
        (3.0, None, False),
    ],
)
def test_few_values_where_there_were_many_are_critical(
    now: float | None, before: float | None, fires: bool
) -> None:
    findings = findings_of(RULE, among_healthy(rounded(now, before)))

    assert [(finding.layer, finding.severity) for finding in findings] == [("fc", Severity.CRITICAL)] * fires


def test_the_message_tells_both_numbers() -> None:
    (finding,) = findings_of(RULE, among_healthy(rounded(3.0)))

    assert "a row holds 3 different values (median); in the baseline 64" in finding.message
    assert finding.strength == pytest.approx(8 / 3)


def test_rounding_all_layers_of_a_trained_network_is_still_critical() -> None:
    findings = findings_of(RULE, examination(*(rounded(4.0, name=f"fc{number}") for number in range(5))))

    assert [finding.severity for finding in findings] == [Severity.CRITICAL] * 5


def test_a_network_that_was_trained_with_two_bits_gives_warnings() -> None:
    trained = [rounded(3.0, name=f"fc{number}", cosine=0.0) for number in range(5)]

    assert {finding.severity for finding in findings_of(RULE, examination(*trained))} == {Severity.WARNING}


def test_one_such_layer_of_a_retrained_network_is_critical() -> None:
    others = [rounded(64.0, name=f"fc{number}", cosine=0.0) for number in range(5)]

    (finding,) = findings_of(RULE, examination(*others, rounded(3.0, cosine=0.0)))

    assert finding.severity is Severity.CRITICAL


def test_limits_come_from_the_settings() -> None:
    assert findings_of(RULE, among_healthy(rounded(4.0)), settings(RULE, levels=3)) == []
    assert findings_of(RULE, among_healthy(rounded(4.0)), settings(RULE, baseline_levels=64)) == []


@pytest.mark.parametrize(
    ("coarse", "now", "before", "fires"),
    [(3, 16.0, 33.0, True), (3, 17.0, 64.0, False), (3, 16.0, 32.0, False), (2, 16.0, 64.0, False)],
)
def test_a_version_most_of_whose_layers_became_coarse_is_one_warning(
    coarse: int, now: float, before: float, fires: bool
) -> None:
    layers = [rounded(now, before, f"coarse{number}") for number in range(coarse)]
    fine = [rounded(64.0, 64.0, f"fine{number}") for number in range(2)]

    findings = findings_of(RULE, examination(*layers, *fine))

    assert [(finding.layer, finding.severity) for finding in findings] == [(None, Severity.WARNING)] * fires


def test_a_declared_quantisation_to_coarse_values_is_information() -> None:
    version = examination(
        *(rounded(16.0, 64.0, f"fc{number}") for number in range(3)), relation=Relation.QUANTIZED
    )

    (finding,) = findings_of(RULE, version)
    assert finding.severity is Severity.INFO

"""Rule duplicate_rows: two rows or more that became copies."""

from __future__ import annotations

from typing import Any

import pytest

from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.measurement import LayerKind
from layerwatch_testing.examinations import among_healthy, findings_of, layer, measurement, settings

RULE = "duplicate_rows"


def with_copies(now: int | None, before: int | None = 0, **other: Any) -> ExaminedLayer:
    return layer(
        "fc",
        measurement=measurement(duplicate_rows=now),
        baseline=measurement(duplicate_rows=before),
        **other,
    )


@pytest.mark.parametrize(
    ("now", "before", "fires"),
    [
        (1, 0, False),
        (2, 0, True),
        (11, 10, False),
        (12, 10, True),
        (3, 9, False),
        (None, 0, False),
        (9, None, False),
    ],
)
def test_two_rows_more_than_in_the_baseline_are_critical(
    now: int | None, before: int | None, fires: bool
) -> None:
    findings = findings_of(RULE, among_healthy(with_copies(now, before)))

    assert [(finding.layer, finding.severity) for finding in findings] == [("fc", Severity.CRITICAL)] * fires


def test_the_message_counts_now_and_before() -> None:
    (finding,) = findings_of(RULE, among_healthy(with_copies(34, 4)))

    assert "34 of 64 rows are copies" in finding.message
    assert "in the baseline 4" in finding.message
    assert finding.strength == 15.0


def test_new_entries_of_a_vocabulary_begin_as_copies() -> None:
    (finding,) = findings_of(RULE, among_healthy(with_copies(30, kind=LayerKind.EMBEDDING)))

    assert finding.severity is Severity.WARNING


def test_a_layer_that_changed_its_shape_is_not_compared() -> None:
    grown = layer(
        "fc",
        measurement=measurement(duplicate_rows=9),
        baseline=measurement(shape=(32, 64), duplicate_rows=0),
    )

    assert findings_of(RULE, among_healthy(grown)) == []


def test_the_number_and_the_severity_come_from_the_settings() -> None:
    assert findings_of(RULE, among_healthy(with_copies(9)), settings(RULE, min_rows=10)) == []
    (finding,) = findings_of(RULE, among_healthy(with_copies(9)), settings(RULE, severity="warning"))
    assert finding.severity is Severity.WARNING

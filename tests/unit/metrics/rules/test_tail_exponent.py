"""Rule tail_exponent: alpha moved by more than 4 sigma; information, never an alarm."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Severity
from layerwatch_testing.examinations import (
    among_healthy,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    new_layer,
    numbers,
    settings,
)

RULE = "tail_exponent"


def version(sigmas: float | None, eigenvalues: int = 64) -> Examination:
    moved = measurement(numbers=numbers(alpha=5.5, num_eigenvalues=eigenvalues))
    return among_healthy(
        layer("fc", measurement=moved, change=change(alpha_shift=2.5, alpha_shift_sigmas=sigmas))
    )


@pytest.mark.parametrize(
    ("sigmas", "fires"), [(3.99, False), (4.01, True), (-3.99, False), (-4.01, True), (None, False)]
)
def test_a_shift_of_more_than_four_sigma_is_information(sigmas: float | None, fires: bool) -> None:
    findings = findings_of(RULE, version(sigmas))

    assert [finding.layer for finding in findings] == ["fc"] * fires
    for finding in findings:
        assert finding.severity is Severity.INFO
        assert "alpha 3.00 -> 5.50, 4.0 sigma" in finding.message


@pytest.mark.parametrize(("eigenvalues", "fires"), [(49, False), (50, True)])
def test_small_spectra_are_left_out(eigenvalues: int, fires: bool) -> None:
    assert len(findings_of(RULE, version(9.0, eigenvalues))) == fires


def test_no_baseline_no_finding() -> None:
    assert findings_of(RULE, examination(new_layer("fc"), has_baseline=False)) == []


def test_limits_and_severity_come_from_the_settings() -> None:
    rules = settings(RULE, sigmas=2.0, min_eigenvalues=10, severity="warning")

    (finding,) = findings_of(RULE, version(2.1, 12), rules)

    assert finding.severity is Severity.WARNING


def test_it_can_never_be_critical() -> None:
    with pytest.raises(ValidationError):
        settings(RULE, severity="critical")

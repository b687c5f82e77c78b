"""Rule batchnorm_statistics: correlation below 0.85 or slope outside 0.5..2, or far from the baseline's."""

from __future__ import annotations

import pytest

from layerwatch.metrics.coupling import Coupling, CouplingKind
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Severity
from layerwatch_testing.examinations import coupling, examination, findings_of, layer, settings

RULE = "batchnorm_statistics"


def witness(name: str, value: float, slope: float | None = 1.1, part: str = "") -> Coupling:
    return coupling(
        CouplingKind.BATCHNORM_STATISTICS, value, name, f"{name}.running_mean", slope=slope, part=part
    )


def version(*now: Coupling, before: tuple[Coupling, ...] = ()) -> Examination:
    return examination(layer(), couplings=now, baseline_couplings=before)


def healthy(count: int) -> tuple[Coupling, ...]:
    return tuple(witness(f"healthy{number}", 0.99) for number in range(count))


@pytest.mark.parametrize(
    ("value", "slope", "violated"),
    [
        (0.99, 1.1, False),
        (0.86, 1.1, False),
        (0.84, 1.1, True),
        (-1.0, -1.1, True),
        (0.99, 0.51, False),
        (0.99, 0.49, True),
        (0.99, 1.99, False),
        (0.99, 2.01, True),
    ],
)
def test_limits_of_the_study_hold_without_a_baseline(value: float, slope: float, violated: bool) -> None:
    found = findings_of(RULE, version(*healthy(4), witness("conv", value, slope)))
    assert [(one.layer, one.severity) for one in found] == ([("conv", Severity.CRITICAL)] if violated else [])


@pytest.mark.parametrize(
    ("value", "slope", "violated"),
    [(0.90, 1.1, False), (0.88, 1.1, True), (0.99, 1.6, False), (0.99, 1.7, True), (0.99, 0.7, True)],
)
def test_a_baseline_of_any_seed_is_compared_with(value: float, slope: float, violated: bool) -> None:
    before = (witness("conv", 0.99, 1.1),)
    assert bool(findings_of(RULE, version(witness("conv", value, slope), before=before))) is violated


def test_a_layer_that_was_outside_in_the_baseline_is_judged_against_it_alone() -> None:
    before = (witness("conv", 0.7, 2.5),)
    assert findings_of(RULE, version(witness("conv", 0.68, 2.4), before=before)) == []
    assert findings_of(RULE, version(witness("conv", 0.5, 2.4), before=before))


def test_few_witnesses_without_a_baseline_only_warn() -> None:
    found = findings_of(RULE, version(*healthy(1), witness("conv", 0.1)))
    assert [one.severity for one in found] == [Severity.WARNING]


def test_a_network_of_another_form_is_not_accused_as_a_whole() -> None:
    # With another activation between norm and convolution the prediction fits nowhere.
    odd = tuple(witness(f"conv{number}", 0.5) for number in range(6))
    assert findings_of(RULE, version(*odd, *healthy(2))) == []


@pytest.mark.parametrize(("value", "violated"), [(0.80, False), (0.74, True)])
def test_estimated_moments_get_a_wider_margin(value: float, violated: bool) -> None:
    before = (witness("conv", 0.97, None, "estimated"),)
    now = witness("conv", value, None, "estimated")
    assert bool(findings_of(RULE, version(now, before=before))) is violated


def test_a_first_layer_whose_correlation_is_negative_may_keep_it() -> None:
    # One unknown mean of the inputs: its sign is the data's.
    before = (witness("conv1", -0.98, None, "stem"),)
    assert findings_of(RULE, version(witness("conv1", -0.97, None, "stem"), before=before)) == []
    assert findings_of(RULE, version(witness("conv1", 0.98, None, "stem"), before=before))


def test_limits_can_be_set() -> None:
    rules = settings(RULE, correlation=0.5, slope=4.0)
    assert findings_of(RULE, version(*healthy(4), witness("conv", 0.6, 3.0)), rules) == []

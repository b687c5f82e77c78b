"""How the alarm budget turns weak criticals of statistical rules into warnings."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.alarmbudget import STRENGTH_BY_BUDGET, apply_budget, required_strength
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from layerwatch.metrics.judge import judge
from layerwatch.metrics.rules import RULES
from layerwatch_testing.examinations import aligned, among_healthy, change, layer, measurement, settings

BUDGETS = [budget for budget, _ in STRENGTH_BY_BUDGET]


def finding(rule: str, strength: float, severity: Severity = Severity.CRITICAL) -> Finding:
    return Finding(rule, RuleGroup.WEIGHTS, severity, "fc", "it moved", {"limit": 0.35}, strength)


def strict() -> tuple[float, float]:
    """A budget that asks for more than a bare violation, and the strength it asks for."""
    budget = BUDGETS[0]
    required = required_strength(budget)
    assert required > 1.0
    return budget, required


@pytest.mark.parametrize(("budget", "strength"), STRENGTH_BY_BUDGET)
def test_at_a_measured_budget_the_measured_strength_is_asked_for(budget: float, strength: float) -> None:
    assert required_strength(budget) == pytest.approx(strength)


def test_outside_of_what_was_measured_the_nearest_point_counts() -> None:
    assert required_strength(BUDGETS[0] / 100) == STRENGTH_BY_BUDGET[0][1]
    assert required_strength(BUDGETS[-1] * 100) == STRENGTH_BY_BUDGET[-1][1]


def test_between_two_points_the_strength_is_a_straight_line_over_the_logarithm() -> None:
    (below, strength_below), (above, strength_above) = STRENGTH_BY_BUDGET[:2]
    middle = math.sqrt(below * above)
    assert required_strength(middle) == pytest.approx((strength_below + strength_above) / 2)


@given(st.floats(0.01, 1000), st.floats(0.01, 1000))
def test_fewer_false_alarms_never_ask_for_less(one: float, other: float) -> None:
    fewer, more = sorted((one, other))
    assert required_strength(fewer) >= required_strength(more) - 1e-12


def test_a_weak_critical_of_a_statistical_rule_is_a_warning_that_says_why() -> None:
    budget, required = strict()
    (weak,) = apply_budget([finding("relative_change", 1.0 + (required - 1.0) / 2)], RULES, budget)
    assert weak.severity is Severity.WARNING
    assert weak.message.startswith("it moved; a warning only: ")
    assert weak.evidence["limit"] == 0.35
    assert weak.evidence["required_strength"] == required


def test_a_strong_one_a_fact_and_a_warning_stay_what_they_are() -> None:
    budget, required = strict()
    kept = [
        finding("relative_change", required),
        finding("non_finite", 1.0),
        finding("emptied_layer", 1.0),
        finding("relative_change", 1.0, Severity.WARNING),
        finding("a_rule_of_another_release", 1.0),
    ]
    assert apply_budget(kept, RULES, budget) == tuple(kept)


def test_the_budget_decides_the_verdict_of_a_weak_sign_and_not_of_a_missing_number() -> None:
    budget, _ = strict()
    weak = among_healthy(layer("weak", change=change(aligned=aligned(0.36))))
    assert judge(weak, settings("relative_change")).verdict is Verdict.FAIL
    careful = settings("relative_change").model_copy(update={"false_alarms_per_1000_versions": budget})
    assert judge(weak, careful).verdict is Verdict.WARN
    nan = layer("nan", measurement=measurement(non_finite=1, numbers=None, folded=None), change=None)
    assert judge(among_healthy(nan), careful).verdict is Verdict.FAIL

"""The verdict: what outweighs what, in which order findings stand, and that undecided never passes."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.change import Method
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.examination import Examination, ExaminedLayer, Problem, Regime
from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules import RULES
from layerwatch_testing.examinations import (
    aligned,
    change,
    coupling,
    examination,
    layer,
    measurement,
    new_layer,
    numbers,
    settings,
    unreadable_layer,
    vector,
)

DEFAULT = RulesSettings()
ALL_OFF = RulesSettings.model_validate({rule.name: {"enabled": False} for rule in RULES})


def healthy(count: int = 8) -> list[ExaminedLayer]:
    return [layer(f"healthy{number}") for number in range(count)]


def critical(name: str = "critical") -> ExaminedLayer:
    return layer(name, measurement=measurement(non_finite=1, numbers=None, folded=None), change=None)


def warning(name: str = "warning") -> ExaminedLayer:
    return layer(name, measurement=measurement(shape=(65, 64)), shape=(65, 64), change=change(aligned=None))


def info(name: str = "info") -> ExaminedLayer:
    return new_layer(name)


def judged(*layers: ExaminedLayer, rules: RulesSettings = DEFAULT) -> Judgement:
    return judge(examination(*healthy(), *layers), rules)


@pytest.mark.parametrize(
    ("layers", "verdict"),
    [
        ([], Verdict.PASS),
        ([info()], Verdict.PASS),
        ([info(), warning()], Verdict.WARN),
        ([warning(), unreadable_layer()], Verdict.UNDECIDED),
        ([info(), unreadable_layer()], Verdict.UNDECIDED),
        ([unreadable_layer()], Verdict.UNDECIDED),
        ([critical()], Verdict.FAIL),
        ([critical(), warning(), unreadable_layer(), info()], Verdict.FAIL),
    ],
)
def test_fail_outweighs_undecided_outweighs_warn_outweighs_pass(
    layers: list[ExaminedLayer], verdict: Verdict
) -> None:
    assert judged(*layers).verdict is verdict


@pytest.mark.parametrize(
    "rules", [ALL_OFF, settings("unreadable", severity="info"), settings("unreadable", enabled=False)]
)
@pytest.mark.parametrize(
    "version",
    [
        examination(*healthy(), unreadable_layer()),
        examination(*healthy(), vector(measurement=None, change=None, problem=Problem("truncated", "cut"))),
        examination(problem=Problem("missing_shard", "shard 2 of 3 is not there")),
        examination(has_baseline=False, problem=Problem("timeout", "took too long")),
        examination(new_layer(), has_baseline=False, baseline_problem=Problem("truncated", "cut")),
    ],
)
def test_undecided_is_never_pass_whatever_is_switched_off(version: Examination, rules: RulesSettings) -> None:
    assert judge(version, rules).verdict is Verdict.UNDECIDED


def test_unreadable_raised_to_critical_fails() -> None:
    assert (
        judged(unreadable_layer(), rules=settings("unreadable", severity="critical")).verdict is Verdict.FAIL
    )


def test_switched_off_rules_let_the_rest_pass() -> None:
    assert judged(critical(), warning(), rules=ALL_OFF).verdict is Verdict.PASS
    assert judged(critical(), warning(), rules=ALL_OFF).findings == ()


def test_every_layer_and_vector_has_a_status() -> None:
    judgement = judged(critical(), warning(), info(), unreadable_layer("unreadable"), vector("fc.bias"))

    expected = {f"healthy{number}": LayerStatus.OK for number in range(8)}
    assert judgement.statuses == expected | {
        "critical": LayerStatus.BROKEN,
        "warning": LayerStatus.SUSPECT,
        "info": LayerStatus.INFO,
        "unreadable": LayerStatus.UNDECIDED,
        "fc.bias": LayerStatus.OK,
    }


def test_a_layer_has_the_status_of_its_worst_finding() -> None:
    both = layer(
        "both",
        measurement=measurement(numbers=numbers(alpha=9.0)),
        change=change(alpha_shift_sigmas=9.0, max_abs_ratio=100.0),
    )

    judgement = judged(both)

    assert [finding.severity for finding in judgement.findings] == [Severity.CRITICAL, Severity.INFO]
    assert judgement.statuses["both"] is LayerStatus.BROKEN


def test_an_unreadable_layer_stays_undecided_even_when_its_finding_is_switched_off() -> None:
    assert judged(unreadable_layer("u"), rules=ALL_OFF).statuses["u"] is LayerStatus.UNDECIDED


def test_findings_stand_worst_first_and_by_layer_with_the_most_specific_rule_first() -> None:
    scaled = layer("scaled", change=change(aligned=aligned(9.0), norm_ratio=10.0, max_abs_ratio=10.0))
    larger = layer("larger", change=change(aligned=aligned(0.4)))

    found = [
        (finding.layer, finding.rule)
        for finding in judged(info(), larger, warning(), scaled, critical()).findings
    ]

    assert found == [
        ("critical", "non_finite"),
        ("scaled", "scaled"),
        ("scaled", "huge_value"),
        ("scaled", "relative_change"),
        ("scaled", "spectral_outlier"),
        ("larger", "relative_change"),
        ("warning", "structure_changed"),
        ("info", "structure_changed"),
    ]


def test_a_layers_information_stands_with_its_critical_finding() -> None:
    both = layer(
        "both",
        measurement=measurement(numbers=numbers(alpha=9.0)),
        change=change(alpha_shift_sigmas=9.0, aligned=aligned(0.5)),
    )
    other = layer("other", change=change(aligned=aligned(0.4)))

    found = [(finding.layer, finding.rule) for finding in judged(both, other).findings]

    assert found == [("both", "relative_change"), ("both", "tail_exponent"), ("other", "relative_change")]


layers = st.lists(
    st.sampled_from([critical, warning, info, unreadable_layer, layer, vector]), max_size=8
).map(lambda makers: [maker(f"layer{number}") for number, maker in enumerate(makers)])


@given(layers, st.randoms(use_true_random=False))
def test_the_order_of_layers_changes_neither_verdict_nor_findings(
    layers: list[ExaminedLayer], randomness: random.Random
) -> None:
    shuffled = list(layers)
    randomness.shuffle(shuffled)

    one, other = judge(examination(*layers), DEFAULT), judge(examination(*shuffled), DEFAULT)

    assert one.findings == other.findings
    assert one.verdict is other.verdict
    assert one.statuses == other.statuses
    assert one == judge(examination(*layers), DEFAULT)


@given(layers)
def test_a_pass_has_nothing_to_hide(layers: list[ExaminedLayer]) -> None:
    judgement = judge(examination(*layers), DEFAULT)

    worst = max((finding.severity.rank for finding in judgement.findings), default=0)
    undecided = any(one.problem is not None for one in layers)
    assert (judgement.verdict is Verdict.FAIL) == (worst == Severity.CRITICAL.rank)
    if judgement.verdict is Verdict.PASS:
        assert worst == Severity.INFO.rank
        assert not undecided
    ranks = [finding.severity.rank for finding in judgement.findings]
    first_of_each = [next(group) for _, group in itertools.groupby(ranks)]
    assert first_of_each == sorted(first_of_each, reverse=True)


def spots(version: Examination) -> str:
    return "\n".join(judge(version, DEFAULT).blind_spots)


def test_blind_spots_are_those_of_the_run() -> None:
    far = [layer(f"far{number}", change=change(aligned=aligned(1.4, 0.0))) for number in range(3)]

    assert "no baseline" in spots(examination(new_layer(), has_baseline=False))
    unread = Problem("truncated", "cut")
    assert "The baseline could not be examined" in spots(
        examination(new_layer(), has_baseline=False, baseline_problem=unread)
    )
    assert "do not align" in spots(examination(*far))
    assert judge(examination(*far), DEFAULT).context.regime is Regime.UNALIGNED
    assert "nothing could be compared" in spots(examination(info()))
    assert "not examined at all" in spots(examination(unreadable_layer(), *healthy()))
    assert "not examined at all" in spots(examination(problem=Problem("truncated", "cut")))
    sketched = replace(layer(), change=change(aligned=aligned(method=Method.SKETCH, error=0.12)))
    assert "estimated from sketches" in spots(examination(sketched))


def test_after_another_seed_what_nothing_watches_is_told_by_side() -> None:
    names = [f"fc{number}" for number in range(1, 8)]
    far = [layer(name, change=change(aligned=aligned(1.4, 0.0))) for name in names]
    couplings = tuple(
        coupling(CouplingKind.INTERFACE_UNITS, 20.0, one, other, sides=(Side.OUTPUTS, Side.INPUTS))
        for one, other in itertools.pairwise(names)
    )
    told = spots(examination(*far, couplings=couplings, baseline_couplings=couplings))
    assert told.endswith(
        "Watched by nothing in this model, so that a permutation or turned signs there may leave no mark: the order of "
        "the outputs of fc7; the order of the inputs of fc1; the sign of all 7 layers."
    )
    # What the version itself has no counterpart of watches nothing.
    told = spots(examination(*far, couplings=couplings[5:], baseline_couplings=couplings))
    assert "the order of the outputs of fc1, fc2, fc3, fc4, fc5 and 1 more; " in told
    signs = tuple(
        coupling(CouplingKind.FEED_FORWARD_SIGNS, 20.0, one, other, sides=(Side.OUTPUTS, Side.INPUTS))
        for one, other in itertools.pairwise(names)
    )
    ends = (interface_of("fc7", "fc1"),)
    every = (*couplings, *signs, *ends)
    assert "Watched by nothing" not in spots(examination(*far, couplings=every, baseline_couplings=every))


def interface_of(producer: str, consumer: str) -> Coupling:
    return coupling(CouplingKind.INTERFACE_UNITS, 20.0, producer, consumer, sides=(Side.OUTPUTS, Side.INPUTS))


def test_a_complete_exact_comparison_has_one_blind_spot_left() -> None:
    (only,) = judge(examination(*healthy()), DEFAULT).blind_spots

    assert "do not know the function" in only


def test_noise_is_not_told_of_a_layer_whose_defect_is_known() -> None:
    scaled = layer(
        "fc",
        change=change(aligned=aligned(9.0, 1.0, sketched_noise_ratio=1.0), norm_ratio=10.0),
    )
    noisy = layer("fc", change=change(aligned=aligned(0.3, 0.96, sketched_noise_ratio=1.0)))
    still = [
        layer(f"other{number}", change=change(aligned=aligned(0.0, 1.0, method=Method.IDENTICAL)))
        for number in range(4)
    ]

    def rules_of(one: ExaminedLayer) -> set[str]:
        return {finding.rule for finding in judge(examination(*still, one), RulesSettings()).findings}

    assert "noise_like" not in rules_of(scaled)
    assert "noise_like" in rules_of(noisy)


def test_a_declared_merge_whose_parents_are_not_at_hand_is_a_blind_spot() -> None:
    spots = judge(examination(layer(), relation=Relation.MERGED), RulesSettings()).blind_spots

    assert any("whether the recipe was followed could not be seen" in spot for spot in spots)

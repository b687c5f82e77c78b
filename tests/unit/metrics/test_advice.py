"""Advice of heavy-tailed self-regularisation: what it names, what it leaves out, and how often noise moves it."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.metrics.advice import (
    Advice,
    AdviceKind,
    advice_on,
    advice_on_history,
    readable_alphas,
    readable_layers,
)
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import LayerMetrics, Report
from layerwatch_testing.reportlayers import layer_report, report_layer


def by_kind(report: Report) -> dict[AdviceKind, Advice]:
    return {one.kind: one for one in advice_on(report)}


def test_a_layer_is_under_trained_when_two_standard_errors_lie_above_six() -> None:
    found = by_kind(
        layer_report(
            report_layer("beyond", 8.0, 0.9),
            report_layer("within", 8.0, 1.1),
            report_layer("more", 12.0, 1.0),
        )
    )

    assert found[AdviceKind.UNDER_TRAINED].layers == ("more", "beyond")
    assert found[AdviceKind.UNDER_TRAINED].title == "2 layers look under-trained"
    assert "The first: alpha 12.00 ± 1.00" in found[AdviceKind.UNDER_TRAINED].sure


def test_a_layer_as_good_as_random_is_under_trained_whatever_its_alpha_happens_to_be() -> None:
    random = report_layer("random", 3.0, 0.2, noise_share=1.0, num_spikes=0)
    no_fit = report_layer("no_fit", None, None, fit="short_tail", noise_share=0.99, num_spikes=0)
    trained = report_layer("trained", 3.0, 0.2, noise_share=0.94, num_spikes=0)
    spiked = report_layer("spiked", 3.0, 0.2, noise_share=0.99, num_spikes=1)

    found = by_kind(layer_report(random, no_fit, trained, spiked))

    assert found[AdviceKind.UNDER_TRAINED].layers == ("random", "no_fit")
    # Its alpha looks settled, and means nothing.
    assert found[AdviceKind.FREEZE].layers == ("trained", "spiked")


def test_a_layer_is_over_correlated_when_two_standard_errors_lie_below_two() -> None:
    found = by_kind(
        layer_report(
            report_layer("beyond", 1.7, 0.1, stable_rank=1.5),
            report_layer("within", 1.7, 0.2),
            report_layer("one", 1.4, 0.1),
        )
    )

    assert found[AdviceKind.OVER_CORRELATED].layers == ("one", "beyond")
    assert "in 1 one direction carries more than half of the layer" in found[AdviceKind.OVER_CORRELATED].sure


@pytest.mark.parametrize("alpha", [1.2, 3.0, 12.0])
@pytest.mark.parametrize("fit", ["too_small", "short_tail", "poor_fit", "degenerate"])
def test_a_fit_that_failed_advises_nothing_and_is_counted(fit: str, alpha: float) -> None:
    report = layer_report(report_layer("bad", alpha, 0.01, fit=fit), report_layer("good", 9.0, 1.0))

    (advice,) = advice_on(report)

    assert advice.layers == ("good",)
    assert "1 of 2 layers readable (1 " in advice.sure
    assert readable_alphas(report) == {"good": (9.0, 1.0)}


def test_broken_unexamined_and_missing_layers_and_vectors_are_no_ground_for_advice() -> None:
    broken = report_layer("broken", 12.0, 0.5, status=LayerStatus.BROKEN, traps=9, largest_trap=9.0)
    unseen = report_layer("unseen").model_copy(update={"metrics": LayerMetrics()})
    missing = unseen.model_copy(update={"kind": "missing"})
    vector = report_layer("bias", 12.0, 0.5).model_copy(update={"shape": (256,), "kind": "bias"})
    report = layer_report(broken, unseen, missing, vector)

    assert advice_on(report) == ()
    assert readable_layers(report).in_words() == "0 of 2 layers readable (1 broken, 1 not examined)"


def test_traps_are_told_from_where_the_rule_about_new_ones_tells_them() -> None:
    found = by_kind(
        layer_report(
            report_layer("slight", 4.5, traps=3, largest_trap=1.2),
            report_layer("large", 4.5, traps=2, largest_trap=3.5),
            report_layer("few", 4.5, fit="too_small", num_eigenvalues=20, traps=1, largest_trap=9.0),
        )
    )

    assert found.keys() == {AdviceKind.TRAPS}
    assert found[AdviceKind.TRAPS].layers == ("large",)
    assert "the first has 2, the largest 3.5 times the edge of noise" in found[AdviceKind.TRAPS].sure
    assert "2 layers asked" in found[AdviceKind.TRAPS].sure


def test_candidates_to_freeze_have_a_certain_alpha_in_the_range_and_hardly_changed_since_the_parent() -> None:
    layers = (
        report_layer("calm", 3.0, 0.2, change={"relative_change": 0.01}),
        report_layer("calmer", 3.0, 0.2, change={"relative_change": 0.005}),
        report_layer("moving", 3.0, 0.2, change={"relative_change": 0.05}),
        report_layer("frozen", 3.0, 0.2, change={"relative_change": 0.0}),
        report_layer("unsure", 3.0, 0.3, change={"relative_change": 0.01}),
        report_layer("outside", 4.5, 0.2, change={"relative_change": 0.01}),
        report_layer("new", 3.0, 0.2),
    )

    parent = by_kind(layer_report(*layers, regime="aligned"))
    alone = by_kind(layer_report(*layers))
    stranger = by_kind(layer_report(*layers, regime="unaligned"))

    assert parent[AdviceKind.FREEZE].layers == ("calmer", "calm")
    assert "changed by 0.50%" in parent[AdviceKind.FREEZE].sure
    # Whether they still change cannot be said of a version alone, nor against one that is no parent.
    expected = ("calm", "calmer", "moving", "frozen", "new")
    assert alone[AdviceKind.FREEZE].layers == stranger[AdviceKind.FREEZE].layers == expected
    assert "without a parent" in alone[AdviceKind.FREEZE].sure


History = list[dict[str, tuple[float, float | None]]]


def a_history(
    random: np.random.Generator,
    true: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    tails: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    versions: int,
    move: float = 0.0,
    noise: float = 1.0,
) -> History:
    """Alphas that scatter by ``noise`` standard errors about a truth; those above 4 come down by ``move`` per version."""
    history: History = []
    for version in range(versions):
        now = np.where(true > 4.0, np.maximum(true - move * version, 3.0), true)
        errors = (now - 1.0) / np.sqrt(tails)
        found = np.maximum(now + noise * errors * random.standard_normal(len(now)), 1.01)
        history.append(
            {
                f"l{i}": (float(a), float((a - 1.0) / sqrt(n)))
                for i, (a, n) in enumerate(zip(found, tails, strict=True))
            }
        )
    return history


def direction_of(history: History) -> str:
    (advice,) = advice_on_history(history)
    assert advice.kind is AdviceKind.DIRECTION
    told = [word for word in ("towards", "away", "cannot be told", "stayed") if f" {word}" in advice.title]
    assert len(told) == 1
    return told[0]


@settings(max_examples=12)
@given(
    layers=st.integers(3, 60),
    versions=st.integers(2, 8),
    noise=st.sampled_from([0.3, 1.0, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_noise_claims_no_direction_more_often_than_once_in_twenty(
    layers: int, versions: int, noise: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    repeats = 200
    claims = 0
    for _ in range(repeats):
        true, tails = random.uniform(1.3, 10.0, layers), random.integers(12, 300, layers)
        claims += direction_of(a_history(random, true, tails, versions, noise=noise)) in ("towards", "away")

    # 5 % of 200, and three standard deviations of such a count.
    assert claims <= 0.05 * repeats + 3 * sqrt(repeats * 0.05 * 0.95)


def test_a_true_move_of_many_layers_is_told_and_the_other_way_round_is_the_opposite() -> None:
    random = np.random.default_rng(1)
    true, tails = random.uniform(5.0, 8.0, 24), random.integers(40, 200, 24)
    history = a_history(random, true, tails, 5, move=0.8)

    (towards,) = advice_on_history(history)
    (away,) = advice_on_history(history[::-1])

    assert towards.title == "The last 4 retrains moved alpha towards 2..4"
    assert away.title == "The last 4 retrains moved alpha away from 2..4"
    assert set(towards.layers) == set(away.layers) != set()
    assert "24 of 24 layers can be followed" in towards.sure


def test_layers_below_the_range_come_towards_it_by_rising() -> None:
    history: History = [{f"l{i}": (1.3 + 0.2 * version, 0.05) for i in range(8)} for version in range(4)]

    assert direction_of(history) == "towards"


def test_one_huge_jump_is_no_direction() -> None:
    steady: dict[str, tuple[float, float | None]] = {f"l{i}": (4.5 + i / 10, 0.3) for i in range(6)}

    assert direction_of([steady, {**steady, "l0": (33.3, 4.0)}]) == "cannot be told"


def test_alphas_in_the_range_all_the_time_are_told_so() -> None:
    history: History = [{f"l{i}": (3.0 + 0.1 * version, 0.2) for i in range(5)} for version in range(3)]

    assert direction_of(history) == "stayed"


def test_old_versions_do_not_count() -> None:
    rising: History = [{f"l{i}": (4.5 + version, 0.2) for i in range(6)} for version in range(9)]
    settled: History = [{f"l{i}": (3.0, 0.2) for i in range(6)}] * 6

    assert direction_of(rising + settled) == "stayed"


@pytest.mark.parametrize(
    "unreadable",
    [
        (9.0, None),
        (9.0, 0.0),
        (float("nan"), 0.3),
        (float("inf"), 0.3),
        (9.0, float("nan")),
        (1.0, 0.1),
        # A tail of four eigenvalues.
        (9.0, 4.0),
    ],
)
def test_what_cannot_be_read_moves_nothing_and_is_counted(unreadable: tuple[float, float | None]) -> None:
    steady: dict[str, tuple[float, float | None]] = {f"l{i}": (5.0, 0.3) for i in range(4)}
    before = {**steady, **{f"bad{i}": (3.0, 0.2) for i in range(9)}}
    after = {**steady, **{f"bad{i}": unreadable for i in range(9)}}

    (advice,) = advice_on_history([before, after])

    assert "cannot be told" in advice.title
    assert "4 of 13 layers can be followed" in advice.sure


def test_too_few_versions_or_layers_say_nothing() -> None:
    assert advice_on_history([]) == ()
    assert advice_on_history([{"fc": (3.0, 0.1)}]) == ()
    assert direction_of([{"fc": (9.0, 0.3)}, {"fc": (3.0, 0.1)}]) == "cannot be told"

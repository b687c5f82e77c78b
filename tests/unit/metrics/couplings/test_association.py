"""Scores in standard deviations: held against what shuffling gives, and invariant where they must be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.association import (
    Floats,
    agreement,
    correlation_score,
    cosine_score,
    gram,
    partial_correlation,
    rank_score,
)

seeds = st.integers(0, 2**32 - 1)


def features(seed: int, units: int = 24, count: int = 10) -> Floats:
    return np.random.default_rng(seed).standard_normal((units, count))


@given(seeds)
def test_agreement_is_in_standard_deviations_of_what_shuffling_gives(seed: int) -> None:
    # The exact permutation moments of Mantel (1967) against 4,000 shuffles: standard errors 1.6 % and 1.1 %.
    one, other = gram(features(seed, 9)), gram(features(seed + 1, 9))
    generator = np.random.default_rng(seed)
    sums = []
    for _ in range(4000):
        order = generator.permutation(9)
        sums.append(float((one[np.ix_(order, order)] * other).sum()))
    expected = float((float((one * other).sum()) - np.mean(sums)) / np.std(sums))
    assert agreement(one, other) == pytest.approx(expected, abs=0.12 + 0.06 * abs(expected))


@given(seeds)
def test_agreement_does_not_depend_on_the_order_of_units_nor_on_scale(seed: int) -> None:
    one, other = features(seed), features(seed + 1)
    order = np.random.default_rng(seed).permutation(len(one))
    plain = agreement(gram(one), gram(other))
    moved = agreement(gram(3.0 * one[order]), gram(0.1 * other[order]))
    assert moved == pytest.approx(plain, abs=1e-6)


@given(seeds)
def test_agreement_sees_units_that_share_their_relations_and_loses_them_when_shuffled(seed: int) -> None:
    made = features(seed, 64, 8)
    read = made @ features(seed + 1, 8, 8)
    assert agreement(gram(made), gram(read)) > 15.0
    order = np.random.default_rng(seed).permutation(64)
    assert abs(agreement(gram(made), gram(read[order]))) < 6.0


def test_constant_tables_agree_with_nothing() -> None:
    same = np.ones((8, 8)) - np.eye(8)
    assert agreement(same, gram(features(0, 8))) == 0.0


def test_equal_values_have_equal_ranks() -> None:
    # Ranks by place in the file would make two constant vectors agree perfectly.
    assert rank_score(np.ones(10), np.ones(10)) == 0.0
    assert rank_score(np.arange(10.0), np.arange(10.0) ** 3) == pytest.approx(3.0)


def test_a_turned_sign_turns_the_cosine_score() -> None:
    one = features(3)
    assert cosine_score(one, one) == pytest.approx(np.sqrt(one.size))
    assert cosine_score(one, -one) == pytest.approx(-np.sqrt(one.size))


def test_a_constant_correlates_with_nothing() -> None:
    assert correlation_score(np.ones(8), np.arange(8.0)) == 0.0


def test_partial_correlation_takes_out_what_a_third_explains() -> None:
    generator = np.random.default_rng(0)
    third = generator.standard_normal(2000)
    one, other = third + generator.standard_normal(2000), third + generator.standard_normal(2000)
    # Both are the third plus noise of their own: nothing is left (standard error 0.022).
    assert partial_correlation(one, other, third) == pytest.approx(0.0, abs=0.08)

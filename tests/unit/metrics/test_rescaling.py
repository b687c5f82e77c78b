"""Factors per row and column: found where there are any, and kept as they were found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.change import Method, exact_change, exact_vector_change
from layerwatch.metrics.rescaling import STEP, Factors, vector_rescaling


def matrix(seed: int, rows: int, columns: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(16, 128),
    st.integers(16, 128),
    st.floats(0.05, 0.8),
    st.floats(0.0, 0.1),
)
def test_any_factors_of_rows_and_columns_are_found_and_leave_the_noise(
    seed: int, rows: int, columns: int, spread: float, noise: float
) -> None:
    random = np.random.default_rng(seed)
    old = matrix(seed, rows, columns).astype(np.float64)
    r, c = np.exp(spread * random.standard_normal(rows)), np.exp(spread * random.standard_normal(columns))
    scaled = r[:, None] * old * c
    size = noise * np.linalg.norm(scaled) / np.sqrt(scaled.size)
    new = scaled + size * random.standard_normal(scaled.shape)

    found = exact_change(new, old, None, None)

    assert found is not None
    if found.rescaling is None:
        # Factors next to one in as much noise are no change.
        assert spread < 0.6 * noise + 0.05
        return
    assert found.unscaled is not None
    assert found.unscaled.method is Method.RESCALED
    assert found.unscaled.relative_change == pytest.approx(noise, rel=0.35, abs=2e-3)
    both = found.rescaling.rows.values()[:, None] + found.rescaling.columns.values()
    expected = np.log(r)[:, None] + np.log(c)
    error = found.rescaling.rows.standard_errors() / np.exp(found.rescaling.rows.values())
    others = found.rescaling.columns.standard_errors() / np.exp(found.rescaling.columns.values())
    # Six standard errors of the sum of the two logarithms, and the steps in which they are kept.
    assert np.all(np.abs(both - expected) <= 6.0 * np.hypot(error[:, None], others) + 4 * STEP + 0.002)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 0.5))
def test_a_layer_with_noise_alone_has_no_factors(seed: int, noise: float) -> None:
    old = matrix(seed, 64, 64)
    new = old + noise * matrix(seed + 1, 64, 64)

    found = exact_change(new, old, None, None)

    assert found is not None
    assert found.rescaling is None
    assert found.unscaled is None


def test_factors_behind_a_batch_norm_are_not_looked_for() -> None:
    old, factors = matrix(1, 32, 32), np.ones(32)
    new = old * np.exp(0.5 * matrix(2, 1, 32))

    found, plain = exact_change(new, old, factors, factors), exact_change(new, old, None, None)

    assert plain is not None and plain.rescaling is not None
    assert found is not None and found.rescaling is None


def test_a_row_alone_is_explained_by_its_elements() -> None:
    old = np.abs(matrix(1, 1, 64)) + 0.1
    factors = np.exp(0.3 * matrix(2, 1, 64))

    found = exact_change(old * factors, old, None, None)

    assert found is not None and found.rescaling is not None and found.unscaled is not None
    assert found.unscaled.relative_change == pytest.approx(0.0, abs=1e-6)
    both = found.rescaling.rows.values() + found.rescaling.columns.values()
    assert both == pytest.approx(np.log(factors[0].astype(np.float64)), abs=2 * STEP)


def test_units_that_were_zero_and_are_have_no_factor_that_could_be_told() -> None:
    old = matrix(1, 64, 64)
    old[:, 5] = 0.0
    found = exact_change(old * np.exp(0.4 * matrix(2, 1, 64)), old, None, None)

    assert found is not None and found.rescaling is not None
    columns = found.rescaling.columns
    assert columns.values()[5] == 0.0
    assert columns.standard_errors()[5] > 100.0
    assert np.max(np.delete(columns.standard_errors(), 5)) < 1e-5


def test_units_that_were_zeroed_or_turned_have_no_positive_factor() -> None:
    old = matrix(1, 64, 64)
    new = old * np.exp(0.4 * matrix(2, 1, 64))
    new[:, 5], new[:, 9] = 0.0, -new[:, 9]

    found = exact_change(new, old, None, None)

    assert found is not None and found.rescaling is not None
    assert np.flatnonzero(np.isneginf(found.rescaling.columns.values())).tolist() == [5, 9]


def test_elements_of_vectors_have_factors_and_so_have_they_plus_one() -> None:
    old = np.array([1.0, 2.0, -3.0, 0.5], dtype=np.float32)
    new = old * np.array([2.0, 0.5, 1.0, -1.0], dtype=np.float32)

    found = exact_vector_change(new, old)

    assert found is not None and found.rescaling is not None
    assert found.rescaling.rows.values() == pytest.approx([np.log(2), -np.log(2), 0.0, -np.inf], abs=STEP)
    # (1 + 2) / (1 + 1), (1 + 1) / (1 + 2), -2 / -2, 0.5 / 1.5.
    assert found.rescaling.columns.values() == pytest.approx(np.log([1.5, 2 / 3, 1.0, 1 / 3]), abs=STEP)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_have_no_factors(value: float) -> None:
    assert vector_rescaling(np.array([1.0, value]), np.array([1.0, 1.0])) is None
    assert exact_vector_change(np.array([1.0, 1.0]), np.array([value, 1.0])) is None


@given(st.lists(st.tuples(st.floats(2e-3, 700.0), st.floats(1e-8, 100.0)), max_size=20))
def test_factors_are_kept_to_their_step_and_errors_never_too_small(pairs: list[tuple[float, float]]) -> None:
    values, errors = np.array(pairs, dtype=np.float64).reshape(-1, 2).T

    kept = Factors.of(values, errors)

    assert len(kept) == len(pairs)
    assert kept.values() == pytest.approx(np.log(values), abs=STEP)
    assert np.all(kept.standard_errors() >= 0.999 * errors)
    assert np.all(kept.standard_errors() <= 1.13 * errors)


def test_factors_without_as_many_errors_are_refused() -> None:
    with pytest.raises(ValueError, match="every factor needs an error"):
        Factors(bytes(4), bytes(1))

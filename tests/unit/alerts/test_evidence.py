"""The numbers of a layer as a person reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.alerts.evidence import in_words
from layerwatch.metrics.report import ChangePart, LayerMetrics

NOTHING_CHANGED = {
    "alpha_baseline": 5.31,
    "alpha_shift_sigmas": 0.4,
    "spectral_ratio": 1.02,
    "norm_ratio": 0.99,
    "stable_rank_ratio": 1.0,
    "max_abs_ratio": 1.1,
    "relative_change": None,
    "cosine": None,
}


def layer(alpha: float | None = 5.4, **change: float | None) -> dict[str, Any]:
    return {"name": "fc1", "metrics": {"alpha": alpha}, "change": {**NOTHING_CHANGED, **change}}


def test_a_broken_layer_reads_as_a_person_would_say_it() -> None:
    broken = layer(
        22.5961,
        alpha_shift_sigmas=-24.2,
        spectral_ratio=0.125,
        norm_ratio=0.4,
        stable_rank_ratio=9.6,
        max_abs_ratio=2.44,
        relative_change=0.9231,
        cosine=0.0712,
    )

    assert in_words(broken) == (
        "alpha 5.3 -> 22.6, 24 sigma; spectral norm down 8x; norm down 2.5x; stable rank up 10x; "
        "largest weight up 2.4x; relative change 0.92; cosine to the baseline 0.07"
    )


def test_what_ordinary_training_does_is_left_out() -> None:
    assert in_words(layer()) == "alpha 5.3 -> 5.4"


@pytest.mark.parametrize(
    ("sigmas", "told"),
    [(None, False), (2.99, False), (-2.99, False), (3.0, True), (-3.0, True), (400.0, True)],
)
def test_sigmas_are_told_from_three_on(sigmas: float | None, told: bool) -> None:
    assert ("sigma" in in_words(layer(alpha_shift_sigmas=sigmas))) is told


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (None, ""),
        (-1.0, ""),
        (0.0, "norm down to 0"),
        (1.0, ""),
        (1.49, ""),
        (1.5, "norm up 1.5x"),
        (1 / 1.49, ""),
        (1 / 1.5, "norm down 1.5x"),
        (2.96, "norm up 3.0x"),
        (3.2, "norm up 3x"),
        (1000.0, "norm up 1000x"),
        (123_456.0, "norm up 1.2e+05x"),
        (1e-9, "norm down 1.0e+09x"),
    ],
)
def test_ratios_are_told_as_times_up_or_down(ratio: float | None, expected: str) -> None:
    told = in_words({"metrics": {}, "change": {"norm_ratio": ratio}})

    assert told == expected


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (None, None, ""),
        (4.0, None, "alpha 4.0"),
        (None, 4.0, "alpha 4.0 -> no fit"),
        (4.0, 3.0, "alpha 3.0 -> 4.0"),
    ],
)
def test_an_alpha_that_is_missing_is_not_made_up(
    now: float | None, before: float | None, expected: str
) -> None:
    assert in_words({"metrics": {"alpha": now}, "change": {"alpha_baseline": before}}) == expected


def test_a_layer_without_a_baseline_or_without_numbers_is_told_as_far_as_it_goes() -> None:
    assert in_words({"name": "fc1", "metrics": {"alpha": 3.14}, "change": None}) == "alpha 3.1"
    assert in_words({"name": "fc1", "metrics": None, "change": None}) == ""
    assert in_words({}) == ""


def test_what_it_reads_is_in_the_report() -> None:
    """The names come from the JSON of a report; one that is renamed there would silently not be told."""
    assert set(NOTHING_CHANGED) <= set(ChangePart.model_fields)
    assert "alpha" in LayerMetrics.model_fields


numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)


@given(numbers, st.dictionaries(st.sampled_from(sorted(NOTHING_CHANGED)), numbers))
def test_any_numbers_make_one_line(alpha: float | None, change: dict[str, float | None]) -> None:
    told = in_words({"metrics": {"alpha": alpha}, "change": change})

    assert "\n" not in told
    assert "None" not in told
    assert "nan" not in told
    assert "inf" not in told

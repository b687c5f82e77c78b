"""Evidence of a merge: coefficients, what stays unexplained, and how the parents relate, layer by layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.estimate import LayerSketch
from layerwatch.metrics.merge import (
    MergeEvidence,
    MergeMethod,
    MergeParent,
    MergeRecipe,
    merge_evidence,
    sign_conflict,
)
from layerwatch.metrics.recipe import LeftOut
from layerwatch.metrics.sketch import sketch

Model = dict[str, NDArray[np.float64]]
SHAPES = {"embed": (200, 48), "up": (160, 48), "down": (48, 160), "q": (48, 48)}


def base_model(seed: int = 0) -> Model:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape) for name, shape in SHAPES.items()}


def finetuned(base: Model, seed: int, share: float = 0.05) -> Model:
    random = np.random.default_rng(seed)
    return {name: values + share * random.standard_normal(values.shape) for name, values in base.items()}


def mixed(models: list[Model], weights: list[float], base: Model | None = None) -> Model:
    first = models[0]
    rest = 1.0 - sum(weights) if base is not None else 0.0
    return {
        name: sum(
            (weight * model[name] for weight, model in zip(weights, models, strict=True)),
            rest * base[name] if base is not None else np.zeros(first[name].shape),
        )
        for name in first
    }


def sketched(model: Model, dtype: str = "F64") -> dict[str, LayerSketch]:
    return {
        name: LayerSketch(sketch(values), float(np.linalg.norm(values)), values.shape, dtype)
        for name, values in model.items()
    }


def evidence(
    merged: Model, parents: list[Model], base: Model | None = None, **other: object
) -> MergeEvidence:
    named = [MergeParent(chr(ord("a") + number), sketched(one)) for number, one in enumerate(parents)]
    recipe = MergeRecipe(**other) if other else None  # type: ignore[arg-type]
    return merge_evidence(
        sketched(merged), named, None if base is None else MergeParent("base", sketched(base)), recipe
    )


BASE = base_model()
ONE, OTHER = finetuned(BASE, 1), finetuned(BASE, 2)


def test_an_average_of_two_finetunes_is_explained_in_every_layer() -> None:
    found = evidence(
        mixed([ONE, OTHER], [0.5, 0.5]), [ONE, OTHER], method=MergeMethod.LINEAR, weights=(1.0, 1.0)
    )

    assert found.coefficients == pytest.approx((0.5, 0.5), abs=1e-3)
    assert found.explained == 1.0
    assert all(layer.deviation is not None and layer.deviation < 0.001 for layer in found.layers)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 0.95))
def test_whatever_the_share_it_is_found_and_a_declaration_of_it_holds(share: float) -> None:
    merged = mixed([ONE, OTHER], [share, 1.0 - share])

    found = evidence(merged, [ONE, OTHER], method=MergeMethod.LINEAR, weights=(share, 1.0 - share))

    assert found.coefficients == pytest.approx((share, 1.0 - share), abs=2e-3)
    assert found.explained == 1.0


def test_a_share_that_is_off_by_a_tenth_in_one_layer_is_seen_there_alone() -> None:
    merged = mixed([ONE, OTHER], [0.5, 0.5]) | {"q": mixed([ONE, OTHER], [0.6, 0.4])["q"]}

    found = evidence(merged, [ONE, OTHER])

    assert [layer.name for layer in found.layers if not layer.follows] == ["q"]


def test_task_vectors_are_counted_from_the_base() -> None:
    merged = mixed([ONE, OTHER], [1.0, 0.7], BASE)

    found = evidence(merged, [ONE, OTHER], BASE, method=MergeMethod.TASK_ARITHMETIC, weights=(1.0, 0.7))

    assert found.coefficients == pytest.approx((1.0, 0.7), abs=1e-3)
    assert found.explained == 1.0


def test_a_spherical_merge_is_held_against_the_shares_of_its_angle() -> None:
    # Unrelated parents: at t = 1/2 both count sin(45 degrees) = 0.707, which keeps the norm.
    other = base_model(9)
    merged = mixed([BASE, other], [math.sqrt(0.5)] * 2)

    found = evidence(merged, [BASE, other], method=MergeMethod.SLERP, weights=(0.5, 0.5))

    assert found.explained == 1.0
    for layer in found.layers:
        assert layer.expected == pytest.approx((0.707, 0.707), abs=0.05)


def test_nearly_parallel_models_are_interpolated_on_a_straight_line() -> None:
    near = finetuned(BASE, 3, 0.001)

    found = evidence(
        mixed([BASE, near], [0.4, 0.6]), [BASE, near], method=MergeMethod.SLERP, weights=(0.4, 0.6)
    )

    assert {layer.expected for layer in found.layers} == {(0.4, 0.6)}
    assert found.explained == 1.0


def test_the_norm_of_an_average_of_unrelated_models_falls_as_the_formula_says() -> None:
    # Field report, section 6.1: sqrt((1 + (k - 1) rho) / k), 0.707 for two models with cosine 0.
    found = evidence(mixed([BASE, base_model(5)], [0.5, 0.5]), [BASE, base_model(5)])

    assert found.median_of("norm_ratio") == pytest.approx(0.707, abs=0.02)
    assert found.median_of("parents_cosine") == pytest.approx(0.0, abs=0.06)


def test_another_base_than_the_declared_one_stays_unexplained() -> None:
    merged = mixed([ONE, OTHER], [0.8, 0.8], finetuned(BASE, 7))

    found = evidence(merged, [ONE, OTHER], BASE, method=MergeMethod.TASK_ARITHMETIC, weights=(0.8, 0.8))

    assert found.explained == 0.0
    assert (found.median_of("left_over") or 0.0) > 0.3


def test_rounding_to_the_stored_type_is_no_deviation() -> None:
    exact = mixed([ONE, OTHER], [0.5, 0.5])
    rounded = {name: values.astype(np.float16).astype(np.float64) for name, values in exact.items()}
    parents = [MergeParent("a", sketched(ONE, "F16")), MergeParent("b", sketched(OTHER, "F16"))]

    found = merge_evidence(sketched(rounded, "F16"), parents)

    assert found.explained == 1.0


def test_the_parents_similarity_is_told_by_their_changes_not_by_the_base_they_share() -> None:
    twin = mixed([ONE, OTHER], [0.7, 0.3])

    found = evidence(mixed([ONE, twin], [1.0, 1.0], BASE), [ONE, twin], BASE)

    # cos(d1, 0.7 d1 + 0.3 d2) of independent changes of one size: 0.7 / sqrt(0.58) = 0.92.
    assert found.median_of("task_cosine") == pytest.approx(0.92, abs=0.03)
    assert found.median_of("parents_cosine") == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("cosine", "share"), [(0.0, 0.5), (1.0, 0.0), (-1.0, 1.0), (0.5, 1 / 3)])
def test_opposite_signs_follow_from_the_cosine_by_sheppards_formula(cosine: float, share: float) -> None:
    assert sign_conflict(cosine) == pytest.approx(share)


def test_the_estimate_of_opposite_signs_is_what_counting_finds() -> None:
    random = np.random.default_rng(4)
    one = random.standard_normal(100_000)
    other = 0.6 * one + 0.8 * random.standard_normal(100_000)

    assert sign_conflict(0.6) == pytest.approx(float(np.mean(np.sign(one) != np.sign(other))), abs=0.01)


def test_layers_that_a_parent_lacks_are_left_out_with_the_reason() -> None:
    parents = [MergeParent("a", sketched(ONE)), MergeParent("b", sketched({"q": OTHER["q"]}))]

    found = merge_evidence(sketched(ONE), parents)

    assert [layer.name for layer in found.layers] == ["q"]
    assert dict(found.left_out) == dict.fromkeys(("embed", "up", "down"), LeftOut.MISSING)


def test_layers_without_any_difference_between_the_parents_give_no_coefficients_and_no_error() -> None:
    found = evidence(BASE, [BASE, BASE])

    assert found.coefficients is None
    assert all(layer.coefficients is None and layer.deviation is None for layer in found.layers)


@pytest.mark.parametrize(
    ("recipe", "cosine", "expected"),
    [
        (MergeRecipe(MergeMethod.LINEAR, (1.0, 3.0)), None, (0.25, 0.75)),
        (MergeRecipe(MergeMethod.LINEAR, (1.0, 3.0), normalize=False), None, (1.0, 3.0)),
        (MergeRecipe(MergeMethod.TASK_ARITHMETIC, (1.0, 3.0)), None, (1.0, 3.0)),
        (MergeRecipe(MergeMethod.TASK_ARITHMETIC, (1.0, 3.0), normalize=True, scale=2.0), None, (0.5, 1.5)),
        (MergeRecipe(MergeMethod.TIES, (1.0, 1.0)), None, (0.5, 0.5)),
        (MergeRecipe(MergeMethod.SLERP, (0.5, 0.5)), 0.0, (math.sqrt(0.5), math.sqrt(0.5))),
        (MergeRecipe(MergeMethod.SLERP, (0.5, 0.5)), None, None),
        (MergeRecipe(MergeMethod.LINEAR), None, None),
        (MergeRecipe(weights=(1.0, 1.0)), None, None),
    ],
)
def test_declared_weights_become_coefficients_by_the_habits_of_the_method(
    recipe: MergeRecipe, cosine: float | None, expected: tuple[float, ...] | None
) -> None:
    found = recipe.coefficients(cosine)

    assert found == (expected if expected is None else pytest.approx(expected))


def test_a_recipe_for_another_number_of_parents_is_refused() -> None:
    with pytest.raises(ValueError, match="3 weights are declared for 2 parents"):
        evidence(ONE, [ONE, OTHER], weights=(1.0, 1.0, 1.0))


def test_no_parents_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one parent"):
        merge_evidence({}, [])

"""Merges: their coefficients come back from sketches, with errors, and layers made otherwise are named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.estimate import Estimate, LayerSketch
from layerwatch.metrics.recipe import (
    LeftOut,
    Recipe,
    RecipeStatus,
    merge_coefficients,
    model_recipe,
)
from layerwatch.metrics.sketch import SIZE, sketch

Matrix = NDArray[np.float64]
Model = dict[str, Matrix]

SHAPES = {"embed": (200, 40), "up": (160, 40), "down": (40, 160), "q": (40, 40), "head": (60, 40)}


def random(*shape: int, seed: int) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape)


def unit(matrix: Matrix) -> Matrix:
    return np.asarray(matrix / np.linalg.norm(matrix))


def values(recipe: Recipe) -> list[float]:
    assert recipe.coefficients is not None
    return [one.value for one in recipe.coefficients]


def errors(recipe: Recipe) -> list[float]:
    assert recipe.coefficients is not None
    return [one.error for one in recipe.coefficients]


def residual(recipe: Recipe) -> Estimate:
    assert recipe.residual is not None
    return recipe.residual


def test_a_merge_of_three_and_seven_tenths_is_found_with_next_to_no_residual() -> None:
    # Metric specification, section 5: recovered exactly, residual 6e-7.
    one, other = random(300, 200, seed=1), random(300, 200, seed=2)

    found = merge_coefficients(sketch(0.3 * one + 0.7 * other), [sketch(one), sketch(other)])

    assert found.status is RecipeStatus.OK
    assert values(found) == pytest.approx([0.3, 0.7], abs=1e-7)
    assert max(errors(found)) < 1e-8
    assert residual(found).value < 6e-7
    assert found.condition == pytest.approx(1.0, abs=0.05)


@settings(max_examples=40)
@given(
    st.lists(st.integers(-30, 30).map(lambda tenths: tenths / 10), min_size=1, max_size=5),
    st.sampled_from([1e-30, 1e-6, 1.0, 1e6, 1e30]),
    st.sampled_from([(60, 50), (1, 80), (80, 1)]),
)
def test_any_mixture_comes_back_at_any_scale(
    shares: list[float], scale: float, shape: tuple[int, int]
) -> None:
    parents = [scale * random(*shape, seed=seed) for seed in range(len(shares))]
    merged = np.tensordot(shares, np.stack(parents), axes=1)

    found = merge_coefficients(sketch(merged), [sketch(parent) for parent in parents])

    if not any(shares):
        assert found.status is RecipeStatus.EMPTY
        return
    assert values(found) == pytest.approx(shares, abs=2e-6)
    # Rounding of the parents' sketches, where their terms cancel most.
    assert residual(found).value < 1e-6 * np.linalg.norm(parents) / np.linalg.norm(merged) * 3


@settings(max_examples=30)
@given(st.integers(-20, 20), st.integers(-20, 20), st.sampled_from([0.3, 0.01]))
def test_task_vectors_over_a_common_base_come_back_too(tenths: int, other_tenths: int, size: float) -> None:
    one, other = tenths / 10, other_tenths / 10
    base = random(60, 50, seed=1)
    tasks = [size * random(60, 50, seed=seed) for seed in (2, 3)]
    merged = base + one * tasks[0] + other * tasks[1]

    found = merge_coefficients(sketch(merged), [sketch(base + task) for task in tasks], sketch(base))

    if one == other == 0.0:
        assert found.status is RecipeStatus.EMPTY
        return
    assert values(found) == pytest.approx([one, other], abs=1e-6 / size)


def test_siblings_that_differ_little_are_told_apart_with_and_without_their_base() -> None:
    base = random(120, 80, seed=1)
    one, other = (base + 0.01 * random(120, 80, seed=seed) for seed in (2, 3))
    merged = 0.3 * one + 0.7 * other

    plain = merge_coefficients(sketch(merged), [sketch(one), sketch(other)])
    tasks = merge_coefficients(sketch(merged), [sketch(one), sketch(other)], sketch(base))

    assert plain.condition is not None
    assert tasks.condition is not None
    # Two vectors with cosine c have condition sqrt((1 + c) / (1 - c)), here 1 - c = 1e-4.
    assert plain.condition == pytest.approx(141, rel=0.1)
    assert tasks.condition < 1.2
    for found in (plain, tasks):
        assert values(found) == pytest.approx([0.3, 0.7], abs=1e-5)


@pytest.mark.parametrize("parents", ["noise", "rank 1"])
@pytest.mark.parametrize("after", ["noise", "rank 1"])
@pytest.mark.parametrize("based", [False, True])
def test_coefficients_and_residual_are_within_two_standard_errors_of_those_of_the_weights(
    parents: str, after: str, based: bool
) -> None:
    def change(kind: str, seed: int) -> Matrix:
        if kind == "noise":
            return unit(random(120, 80, seed=seed))
        return unit(np.outer(random(120, seed=seed), random(80, seed=seed + 1)))

    hits = residual_hits = 0.0
    for draw in range(100):
        seed = 10 * draw
        base = unit(random(120, 80, seed=seed))
        family = [base + 0.2 * change(parents, seed + 1 + 2 * number) for number in range(2)]
        merged = 0.3 * family[0] + 0.7 * family[1]
        merged = merged + 0.1 * change(after, seed + 7)
        origin = base if based else np.zeros_like(base)
        columns = np.stack([(one - origin).ravel() for one in family], axis=1)
        target = (merged - origin).ravel()
        # Least squares on the weights themselves is what the sketches estimate.
        truth = np.linalg.lstsq(columns, target, rcond=None)[0]
        left_over = np.linalg.norm(target - columns @ truth) / np.linalg.norm(target)

        found = merge_coefficients(
            sketch(merged), [sketch(one) for one in family], sketch(base) if based else None
        )

        assert found.coefficients is not None
        hits += sum(
            abs(one.value - expected) <= 2 * one.error
            for one, expected in zip(found.coefficients, truth, strict=True)
        )
        residual_hits += abs(residual(found).value - left_over) <= 2 * residual(found).error

    # 95 % for a normal error; 100 draws at 93 % fall below 88 % once in forty times. The draws are seeded.
    assert hits / 200 >= 0.88
    assert residual_hits / 100 >= 0.88


@pytest.mark.parametrize("based", [False, True])
def test_parents_that_are_not_independent_give_no_coefficients_but_the_residual(based: bool) -> None:
    one, base = random(60, 50, seed=1), random(60, 50, seed=2)
    merged = 0.4 * one + 0.6 * base + 1e-3 * random(60, 50, seed=3)
    origin = sketch(base) if based else None
    copies = merge_coefficients(sketch(merged), [sketch(one), sketch(one)], origin)
    zero = np.zeros((60, 50)) if not based else base
    empty = merge_coefficients(sketch(merged), [sketch(one), sketch(zero)], origin)

    for found in (copies, empty):
        assert found.status is RecipeStatus.COLLINEAR
        assert found.coefficients is None
        assert found.condition is None
        alone = residual(merge_coefficients(sketch(merged), [sketch(one)], origin))
        assert residual(found).value == pytest.approx(alone.value, rel=1e-4)
        assert residual(found).error == pytest.approx(alone.error, rel=1e-4)


def test_parents_that_differ_by_less_than_a_sketch_resolves_are_not_independent() -> None:
    one = random(60, 50, seed=1)
    other = one + 1e-7 * random(60, 50, seed=2)

    found = merge_coefficients(sketch(0.5 * one + 0.5 * other), [sketch(one), sketch(other)])

    assert found.status is RecipeStatus.COLLINEAR


def test_an_empty_merge_has_nothing_to_explain() -> None:
    one, zero = sketch(random(60, 50, seed=1)), sketch(np.zeros((60, 50)))

    for found in (merge_coefficients(zero, [one]), merge_coefficients(one, [zero], one)):
        assert found == Recipe(RecipeStatus.EMPTY, None, None, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, float(np.finfo(np.float32).max)])
def test_a_sketch_that_holds_no_numbers_gives_a_status(bad: float) -> None:
    good = sketch(random(60, 50, seed=1))
    spoilt = good.copy()
    spoilt[0, 0] = bad

    for arguments in ((spoilt, [good], None), (good, [good, spoilt], None), (good, [good], spoilt)):
        assert merge_coefficients(*arguments) == Recipe(RecipeStatus.NON_FINITE, None, None, None)


def test_a_recipe_without_parents_is_refused() -> None:
    with pytest.raises(ValueError, match="parent"):
        merge_coefficients(sketch(random(60, 50, seed=1)), [])
    with pytest.raises(ValueError, match="parent"):
        model_recipe({}, [])


def model(seed: int, size: float = 1.0) -> Model:
    return {
        name: size * random(*shape, seed=seed + position)
        for position, (name, shape) in enumerate(SHAPES.items())
    }


def mixed(shares: Mapping[int, float], base: Model | None = None) -> Model:
    """Mixture of the models of these seeds, or base plus a mixture of what they add to it."""
    out = {name: np.zeros(shape) if base is None else base[name] for name, shape in SHAPES.items()}
    for seed, share in shares.items():
        for name, matrix in model(seed).items():
            out[name] = out[name] + share * (matrix if base is None else matrix - base[name])
    return out


def sketched(weights: Model, dtype: str = "F32") -> dict[str, LayerSketch]:
    return {
        name: LayerSketch(sketch(matrix), float(np.linalg.norm(matrix)), matrix.shape, dtype)
        for name, matrix in weights.items()
    }


ONE, OTHER = 100, 200


def parents() -> list[dict[str, LayerSketch]]:
    return [sketched(model(ONE)), sketched(model(OTHER))]


def test_a_whole_model_has_the_recipe_that_every_layer_has() -> None:
    found = model_recipe(sketched(mixed({ONE: 0.3, OTHER: 0.7})), parents())

    assert values(found.common) == pytest.approx([0.3, 0.7], abs=1e-7)
    assert found.declared is None
    assert found.followed is True
    assert found.deviating == ()
    assert [layer.name for layer in found.layers] == list(SHAPES)
    for layer in found.layers:
        assert values(layer.own) == pytest.approx([0.3, 0.7], abs=1e-6)
        assert layer.residual is not None
        assert layer.residual.value < 6e-7


@pytest.mark.parametrize("odd", [["q"], ["embed"], ["q", "head"]])
@pytest.mark.parametrize("how", ["other shares", "trained on", "another network"])
def test_layers_made_otherwise_are_named_and_do_not_bend_the_recipe(odd: list[str], how: str) -> None:
    merged = mixed({ONE: 0.3, OTHER: 0.7})
    for name in odd:
        if how == "other shares":
            merged[name] = mixed({ONE: 0.5, OTHER: 0.5})[name]
        elif how == "trained on":
            merged[name] = merged[name] + 0.01 * random(*SHAPES[name], seed=9)
        else:
            merged[name] = random(*SHAPES[name], seed=9)

    found = model_recipe(sketched(merged), parents())

    assert set(found.deviating) == set(odd)
    assert found.followed is False
    assert values(found.common) == pytest.approx([0.3, 0.7], abs=1e-6)


def test_a_declared_recipe_that_was_not_used_explains_no_layer() -> None:
    merged = sketched(mixed({ONE: 0.3, OTHER: 0.7}))

    right = model_recipe(merged, parents(), declared=[0.3, 0.7])
    wrong = model_recipe(merged, parents(), declared=[0.5, 0.5])

    assert right.followed is True
    assert right.declared == (0.3, 0.7)
    assert wrong.followed is False
    assert set(wrong.deviating) == set(SHAPES)
    # What was done instead is told beside it.
    assert values(wrong.common) == pytest.approx([0.3, 0.7], abs=1e-6)
    # || 0.2 (a - b) || / || 0.3 a + 0.7 b || for independent a and b of one size.
    assert wrong.layers[0].residual is not None
    assert wrong.layers[0].residual.value == pytest.approx(0.08**0.5 / 0.58**0.5, rel=0.05)


def test_task_arithmetic_on_a_base_is_recognised() -> None:
    base = model(300)
    merged = sketched(mixed({ONE: 0.4, OTHER: 0.4}, base))

    found = model_recipe(merged, parents(), sketched(base))

    assert values(found.common) == pytest.approx([0.4, 0.4], abs=1e-6)
    assert found.followed is True


@pytest.mark.parametrize(("dtype", "store"), [("BF16", ml_dtypes.bfloat16), ("F16", np.float16)])
def test_rounding_to_the_stored_type_is_no_deviation(dtype: str, store: type) -> None:
    merged = mixed({ONE: 0.3, OTHER: 0.7})
    rounded = {name: matrix.astype(store).astype(np.float64) for name, matrix in merged.items()}

    stored = model_recipe(sketched(rounded, dtype), parents())
    claimed = model_recipe(sketched(rounded, "F32"), parents())

    assert stored.followed is True
    assert set(claimed.deviating) == set(SHAPES)


def test_rounding_of_the_sketches_is_no_deviation_of_weights_kept_in_float64() -> None:
    assert model_recipe(sketched(mixed({ONE: 0.3, OTHER: 0.7}), "F64"), parents()).followed is True


def test_small_layers_do_not_outvote_large_ones() -> None:
    small = ("down", "q", "head")
    family = [model(ONE), model(OTHER)]
    for one in family:
        for name in small:
            one[name] = 0.01 * one[name]
    merged = {
        name: (0.5 if name in small else 0.3) * family[0][name]
        + (0.5 if name in small else 0.7) * family[1][name]
        for name in SHAPES
    }

    found = model_recipe(sketched(merged), [sketched(one) for one in family])

    assert set(found.deviating) == set(small)
    assert values(found.common) == pytest.approx([0.3, 0.7], abs=1e-6)


@pytest.mark.parametrize("store", [ml_dtypes.bfloat16, np.float32])
def test_a_merge_computed_in_the_stored_type_is_no_deviation(store: type) -> None:
    shares = (0.3, 0.7)
    family: list[dict[str, NDArray[Any]]] = [
        {name: m.astype(store) for name, m in model(seed).items()} for seed in (ONE, OTHER)
    ]
    merged = {
        name: (
            np.asarray(shares[0], store) * family[0][name] + np.asarray(shares[1], store) * family[1][name]
        )
        for name in SHAPES
    }
    dtype = "BF16" if store is ml_dtypes.bfloat16 else "F32"

    found = model_recipe(
        *(
            sketched({name: m.astype(np.float64) for name, m in merged.items()}, dtype),
            [sketched({name: m.astype(np.float64) for name, m in one.items()}, dtype) for one in family],
        )
    )

    assert found.followed is True
    # Shares are rounded too: bfloat16 has 0.3008 and 0.6992.
    assert values(found.common) == pytest.approx(shares, abs=2e-3 if dtype == "BF16" else 1e-6)


def test_training_after_the_merge_is_accepted_up_to_the_tolerance() -> None:
    merged = mixed({ONE: 0.3, OTHER: 0.7})
    for position, (name, matrix) in enumerate(merged.items()):
        step = unit(random(*SHAPES[name], seed=50 + position))
        merged[name] = matrix + 0.02 * np.linalg.norm(matrix) * step

    strict = model_recipe(sketched(merged), parents())
    lenient = model_recipe(sketched(merged), parents(), tolerance=0.03)
    borderline = model_recipe(sketched(merged), parents(), tolerance=0.02)

    assert set(strict.deviating) == set(SHAPES)
    assert lenient.followed is True
    # Some estimates lie above the truth, which is the tolerance: not by more than their errors.
    assert max(layer.residual.value for layer in borderline.layers if layer.residual) > 0.0202
    assert borderline.followed is True
    for found in (strict, lenient):
        for estimate, share in zip(found.common.coefficients or (), (0.3, 0.7), strict=True):
            assert abs(estimate.value - share) < 4 * estimate.error < 0.01
        assert residual(found.common).value == pytest.approx(0.02, rel=0.05)


def test_a_frozen_layer_follows_any_recipe_whose_shares_add_to_one() -> None:
    family = [model(ONE), model(OTHER)]
    family[1]["embed"] = family[0]["embed"]
    merged = {name: 0.3 * family[0][name] + 0.7 * family[1][name] for name in SHAPES}

    found = model_recipe(sketched(merged), [sketched(one) for one in family])

    assert found.followed is True
    assert found.layers[0].own.status is RecipeStatus.COLLINEAR
    assert values(found.common) == pytest.approx([0.3, 0.7], abs=1e-6)


def test_a_layer_equal_to_the_base_everywhere_follows_with_nothing_to_explain() -> None:
    base, family = model(300), [model(ONE), model(OTHER)]
    for one in family:
        one["embed"] = base["embed"]
    merged = {
        name: base[name] + 0.4 * (family[0][name] - base[name]) + 0.4 * (family[1][name] - base[name])
        for name in SHAPES
    }
    merged["embed"] = base["embed"]

    found = model_recipe(sketched(merged), [sketched(one) for one in family], sketched(base))

    assert found.followed is True
    assert found.layers[0].residual is None
    assert found.layers[0].own.status is RecipeStatus.EMPTY


def test_equal_parents_leave_the_coefficients_open_and_the_question_answered() -> None:
    merged = sketched(mixed({ONE: 1.0}))

    found = model_recipe(merged, [sketched(model(ONE)), sketched(model(ONE))])

    assert found.common.status is RecipeStatus.COLLINEAR
    assert found.common.coefficients is None
    assert found.followed is True


def test_layers_that_cannot_be_compared_are_told_with_the_reason() -> None:
    merged = sketched(mixed({ONE: 0.3, OTHER: 0.7}))
    one, other = parents()
    del one["embed"]
    other["up"] = LayerSketch(other["up"].sketch, 1.0, (161, 40))
    spoilt = np.full((SIZE, SIZE), np.nan, dtype=np.float32)
    other["down"] = LayerSketch(spoilt, 1.0, SHAPES["down"])
    merged["q"] = LayerSketch(merged["q"].sketch, merged["q"].norm, SHAPES["q"], "F32", folded=True)

    found = model_recipe(merged, [one, other])

    assert found.left_out == (
        ("embed", LeftOut.MISSING),
        ("up", LeftOut.SHAPE),
        ("down", LeftOut.NON_FINITE),
        ("q", LeftOut.FOLDED),
    )
    assert [layer.name for layer in found.layers] == ["head"]
    assert values(found.common) == pytest.approx([0.3, 0.7], abs=1e-6)


def test_folded_layers_are_held_against_each_other_by_their_raw_weights() -> None:
    merged, *parents_ = (
        sketched(weights) | {"up": _behind_batchnorm(sketched(weights)["up"], weights["up"], seed)}
        for seed, weights in enumerate((mixed({ONE: 0.3, OTHER: 0.7}), model(ONE), model(OTHER)))
    )

    found = model_recipe(merged, parents_)

    assert found.left_out == ()
    assert found.followed is True
    assert values(found.common) == pytest.approx([0.3, 0.7], abs=1e-5)


def _behind_batchnorm(raw: LayerSketch, weights: Matrix, seed: int) -> LayerSketch:
    """Every seed is another batch norm: the folds of parents do not mix to that of their merge."""
    factors = np.random.default_rng(seed).uniform(0.5, 2.0, len(weights))
    norm = float(np.linalg.norm(weights * factors[:, None]))
    return LayerSketch(sketch(weights, factors), norm, raw.shape, raw.dtype, folded=True, raw=raw)


def test_with_no_layer_in_common_nothing_is_claimed() -> None:
    found = model_recipe(sketched(model(ONE)), [{}, {}])

    assert found.followed is None
    assert found.common.status is RecipeStatus.EMPTY
    assert len(found.left_out) == len(SHAPES)


def test_one_declared_coefficient_is_needed_for_each_parent() -> None:
    with pytest.raises(ValueError, match="1 coefficients are declared for 2 parents"):
        model_recipe(sketched(model(ONE)), parents(), declared=[1.0])

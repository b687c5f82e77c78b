"""The likely parent: the nearest stored model comes first, and a tie is not decided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.estimate import LayerSketch
from layerwatch.metrics.nearest import Candidate, nearest_parent
from layerwatch.metrics.sketch import SIZE, sketch

Model = dict[str, NDArray[np.float64]]

SHAPES = {"embed": (200, 40), "up": (160, 40), "down": (40, 160), "q": (40, 40)}


def model(seed: int, size: float = 1.0) -> Model:
    generator = np.random.default_rng(seed)
    return {name: size * generator.standard_normal(shape) for name, shape in SHAPES.items()}


def plus(one: Model, other: Model, share: float) -> Model:
    return {name: one[name] + share * other[name] for name in one}


def sketched(weights: Model) -> dict[str, LayerSketch]:
    return {
        name: LayerSketch(sketch(matrix), float(np.linalg.norm(matrix)), matrix.shape)
        for name, matrix in weights.items()
    }


def norm(weights: Model) -> float:
    return float(np.linalg.norm([np.linalg.norm(matrix) for matrix in weights.values()]))


def change_of(candidate: Candidate) -> tuple[float, float]:
    assert candidate.relative_change is not None
    return candidate.relative_change.value, candidate.relative_change.error


def test_the_parent_comes_before_grandparent_sibling_and_stranger() -> None:
    grandparent = model(1)
    parent = plus(grandparent, model(2), 0.05)
    version = plus(parent, model(3), 0.05)
    sibling = plus(parent, model(4), 0.08)

    found = nearest_parent(
        sketched(version),
        {
            "stranger": sketched(model(9)),
            "sibling": sketched(sibling),
            "grandparent": sketched(grandparent),
            "parent": sketched(parent),
        },
    )

    assert [one.name for one in found.candidates] == ["parent", "grandparent", "sibling", "stranger"]
    assert found.decisive
    for one, expected in zip(
        found.candidates, (0.05, 0.05 * 2**0.5, (0.05**2 + 0.08**2) ** 0.5, 2**0.5), strict=True
    ):
        # Independent Gaussian changes add in squares; the sketch's error and that of the draw are near 1 %.
        assert change_of(one)[0] == pytest.approx(expected, rel=0.05)
        assert one.layers == len(SHAPES)
        assert one.coverage == 1.0
        assert one.comparable


def test_distances_lie_within_two_standard_errors_of_the_truth() -> None:
    hits = alike = 0
    for seed in range(0, 300, 3):
        old = model(seed)
        # Low-rank changes in one common direction of the output space: the hardest case over layers.
        direction = np.random.default_rng(seed + 1).standard_normal(200)
        change = {
            name: np.outer(direction[: shape[0]], np.random.default_rng(seed + 2).standard_normal(shape[1]))
            for name, shape in SHAPES.items()
        }
        new = plus(old, change, 0.2)

        (found,) = nearest_parent(sketched(new), {"old": sketched(old)}).candidates

        value, error = change_of(found)
        hits += abs(value - 0.2 * norm(change) / norm(old)) <= 2 * error
        truth = sum(float(np.vdot(new[name], old[name])) for name in SHAPES) / norm(new) / norm(old)
        assert found.cosine is not None
        alike += abs(found.cosine.value - truth) <= 2 * found.cosine.error

    # 95 % for a normal error; 100 draws at 93 % fall below 88 % once in forty times. The draws are seeded.
    assert hits >= 88
    assert alike >= 88


def test_an_identical_model_is_at_distance_zero_and_decisive() -> None:
    version = model(1)

    found = nearest_parent(
        sketched(version), {"near": sketched(plus(version, model(2), 1e-4)), "same": sketched(version)}
    )

    assert found.candidates[0].name == "same"
    assert change_of(found.candidates[0])[0] == 0.0
    assert found.decisive


def test_two_copies_of_one_candidate_are_a_tie() -> None:
    parent = model(1)
    version = plus(parent, model(2), 0.05)

    found = nearest_parent(
        sketched(version), {"one": sketched(parent), "copy": sketched(parent), "far": sketched(model(5))}
    )

    assert {one.name for one in found.candidates[:2]} == {"one", "copy"}
    assert not found.decisive


def test_two_copies_of_the_version_itself_are_a_tie() -> None:
    version = model(1)

    assert not nearest_parent(
        sketched(version), {"one": sketched(version), "copy": sketched(version)}
    ).decisive


def test_candidates_within_their_errors_are_a_tie() -> None:
    # Two siblings of the version's parent, both 0.05 away in directions of their own: equally near but for 1 %.
    version = model(1)

    found = nearest_parent(
        sketched(version),
        {str(seed): sketched(plus(version, model(seed), 0.05)) for seed in (2, 3)},
    )

    assert not found.decisive


def test_what_candidates_have_in_common_drops_out_of_the_comparison() -> None:
    # Distances 1 % apart, each known to 1 %: error bars overlap. But the version's own change is in both of them.
    parent = model(1)
    version = plus(parent, model(2), 0.1)
    further = plus(parent, model(3), 0.015)

    found = nearest_parent(sketched(version), {"parent": sketched(parent), "further": sketched(further)})

    (near, near_error), (far, far_error) = (change_of(one) for one in found.candidates)
    assert 0.0 < far - near < near_error + far_error
    assert found.candidates[0].name == "parent"
    assert found.decisive


def test_a_stranger_alone_is_no_parent() -> None:
    (found,) = (nearest_parent(sketched(model(1)), {"stranger": sketched(model(2))}),)

    assert not found.decisive
    assert found.candidates[0].cosine is not None
    assert abs(found.candidates[0].cosine.value) < 0.1


def test_a_stranger_with_large_weights_does_not_come_before_a_parent_that_grew() -> None:
    # Relative to the candidate, the stranger is one norm away and the parent, tripled and trained, more than two.
    parent = model(1)
    version = plus(plus(parent, parent, 2.0), model(2), 0.5)

    found = nearest_parent(
        sketched(version), {"large": sketched(model(3, 100.0)), "parent": sketched(parent)}
    )

    near, far = found.candidates
    assert (near.name, far.name) == ("parent", "large")
    assert change_of(near)[0] > 2.0
    assert change_of(far)[0] < 1.1
    assert near.distance is not None
    assert near.distance.value == pytest.approx((4 + 0.25) ** 0.5 / (9 + 0.25) ** 0.5, rel=0.03)
    assert found.decisive


def test_layers_are_joined_by_name_and_shape_and_the_rest_is_counted() -> None:
    version = sketched(model(1))
    candidate = sketched(model(1))
    del candidate["q"]
    candidate["up"] = LayerSketch(candidate["up"].sketch, 1.0, (161, 40))
    candidate["extra"] = candidate["down"]

    (found,) = nearest_parent(version, {"candidate": candidate}).candidates

    total = sum(rows * columns for rows, columns in SHAPES.values())
    assert (found.layers, found.missing, found.mismatched) == (2, 1, 1)
    assert found.coverage == pytest.approx((200 * 40 + 40 * 160) / total)
    assert change_of(found)[0] == 0.0


def test_too_little_overlap_is_listed_last_and_not_compared() -> None:
    version = sketched(model(1))
    parent = sketched(plus(model(1), model(2), 0.1))
    only_q = {"q": version["q"]}

    found = nearest_parent(version, {"none": {}, "only q": only_q, "parent": parent})

    assert [one.name for one in found.candidates] == ["parent", "only q", "none"]
    assert [one.comparable for one in found.candidates] == [True, False, False]
    assert change_of(found.candidates[1])[0] == 0.0
    assert found.candidates[2].relative_change is None
    assert found.decisive
    assert not nearest_parent(version, {"only q": only_q}).decisive
    assert nearest_parent(version, {"only q": only_q}, least_coverage=0.05).decisive


def test_rivals_that_share_too_few_layers_are_not_told_apart() -> None:
    version = sketched(model(1))
    near = sketched(plus(model(1), model(2), 0.1))
    left = {name: near[name] for name in ("embed", "q")}
    right = {name: sketched(plus(model(1), model(3), 0.5))[name] for name in ("up", "down", "q")}

    found = nearest_parent(version, {"left": left, "right": right}, least_coverage=0.3)

    assert [one.name for one in found.candidates] == ["left", "right"]
    assert not found.decisive


def test_without_candidates_or_layers_nothing_is_decided() -> None:
    assert nearest_parent(sketched(model(1)), {}).candidates == ()
    assert not nearest_parent(sketched(model(1)), {}).decisive
    (found,) = nearest_parent({}, {"one": sketched(model(1))}).candidates
    assert (found.coverage, found.comparable) == (0.0, False)


def test_an_empty_candidate_is_not_comparable() -> None:
    (found,) = nearest_parent(sketched(model(1)), {"zero": sketched(model(1, 0.0))}).candidates

    assert (found.distance, found.relative_change, found.cosine) == (None, None, None)
    assert not found.comparable


def test_layers_that_are_not_finite_are_left_out_of_the_sum() -> None:
    version, candidate = sketched(model(1)), sketched(model(1))
    spoilt = np.full((SIZE, SIZE), np.nan, dtype=np.float32)
    candidate["q"] = LayerSketch(spoilt, np.nan, SHAPES["q"])

    (found,) = nearest_parent(version, {"one": candidate}).candidates

    assert found.layers == 3
    assert change_of(found)[0] == 0.0


@settings(max_examples=20)
@given(st.sampled_from([1e-30, 1e-6, 1e6, 1e30]))
def test_the_scale_of_all_models_does_not_matter(scale: float) -> None:
    def found(size: float) -> list[tuple[str, float]]:
        parent = model(1, size)
        version = sketched(plus(parent, model(2, size), 0.1))
        others = {"parent": sketched(parent), "stranger": sketched(model(3, size))}
        result = nearest_parent(version, others)
        assert result.decisive
        return [(one.name, change_of(one)[0]) for one in result.candidates]

    plain, scaled = found(1.0), found(scale)

    assert [name for name, _ in scaled] == [name for name, _ in plain]
    assert [value for _, value in scaled] == pytest.approx([value for _, value in plain], rel=1e-4)

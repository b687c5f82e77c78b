"""Zeros that somebody meant, told from the rest of the network; whatever the order of its layers."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.measurement import LayerKind, Measurement
from layerwatch.metrics.pruning import Pruning, pruning_of
from layerwatch_testing.examinations import change, examination, layer, measurement, new_layer, vector


def pruned(name: str, share: float) -> ExaminedLayer:
    return layer(name, measurement=measurement(zero_share=share), baseline=measurement(zero_share=0.1))


def of(*layers: ExaminedLayer) -> Pruning:
    return pruning_of(examination(*layers))


def test_the_rise_of_the_others_leaves_the_layer_itself_out() -> None:
    found = of(pruned("a", 0.9), pruned("b", 0.3), pruned("c", 0.5), new_layer("new"))

    assert found.rises == pytest.approx({"a": 0.8, "b": 0.2, "c": 0.4})
    assert found.rise_around("a") == pytest.approx(0.3)
    assert found.rise_around("b") == pytest.approx(0.6)
    assert of(pruned("a", 0.9)).rise_around("a") == 0.0


@pytest.mark.parametrize(
    ("own", "others", "wide"), [(0.9, 0.51, True), (0.9, 0.49, False), (0.29, 0.29, False)]
)
def test_a_layer_was_pruned_along_when_the_others_rose_by_half_as_much(
    own: float, others: float, wide: bool
) -> None:
    found = of(pruned("a", own), *(pruned(name, others) for name in "bcd"))

    assert found.is_model_wide("a") is wide


def test_a_version_without_layers_or_baseline_knows_of_no_pruning() -> None:
    assert of().rises == {}
    assert not of(new_layer("fc")).is_model_wide("fc")


def empty(norm: str, seen_by_statistics: bool = True) -> Measurement:
    return measurement(
        max_abs=0.0, norm=0.0, zero_share=1.0, folded_by=norm, fold_statistics_empty=seen_by_statistics
    )


def residual_block(name: str, last: Measurement) -> list[ExaminedLayer]:
    return [
        layer(f"{name}.conv1", measurement=measurement(folded_by=f"{name}.bn1")),
        vector(f"{name}.bn1.weight", LayerKind.NORM),
        layer(f"{name}.conv2", measurement=last),
        vector(f"{name}.bn2.weight", LayerKind.NORM),
        vector(f"{name}.bn2.running_var", LayerKind.STATISTIC),
    ]


def test_an_empty_layer_whose_statistics_are_empty_takes_along_what_feeds_it_alone() -> None:
    kept = residual_block("layer1.0", measurement(folded_by="layer1.0.bn2"))
    removed = residual_block("layer1.1", empty("layer1.1.bn2"))

    found = of(*kept, *removed)

    assert dict(found.branches) == {one.name: "layer1.1.conv2" for one in removed}


def test_a_layer_that_was_emptied_after_training_is_no_removed_branch() -> None:
    assert dict(of(*residual_block("layer1.1", empty("layer1.1.bn2", False))).branches) == {}


def test_the_order_of_the_file_does_not_matter() -> None:
    layers = [
        *residual_block("layer1.2", empty("layer1.2.bn2")),
        *residual_block("layer1.10", empty("layer1.10.bn2")),
        pruned("fc", 0.9),
    ]
    shuffled = random.Random(1).sample(layers, len(layers))

    assert of(*shuffled).branches == of(*layers).branches
    assert of(*shuffled).rises == of(*layers).rises


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_units_removed_on_both_sides_are_recognised_in_any_order(order: tuple[int, ...]) -> None:
    layers = [
        layer("net.0", change=change(newly_zero_rows=(1, 2), zero_rows=(1, 2))),
        layer("net.2", change=change(newly_zero_columns=(1, 2), zero_columns=(1, 2), zero_rows=(5,))),
        layer("net.4", change=change(zero_columns=(7,), newly_zero_columns=(7,))),
    ]
    found = of(*(layers[place] for place in order))

    first, second, third = (found.removed_units(one) for one in layers)

    assert (first.rows, first.consumer) == (True, "net.2")
    assert (second.columns, second.producer, second.rows) == (True, "net.0", False)
    assert (third.columns, third.producer) == (False, "net.2")

"""Hidden units in another order: consistently, the same network; in one layer alone, a broken one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics import compare_models
from layerwatch.metrics.change import Method
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.results import ModelComparison

State = dict[str, NDArray[np.float32]]
HIDDEN = 48


def perceptron(seed: int = 0) -> State:
    random = np.random.default_rng(seed)
    shapes = {"fc1": (HIDDEN, 30), "fc2": (HIDDEN, HIDDEN), "fc3": (10, HIDDEN)}
    state: State = {}
    for name, shape in shapes.items():
        # Units of different strength, as training makes them.
        strengths = np.exp(0.3 * random.standard_normal(shape[0]))[:, None]
        state[f"{name}.weight"] = (strengths * random.standard_normal(shape) / 6).astype(np.float32)
        state[f"{name}.bias"] = random.standard_normal(shape[0]).astype(np.float32)
    return state


def reordered(
    state: Mapping[str, NDArray[np.float32]], first: NDArray[np.intp], second: NDArray[np.intp]
) -> State:
    return dict(state) | {
        "fc1.weight": state["fc1.weight"][first],
        "fc1.bias": state["fc1.bias"][first],
        "fc2.weight": state["fc2.weight"][second][:, first],
        "fc2.bias": state["fc2.bias"][second],
        "fc3.weight": state["fc3.weight"][:, second],
    }


def orders(seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    random = np.random.default_rng(seed)
    return random.permutation(HIDDEN), random.permutation(HIDDEN)


def rules(found: ModelComparison) -> set[str]:
    return {finding.rule for finding in found.judgement.findings}


BASE = perceptron()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_consistent_order_of_hidden_units_is_information_and_passes(seed: int) -> None:
    found = compare_models(reordered(BASE, *orders(seed)), BASE, relation="finetuned")

    assert found.judgement.verdict is Verdict.PASS
    assert rules(found) == {"permuted_copy"}
    assert {
        layer.change.aligned.method for layer in found.layers if layer.change and layer.change.aligned
    } == {Method.PERMUTED}


def test_units_that_were_dead_before_are_no_new_ones_in_another_place() -> None:
    base = BASE | {"fc1.weight": BASE["fc1.weight"].copy(), "fc2.weight": BASE["fc2.weight"].copy()}
    base["fc1.weight"][:4] = 0.0
    base["fc2.weight"][:, :4] = 0.0

    assert rules(compare_models(reordered(base, *orders(3)), base)) == {"permuted_copy"}


def test_one_layer_in_another_order_alone_is_broken() -> None:
    broken = BASE | {"fc2.weight": BASE["fc2.weight"][orders(1)[0]]}

    found = compare_models(broken, BASE)

    assert found.judgement.verdict is Verdict.FAIL
    assert found.judgement.diagnoses[0].layer == "fc2"
    assert "permuted_copy" not in rules(found)


def test_a_layer_that_reads_the_units_in_yet_another_order_is_broken() -> None:
    state = reordered(BASE, *orders(1))
    state["fc3.weight"] = state["fc3.weight"][:, orders(2)[0]]

    found = compare_models(state, BASE)

    assert found.judgement.verdict is Verdict.FAIL
    assert {finding.layer for finding in found.judgement.findings} & {"fc2", "fc3"}


def test_a_retrain_is_no_permuted_copy() -> None:
    found = compare_models(perceptron(7), BASE)

    assert "permuted_copy" not in rules(found)


def test_a_swap_of_two_units_is_enough() -> None:
    order = np.arange(HIDDEN)
    order[[3, 9]] = order[[9, 3]]

    found = compare_models(reordered(BASE, order, np.arange(HIDDEN)), BASE)

    assert rules(found) == {"permuted_copy"}
    assert "fc1" in {layer.name for layer in found.layers if "permuted" in _methods(found, layer.name)}


def _methods(found: ModelComparison, name: str) -> set[str]:
    change = found[name].change
    return {str(change.aligned.method)} if change and change.aligned else set()


def convolutions(seed: int = 0) -> State:
    random = np.random.default_rng(seed)
    state: State = {}
    for index, shape in ((0, (12, 3, 3, 3)), (2, (20, 12, 3, 3))):
        state[f"{index}.weight"] = random.gamma(2.0, 1.0, shape).astype(np.float32)
    state["5.weight"] = random.gamma(2.0, 1.0, (10, 20 * 16)).astype(np.float32)
    return state


def test_channels_of_convolutions_are_carried_through_the_flattening() -> None:
    base = convolutions()
    one, two = np.random.default_rng(1).permutation(12), np.random.default_rng(2).permutation(20)
    state = {
        "0.weight": base["0.weight"][one],
        "2.weight": base["2.weight"][two][:, one],
        "5.weight": base["5.weight"].reshape(10, 20, 16)[:, two].reshape(10, -1),
    }

    assert rules(compare_models(state, base)) == {"permuted_copy"}


def blocks(seed: int = 0, count: int = 3, width: int = 32) -> State:
    random = np.random.default_rng(seed)

    def weights(rows: int, columns: int) -> NDArray[np.float32]:
        strengths = np.exp(
            0.3 * random.standard_normal((rows, 1)) + 0.3 * random.standard_normal((1, columns))
        )
        return (strengths * random.standard_normal((rows, columns)) / 6).astype(np.float32)

    state: State = {"embed.weight": weights(60, width), "out.weight": weights(60, width)}
    for index in range(count):
        for name in ("reader", "other"):
            state[f"part.{index}.{name}.weight"] = weights(24, width)
        state[f"part.{index}.writer.weight"] = weights(width, 24)
    return state


def in_another_stream_order(state: State, left: tuple[str, ...] = ()) -> State:
    order = np.random.default_rng(5).permutation(32)
    return {
        name: values if name in left else (values[order] if "writer" in name else values[:, order])
        for name, values in state.items()
    }


def test_a_residual_stream_in_another_order_is_a_copy_whatever_its_layers_are_called() -> None:
    base = blocks()

    assert rules(compare_models(in_another_stream_order(base), base)) == {"permuted_copy"}


@pytest.mark.parametrize("left", ["part.1.other.weight", "part.2.writer.weight"])
def test_a_layer_that_kept_the_old_order_of_the_stream_is_named(left: str) -> None:
    base = blocks()

    found = compare_models(in_another_stream_order(base, (left,)), base)

    assert found.judgement.verdict is Verdict.FAIL
    first = found.judgement.diagnoses[0]
    assert (first.defect, first.layer) == ("order_not_shared", left.removesuffix(".weight"))

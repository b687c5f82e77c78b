"""Pruning, int8 and the faults, on tensors by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from layerwatch.daemon.demo.compression import dequantise, prune, quantise, spoil
from layerwatch.daemon.demo.story import Fault

WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=6),
    elements=st.floats(-100, 100, width=32),
)


def gaussian(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


@given(WEIGHTS)
def test_int8_is_off_by_at_most_half_a_step_of_its_row(weights: NDArray[np.float32]) -> None:
    stored = quantise({"fc.weight": weights})
    assert stored["fc.weight"].dtype == np.int8
    assert stored["fc.weight_scale"].shape == (weights.shape[0],)
    error = np.abs(dequantise(stored)["fc.weight"] - weights).reshape(weights.shape[0], -1).max(axis=1)
    # A subnormal scale has few bits itself, hence the absolute term.
    assert np.all(error <= 0.5001 * stored["fc.weight_scale"] + 1e-40)


@given(WEIGHTS, st.floats(0, 1))
def test_pruning_zeroes_the_share_it_was_told_and_nothing_larger_than_what_it_keeps(
    weights: NDArray[np.float32], share: float
) -> None:
    pruned = prune({"fc.weight": weights}, share)["fc.weight"]
    kept = pruned != 0
    assert np.array_equal(pruned[kept], weights[kept])
    lost = (weights != 0) & ~kept
    already_zero = int(np.count_nonzero(weights == 0))
    assert np.count_nonzero(lost) == max(0, round(share * weights.size) - already_zero)
    if lost.any() and kept.any():
        assert np.abs(weights[lost]).max() <= np.abs(weights[kept]).min()


def test_vectors_and_counters_are_left_as_they_are() -> None:
    tensors = {"bn.running_var": gaussian(8), "bn.num_batches_tracked": np.array(7)}
    compressed = quantise(prune(tensors, 0.9))
    assert compressed.keys() == tensors.keys()
    assert all(compressed[name] is tensors[name] for name in tensors)


def test_dequantising_leaves_no_scale_behind() -> None:
    stored = quantise({"fc.weight": gaussian(4, 3), "fc.bias": gaussian(4)})
    assert dequantise(stored).keys() == {"fc.weight", "fc.bias"}


def test_a_row_of_zeros_survives_quantisation() -> None:
    weights = gaussian(4, 3)
    weights[2] = 0.0
    assert np.array_equal(dequantise(quantise({"fc.weight": weights}))["fc.weight"][2], np.zeros(3))


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_changes_one_scale_and_nothing_else(fault: Fault) -> None:
    stored = quantise({"fc1.weight": gaussian(4, 3), "fc2.weight": gaussian(5, 4)})
    spoiled = spoil(stored, "fc2", fault)
    assert spoiled.keys() == stored.keys()
    changed = [name for name in stored if not np.array_equal(stored[name], spoiled[name])]
    assert changed == ["fc2.weight_scale"]
    assert spoiled["fc2.weight_scale"].dtype == np.float32


def test_the_faults_do_what_their_names_say() -> None:
    stored: dict[str, NDArray[Any]] = {
        "fc.weight": np.ones((2, 2), np.int8),
        "fc.weight_scale": np.array([0.5, 0.25], np.float32),
    }
    twice = spoil(stored, "fc", Fault.SCALE_APPLIED_TWICE)["fc.weight_scale"]
    assert twice.tolist() == [0.25, 0.0625]
    divided = spoil(stored, "fc", Fault.RANGE_DIVIDED_TWICE)["fc.weight_scale"]
    assert divided == pytest.approx([0.5 / 127, 0.25 / 127])

"""Small networks as state dicts, with the changes that versions of a model go through."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Network = dict[str, NDArray[np.float32]]

_SHAPES = {"fc1.weight": (96, 64), "fc2.weight": (64, 96), "fc3.weight": (32, 64)}
_MATRICES = tuple(_SHAPES)


def network(seed: int = 0) -> Network:
    """Three linear layers with biases."""
    generator = np.random.default_rng(seed)
    state: Network = {}
    for name, shape in _SHAPES.items():
        state[name] = (generator.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
        state[name.replace("weight", "bias")] = generator.standard_normal(shape[0]).astype(np.float32) * 0.1
    return state


def finetuned(state: Mapping[str, NDArray[np.float32]], seed: int = 1) -> Network:
    """Every weight moved a little, all layers alike: the relative change of each is about 2 %."""
    generator = np.random.default_rng(seed)
    return {
        name: (values + 0.02 * float(np.std(values)) * generator.standard_normal(values.shape)).astype(
            np.float32
        )
        for name, values in state.items()
    }


def with_wrong_scale(state: Mapping[str, NDArray[np.float32]], layer: str = "fc2.weight") -> Network:
    """One layer eight times too large, as after a quantisation with the wrong scale."""
    return {**state, layer: state[layer] * np.float32(8)}


def with_nan(state: Mapping[str, NDArray[np.float32]], layer: str = "fc1.weight") -> Network:
    """One weight of one layer is no number."""
    broken = state[layer].copy()
    broken[3, 4] = np.nan
    return {**state, layer: broken}


def with_one_layer_trained(state: Mapping[str, NDArray[np.float32]], layer: str = "fc3.weight") -> Network:
    """All layers frozen but one."""
    return {**state, layer: finetuned(state)[layer]}

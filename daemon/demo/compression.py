"""Compression of a network's tensors: magnitude pruning, int8 with one scale per output row, and how it goes wrong.

Works on tensors by name, as they stand in a file. Only tensors of two or more dimensions are compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.daemon.demo.story import Fault

Tensors = Mapping[str, NDArray[Any]]

SCALE_SUFFIX = "_scale"
"""``fc1.weight`` is followed by ``fc1.weight_scale``, as compressed-tensors stores it."""

_INT8_LARGEST = 127


def prune(tensors: Tensors, share: float) -> dict[str, NDArray[Any]]:
    """Set the given share (0..1) of every weight matrix to zero, smallest magnitudes first."""
    return {name: _pruned(values, share) if values.ndim >= 2 else values for name, values in tensors.items()}


def quantise(tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Store every weight matrix as int8, symmetric, with a float32 scale of shape (rows,) beside it."""
    stored: dict[str, NDArray[Any]] = {}
    for name, values in tensors.items():
        if values.ndim < 2:
            stored[name] = values
            continue
        largest = np.abs(values).reshape(values.shape[0], -1).max(axis=1)
        scale = (largest / _INT8_LARGEST).astype(np.float32)
        # A row of zeros, or of values so small that their scale is none, has no scale of its own; any will do.
        scale[scale == 0.0] = 1.0
        steps = np.rint(values / _per_row(scale, values.ndim))
        stored[name] = np.clip(steps, -_INT8_LARGEST, _INT8_LARGEST).astype(np.int8)
        stored[name + SCALE_SUFFIX] = scale
    return stored


def dequantise(stored: Tensors) -> dict[str, NDArray[Any]]:
    """What the network computes with: int8 times scale as float32, everything else as stored."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, values in stored.items():
        scale = stored.get(name + SCALE_SUFFIX)
        if scale is not None:
            tensors[name] = values.astype(np.float32) * _per_row(scale, values.ndim)
        elif not (name.endswith(SCALE_SUFFIX) and name.removesuffix(SCALE_SUFFIX) in stored):
            tensors[name] = values
    return tensors


def spoil(stored: Tensors, layer: str, fault: Fault) -> dict[str, NDArray[Any]]:
    """A copy in which one layer's scales are wrong; every other tensor is the same.

    Args:
        stored: tensors with int8 weights and their scales.
        layer: name of the layer, without ``.weight``.
        fault: what goes wrong.
    """
    name = f"{layer}.weight{SCALE_SUFFIX}"
    scale = stored[name]
    wrong = scale * scale if fault is Fault.SCALE_APPLIED_TWICE else scale / _INT8_LARGEST
    return {**stored, name: wrong.astype(np.float32)}


def _pruned(values: NDArray[Any], share: float) -> NDArray[Any]:
    count = round(share * values.size)
    order = np.argsort(np.abs(values), axis=None, kind="stable")
    pruned = values.copy()
    pruned.reshape(-1)[order[:count]] = 0.0
    return pruned


def _per_row(scale: NDArray[Any], dimensions: int) -> NDArray[Any]:
    return scale.reshape((-1,) + (1,) * (dimensions - 1))

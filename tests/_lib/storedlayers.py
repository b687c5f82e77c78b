"""Tensors in memory as the schemes see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.quantised.layer import QuantisedLayer, Remark
from layerwatch.metrics.quantised.schemes import check, find_quantised, load
from layerwatch.metrics.readers.dtypes import SAFETENSORS_TYPES

Stored = Mapping[str, NDArray[Any]]
_NAMES = {kept.numpy: name for name, kept in SAFETENSORS_TYPES.items() if kept.numpy is not None}


def facts(tensors: Stored) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (values.shape, _NAMES[values.dtype]) for name, values in tensors.items()}


def getter(tensors: Stored) -> Callable[[str], NDArray[Any]]:
    return lambda name: tensors[name]


def the_layer(tensors: Stored, config: Mapping[str, Any] | None = None) -> QuantisedLayer:
    (layer,) = find_quantised(facts(tensors), config, getter(tensors))
    return layer


def values_of(tensors: Stored, config: Mapping[str, Any] | None = None) -> NDArray[np.float32]:
    return load(the_layer(tensors, config), getter(tensors), "model")


def remarks_of(tensors: Stored, config: Mapping[str, Any] | None = None) -> list[Remark]:
    layer = the_layer(tensors, config)
    return [*layer.remarks, *check(layer, getter(tensors), config)]


def kinds_of(tensors: Stored, config: Mapping[str, Any] | None = None) -> list[str]:
    return [one.kind.value for one in remarks_of(tensors, config)]


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

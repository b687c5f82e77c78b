"""The tensors of one version by name, as they would stand in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch.daemon.demo.compression import SCALE_SUFFIX, dequantise

Values: TypeAlias = NDArray[Any]
State: TypeAlias = Mapping[str, Values]


def state_of(network: torch.nn.Module) -> dict[str, Values]:
    """A copy of a network's floating tensors; counters are no weights."""
    return {
        name: tensor.detach().numpy().copy()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def load_into(network: torch.nn.Module, state: State) -> None:
    """What the network computes with, whatever types the state is stored in."""
    floats = {
        name: torch.from_numpy(np.asarray(values, dtype=np.float32).copy())
        for name, values in dequantise(state).items()
    }
    network.load_state_dict(floats, strict=False)


def matrices(state: State) -> list[str]:
    """Names of the tensors of two or more dimensions."""
    return [name for name, values in state.items() if values.ndim >= 2 and not name.endswith(SCALE_SUFFIX)]


def layer_name(tensor: str) -> str:
    """What a report calls the layer of this tensor, where it has a spectrum."""
    return tensor.removesuffix(".weight")

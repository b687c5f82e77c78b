"""A reader over tensors in memory, some of which may be broken."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.tensors import Array, TensorInfo, UnexaminedFile

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int8": "I8",
    "int64": "I64",
}


class MemoryReader:
    """Hands out the given tensors read-only; ``broken`` ones raise, as a truncated file would."""

    left_out: Sequence[tuple[str, str]] = ()
    unexamined: Sequence[UnexaminedFile] = ()

    def __init__(self, state: Mapping[str, NDArray[Any]], broken: Collection[str] = ()) -> None:
        self._state = state
        self._broken = broken
        self.loaded: list[str] = []
        self.released = 0
        self.closed = False

    @property
    def format(self) -> str:
        return "memory"

    def tensors(self) -> Sequence[TensorInfo]:
        return [
            TensorInfo(name, values.shape, _NAMES[values.dtype.name], values.nbytes)
            for name, values in self._state.items()
        ]

    @property
    def metadata(self) -> Mapping[str, object]:
        """Nothing."""
        return {}

    def load(self, name: str) -> Array:
        self.loaded.append(name)
        if name in self._broken:
            raise UnreadableError(UnreadableReason.TRUNCATED, "memory", "7 bytes are missing", name)
        view = self._state[name].view()
        view.flags.writeable = False
        return view

    def release(self) -> None:
        self.released += 1

    def close(self) -> None:
        self.closed = True


def opened(state: Mapping[str, NDArray[Any]], broken: Collection[str] = ()) -> OpenModel:
    """An open model over tensors in memory."""
    return OpenModel(MemoryReader(state, broken), "memory")


def random_state(seed: int = 0) -> dict[str, NDArray[Any]]:
    """A small network: a convolution with its batch norm, a linear layer with bias."""
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape).astype(np.float32)

    return {
        "conv.weight": normal(8, 4, 3, 3),
        "bn.weight": 1 + np.abs(normal(8)),
        "bn.bias": normal(8),
        "bn.running_mean": normal(8),
        "bn.running_var": 0.5 + np.abs(normal(8)),
        "fc.weight": normal(64, 72),
        "fc.bias": normal(64),
    }

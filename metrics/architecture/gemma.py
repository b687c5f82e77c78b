"""Gains of Gemma's norms: transformers multiplies with 1 + w and stores w, GGUF stores 1 + w.

llama.cpp's converter adds the one to every tensor whose name ends in ``norm.weight`` for Gemma 1 to 3 (llama.cpp
pull request 5631; ``GemmaModel``, ``Gemma2Model`` and ``Gemma3Model`` in ``convert_hf_to_gguf.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerwatch.metrics.architecture.arrangement import Group, Part, Tensors
from layerwatch.metrics.architecture.facts import Facts
from layerwatch.metrics.tensors import Array

SHIFTED = frozenset({"gemma", "gemma2", "gemma3"})
"""Architectures whose converter adds one; Gemma 3n and 4 are stored as they are."""

_FLOATING = frozenset({"F64", "F32", "F16", "BF16"})


def undo_shifted_gains(tensors: Tensors, facts: Facts) -> Sequence[Group]:
    """Gains of norms with the one taken off."""
    if facts.gguf not in SHIFTED:
        return ()
    return [
        {name: (Part(name, info.shape, _less_one),)}
        for name, info in tensors.items()
        if name.endswith("norm.weight") and len(info.shape) == 1 and info.dtype in _FLOATING
    ]


def _less_one(values: Array) -> Array:
    wide = values.astype(np.float64 if values.dtype == np.float64 else np.float32)
    with np.errstate(all="ignore"):
        return (wide - 1).astype(values.dtype)

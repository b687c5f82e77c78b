"""Quantised storage that is recognised and not undone: it ends as undecided with its reason, never as an index table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.quantised.declared import Configuration
from layerwatch.metrics.quantised.layer import Facts, Parts, Place, QuantisedLayer

UNSUPPORTED = "unsupported"

_MARLIN = "repacked for one kind of GPU kernel (Marlin)"
_WORDS = frozenset({"I16", "I32", "I64", "U16", "U32", "U64", "U8", "I8"})
_TABLE: tuple[tuple[str, frozenset[str], tuple[str, ...], str], ...] = (
    ("weight_packed", _WORDS, ("meta",), _MARLIN + ", pruned 2:4"),
    ("B", _WORDS, ("s",), _MARLIN),
    ("B_24", _WORDS, ("s", "B_meta"), _MARLIN + ", pruned 2:4"),
    (
        "compressed",
        frozenset({"F16", "BF16", "F32"}),
        ("bitmask",),
        "sparse with a bit mask (compressed-tensors)",
    ),
    ("q_weight", _WORDS, ("q_scale", "q_groups"), "ExLlamaV2's mixed widths (exl2)"),
    ("trellis", _WORDS, ("suh", "svh"), "ExLlamaV3's trellis codes (exl3)"),
    ("W_q", _WORDS, ("meta", "scale"), "HQQ's layout"),
    ("codes", _WORDS, ("codebooks",), "additive codebooks (AQLM)"),
    ("Qidxs", _WORDS, ("SU", "SV"), "lattice codes (QuIP#)"),
    ("indices", _WORDS, ("centroids", "centroids.weight"), "vector codes (VPTQ)"),
    ("dense_weights", _WORDS, ("col_vals", "row_offsets"), "dense and sparse parts (SpQR)"),
)
"""Name and types of the numbers, names beside them of which one at least is there, and what it is."""


def find(facts: Facts, config: Configuration) -> list[QuantisedLayer]:
    """Every layer of a known storage that is not undone."""
    del config
    found = []
    for tensor, (shape, dtype) in facts.items():
        prefix, _, last = tensor.rpartition(".")
        dot = f"{prefix}." if prefix else ""
        if last == "qweight" and dtype == "I16" and f"{dot}scales" in facts:
            # AWQ gemv_fast: interleaved over rows and inputs, zero points premultiplied.
            found.append(_layer(prefix, tensor, "AWQ's layout gemv_fast, interleaved for one kernel"))
            continue
        for numbers, types, beside, what in _TABLE:
            if last == numbers and dtype in types and shape and any(f"{dot}{one}" in facts for one in beside):
                found.append(_layer(prefix, tensor, what))
                break
    return found


def dequantise(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Always raises UnreadableError with the reason."""
    del parts
    raise place.unreadable(
        f"{layer.reason}: not undone; examine the model before this step, or keep a copy in a supported form"
    )


def _layer(prefix: str, tensor: str, what: str) -> QuantisedLayer:
    return QuantisedLayer(prefix or tensor, UNSUPPORTED, {"numbers": tensor}, None, reason=what)

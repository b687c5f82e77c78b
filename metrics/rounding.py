"""How coarse the stored types are."""

from __future__ import annotations

import re

_UNIT_ROUNDOFF = {
    "F64": 2.0**-53,
    "F32": 2.0**-24,
    "F16": 2.0**-11,
    "BF16": 2.0**-8,
    "F8_E4M3": 2.0**-4,
    "F8_E5M2": 2.0**-3,
    "F8_E4M3FNUZ": 2.0**-4,
    "F8_E5M2FNUZ": 2.0**-3,
    "I8": 2.0**-8,
    "U8": 2.0**-8,
}


_QUANTISED = re.compile(r"([IU][1-8]|F[468])(?!\d)|I?Q\d|TQ\d|MXFP|NVFP")


def is_quantised(dtype: str) -> bool:
    """Whether numbers of this stored type stand for others by a scale: integers of at most 8 bits, FP8, GGUF's types.

    FP8 is one of them: its scale per tensor, row or block is part of what it stores.
    """
    return _QUANTISED.match(dtype) is not None


def unit_roundoff(dtype: str) -> float:
    """Largest relative error of rounding to a stored type (safetensors spelling), that of float32 when unknown."""
    return _UNIT_ROUNDOFF.get(dtype, 2.0**-24)

"""How coarse the stored types are."""

from __future__ import annotations

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


def unit_roundoff(dtype: str) -> float:
    """Largest relative error of rounding to a stored type (safetensors spelling), that of float32 when unknown."""
    return _UNIT_ROUNDOFF.get(dtype, 2.0**-24)

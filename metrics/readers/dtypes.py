"""Stored types: their size in the file and the numpy type that holds them.

Names follow safetensors (https://github.com/huggingface/safetensors, enum ``Dtype``); the torch types that
safetensors lacks carry their torch name in capitals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from layerwatch.metrics.errors import UnreadableError, UnreadableReason

MAX_DIMENSIONS = 64
"""Most dimensions that numpy (and torch) can hold."""

MAX_BYTES = 2**63 - 1
"""Largest byte count that a file offset can express."""


@dataclass(frozen=True, slots=True)
class StoredType:
    """One stored type.

    Attributes:
        name: safetensors spelling, or the torch name in capitals.
        bits: bits per element in the file, 0 where unknown.
        numpy: the type that holds it, or None where there is none (sub-byte, quantised, unknown).
    """

    name: str
    bits: int
    numpy: np.dtype[Any] | None

    def size_of(self, numel: int) -> int | None:
        """Bytes that ``numel`` elements take, or None when they end inside a byte."""
        bits = numel * self.bits
        return bits // 8 if bits % 8 == 0 else None


def _type(name: str, bits: int, numpy: Any = None) -> tuple[str, StoredType]:
    return name, StoredType(name, bits, None if numpy is None else np.dtype(numpy).newbyteorder("<"))


SAFETENSORS_TYPES: dict[str, StoredType] = dict(
    (
        _type("BOOL", 8, np.bool_),
        _type("U8", 8, np.uint8),
        _type("I8", 8, np.int8),
        _type("U16", 16, np.uint16),
        _type("I16", 16, np.int16),
        _type("U32", 32, np.uint32),
        _type("I32", 32, np.int32),
        _type("U64", 64, np.uint64),
        _type("I64", 64, np.int64),
        _type("F16", 16, np.float16),
        _type("BF16", 16, ml_dtypes.bfloat16),
        _type("F32", 32, np.float32),
        _type("F64", 64, np.float64),
        _type("C64", 64, np.complex64),
        _type("F8_E4M3", 8, ml_dtypes.float8_e4m3fn),
        _type("F8_E5M2", 8, ml_dtypes.float8_e5m2),
        _type("F8_E8M0", 8, ml_dtypes.float8_e8m0fnu),
        _type("F8_E4M3FNUZ", 8, ml_dtypes.float8_e4m3fnuz),
        _type("F8_E5M2FNUZ", 8, ml_dtypes.float8_e5m2fnuz),
        _type("F4", 4),
        _type("F6_E2M3", 6),
        _type("F6_E3M2", 6),
    )
)
"""Every type of the safetensors format."""

_OTHER_TORCH_TYPES: dict[str, StoredType] = dict(
    (
        _type("C32", 32),
        _type("C128", 128, np.complex128),
        _type("QINT8", 8),
        _type("QUINT8", 8),
        _type("QINT32", 32),
        _type("QUINT4X2", 8),
        _type("QUINT2X4", 8),
        _type("FLOAT4_E2M1FN_X2", 8),
    )
)

_TORCH_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "short": "I16",
    "uint32": "U32",
    "int32": "I32",
    "int": "I32",
    "uint64": "U64",
    "int64": "I64",
    "long": "I64",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float": "F32",
    "float64": "F64",
    "double": "F64",
    "complex32": "C32",
    "complex64": "C64",
    "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}

_TORCH_STORAGES = {
    "BoolStorage": "BOOL",
    "ByteStorage": "U8",
    "CharStorage": "I8",
    "ShortStorage": "I16",
    "IntStorage": "I32",
    "LongStorage": "I64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "ComplexFloatStorage": "C64",
    "ComplexDoubleStorage": "C128",
    "QInt8Storage": "QINT8",
    "QUInt8Storage": "QUINT8",
    "QInt32Storage": "QINT32",
    "QUInt4x2Storage": "QUINT4X2",
    "QUInt2x4Storage": "QUINT2X4",
    "UntypedStorage": "U8",
    "TypedStorage": "U8",
}

_TORCH_TYPES = SAFETENSORS_TYPES | _OTHER_TORCH_TYPES


def _torch_type(name: str | None, shown: str) -> StoredType:
    return StoredType(shown.upper()[:40], 0, None) if name is None else _TORCH_TYPES[name]


def torch_dtype(name: str) -> StoredType:
    """The type that ``torch.<name>`` names; unknown ones come back without size and numpy type."""
    return _torch_type(_TORCH_DTYPES.get(name, name.upper() if name.upper() in _TORCH_TYPES else None), name)


def torch_storage_type(name: str) -> StoredType:
    """The element type of a torch storage class; untyped storages count bytes."""
    return _torch_type(_TORCH_STORAGES.get(name), name)


def element_count(shape: tuple[int, ...]) -> int | None:
    """Number of elements, or None when numpy could not address a tensor of this shape.

    Dimensions are multiplied without the zero ones first, because numpy refuses (0, 2**63) as well.
    """
    if len(shape) > MAX_DIMENSIONS or any(d < 0 or d > MAX_BYTES for d in shape):
        return None
    count = 1
    for dimension in shape:
        count *= max(dimension, 1)
        if count > MAX_BYTES // 16:
            return None
    return 0 if 0 in shape else count


def loadable_type(stored: StoredType, path: Path, tensor: str) -> np.dtype[Any]:
    """The numpy type of a stored type; raises UnreadableError(UNSUPPORTED_DTYPE) where there is none."""
    if stored.numpy is not None:
        return stored.numpy
    why = "packs its elements below one byte" if 0 < stored.bits < 8 else "has no numpy counterpart"
    raise UnreadableError(
        UnreadableReason.UNSUPPORTED_DTYPE,
        path,
        f"the stored type {stored.name} {why}, so its values cannot be measured; keep a copy of the weights in "
        "BF16, F16 or FP8 to have this layer examined",
        tensor,
    )

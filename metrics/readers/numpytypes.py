"""Types of numpy arrays as stored types."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerwatch.metrics.readers.dtypes import SAFETENSORS_TYPES, StoredType

_KNOWN = {one.numpy: one for one in SAFETENSORS_TYPES.values() if one.numpy is not None}


def stored_type(dtype: np.dtype[Any]) -> StoredType:
    """The stored type that holds the values of a numpy type, whatever its byte order.

    Types without a name of their own (long doubles, bytes without meaning, as which numpy writes BF16) come back
    without a numpy type: they are listed and refused when they are loaded.
    """
    little = dtype.newbyteorder("<")
    known = _KNOWN.get(little)
    if known is not None:
        return known
    if little == np.dtype("<c16"):
        return StoredType("C128", 128, little)
    # With bits as the other names have them: numpy's own f16 is a float of 16 bytes.
    return StoredType(f"{dtype.kind.upper()}{8 * dtype.itemsize}", 8 * dtype.itemsize, None)

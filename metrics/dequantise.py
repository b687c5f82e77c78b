"""Stored numbers to float: what the layer multiplies with, not how it is packed.

Undone here: a scale tensor beside the weight, per tensor or per output row (``X.weight`` int8 or FP8 with
``X.weight_scale``, the layout of compressed-tensors). Everything else that is stored as integers is refused
with its reason, so that it ends as undecided and never as a measurement of meaningless numbers.
"""

from __future__ import annotations

import numpy as np

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.layers import FLOATING, Layer
from layerwatch.metrics.tensors import Array


def as_float(layer: Layer, stored: Array, scale: Array | None, path: str) -> Array:
    """The layer's values as float32 (float64 where stored so).

    Args:
        layer: the layer; says the stored type and whether a scale belongs to it.
        stored: values as stored.
        scale: the scale tensor, or None.
        path: file name for the error.

    Raises:
        UnreadableError: integers without a scale, or a scale whose shape fits neither tensor nor rows.
    """
    if layer.dtype.startswith("C"):
        raise UnreadableError(
            UnreadableReason.UNSUPPORTED_DTYPE, path, "complex weights are not measured", layer.tensor
        )
    if scale is None:
        # Readers of formats that define their own packing (GGUF, ONNX) hand out float32 whatever is stored.
        if layer.dtype not in FLOATING and stored.dtype != np.float32:
            raise UnreadableError(
                UnreadableReason.QUANTISED_WITHOUT_SCALE,
                path,
                f"stored as {layer.dtype} and there is no {layer.tensor}_scale to turn it back into numbers",
                layer.tensor,
            )
        # One order of the elements: sums of the same bytes must not depend on how the file laid them out.
        return np.asarray(stored, dtype=np.float64 if layer.dtype == "F64" else np.float32, order="C")
    if layer.dtype == "U8":
        raise UnreadableError(
            UnreadableReason.UNSUPPORTED_TENSOR,
            path,
            "stored as unsigned integers, which mean nothing without a zero point; I8 and FP8 are supported",
            layer.tensor,
        )
    rows = stored.shape[0]
    if scale.size not in (1, rows):
        raise UnreadableError(
            UnreadableReason.UNSUPPORTED_TENSOR,
            path,
            f"its scale has shape {tuple(scale.shape)}; one number, or one per each of {rows} rows, is supported",
            layer.tensor,
        )
    column = np.asarray(scale, dtype=np.float32).reshape((scale.size,) + (1,) * (stored.ndim - 1))
    return np.asarray(np.asarray(stored, dtype=np.float32) * column)

"""MLX: ``weight`` (out, in * bits / 32) in words, ``scales`` (out, groups) and, for whole numbers, ``biases`` beside it.

``W[o, i] = scales[o, g] * q[o, i] + biases[o, g]`` with ``g = i // group_size``; numbers are packed along the inputs,
lowest bits first and across the borders of words. The modes of floating numbers have no biases, and scales of one byte:
``mxfp4`` and ``mxfp8`` groups of 32 and powers of two, ``nvfp4`` groups of 16 and scales in FP8 (E4M3). Experts stand in
one tensor of three axes.

Words and scales fix only the product of width and group size: 4 bits in groups of 64 look like 8 bits in groups of 32.
Which it is says ``quantization`` in ``config.json``, for all layers (``group_size``, ``bits``, ``mode``) or under the
name of one; without it such a layer is not undone.

Source: https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.quantised.bits import row_blocks, unpack
from layerwatch.metrics.quantised.declared import Configuration, Declared
from layerwatch.metrics.quantised.fp4 import e2m1_values
from layerwatch.metrics.quantised.layer import Facts, Parts, Place, QuantisedLayer, RemarkKind, Remarks
from layerwatch.metrics.quantised.recognising import misfit, say_excluded
from layerwatch.metrics.quantised.scaled import factors_of
from layerwatch.metrics.tensors import Array

AFFINE = "mlx"
MXFP4 = "mlx-mxfp4"
MXFP8 = "mlx-mxfp8"
NVFP4 = "mlx-nvfp4"

_BITS = (4, 8, 6, 5, 3, 2, 1)
_SIZES = (64, 32, 128)
_MODES = {4: (MXFP4, 4, 32), 8: (MXFP8, 8, 32), 2: (NVFP4, 4, 16)}
"""By words per scale of one byte: scheme, bits, group size."""


def find(facts: Facts, config: Configuration) -> list[QuantisedLayer]:
    """Every ``weight`` of unsigned words with scales or biases beside it, or one that is declared to be of MLX."""
    found = []
    for tensor, (shape, dtype) in facts.items():
        if dtype != "U32" or len(shape) not in {2, 3} or 0 in shape:
            continue
        if tensor != "weight" and not tensor.endswith(".weight"):
            continue
        prefix = tensor.removesuffix("weight")
        parts = {role: prefix + role for role in ("weight", "scales", "biases") if prefix + role in facts}
        name = prefix.removesuffix(".") or "weight"
        declared = config.of_mlx(name)
        if len(parts) > 1 or (declared is not None and not declared.excluded):
            found.append(_recognise(name, prefix, parts, facts, declared or Declared()))
    return found


def dequantise(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of shape (out, in), or (experts, out, in), of whole numbers.

    Raises:
        UnreadableError: a part is missing, the parts do not fit each other, or the width is not known.
    """
    if layer.reason is not None:
        raise place.unreadable(layer.reason)
    words, scales, biases = (place.require(parts, role) for role in ("weight", "scales", "biases"))
    bits, size = layer.bits, layer.group_size
    if bits is None or size is None or biases.shape != scales.shape or not _fit(words, scales, bits, size):
        raise place.unreadable(misfit(parts))
    *rows, groups = scales.shape
    inputs = groups * size
    flat = words.reshape(-1, words.shape[-1])
    by_row = np.asarray(scales, np.float32).reshape(-1, groups, 1)
    shift = np.asarray(biases, np.float32).reshape(-1, groups, 1)
    values = np.empty((len(flat), groups, size), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for begin, end in row_blocks(len(flat), inputs):
            codes = unpack(flat[begin:end], bits, inputs)
            values[begin:end] = codes.reshape(end - begin, groups, size)
            values[begin:end] *= by_row[begin:end]
            values[begin:end] += shift[begin:end]
    return values.reshape(*rows, inputs)


def dequantise_floats(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """The same of floating numbers.

    Raises:
        UnreadableError: a part is missing, or the parts do not fit each other.
    """
    words, scales = place.require(parts, "weight"), place.require(parts, "scales")
    bits, size = layer.bits, layer.group_size
    if bits is None or size is None or scales.dtype != np.uint8 or not _fit(words, scales, bits, size):
        raise place.unreadable(misfit(parts))
    factors = scale_of(layer, scales).reshape(-1, scales.shape[-1])
    stream = np.ascontiguousarray(words.reshape(len(factors), -1)).astype("<u4", copy=False).view(np.uint8)
    shape = (*scales.shape[:-1], scales.shape[-1] * size)
    if bits == 4:
        return e2m1_values(stream, factors).reshape(shape)
    values = np.empty((len(stream), scales.shape[-1], size), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for begin, end in row_blocks(len(stream), stream.shape[1]):
            numbers = stream[begin:end].view(ml_dtypes.float8_e4m3fn).reshape(end - begin, -1, size)
            values[begin:end] = numbers
            values[begin:end] *= factors[begin:end, :, None]
    return values.reshape(shape)


def scale_of(layer: QuantisedLayer, stored: Array) -> NDArray[np.float32]:
    """Scales of one byte as numbers: FP8 (E4M3) of ``nvfp4``, powers of two of the others."""
    if layer.scheme == NVFP4:
        return np.asarray(np.ascontiguousarray(stored).view(ml_dtypes.float8_e4m3fn), np.float32)
    return factors_of(stored)


def _fit(words: Array, scales: Array, bits: int, size: int) -> bool:
    return (
        words.ndim in {2, 3}
        and words.size > 0
        and scales.shape[:-1] == words.shape[:-1]
        and words.shape[-1] * 32 == scales.shape[-1] * size * bits
    )


def _recognise(
    name: str, prefix: str, parts: dict[str, str], facts: Facts, declared: Declared
) -> QuantisedLayer:
    remarks = Remarks()
    say_excluded(declared, remarks)
    *rows, words = facts[parts["weight"]][0]
    scales, scale_type = facts[parts["scales"]] if "scales" in parts else (None, "")
    if scales is None:
        remarks.missing(prefix + "scales")
    elif scales[:-1] != (*rows,) or not scales[-1]:
        remarks.add(
            RemarkKind.SHAPES,
            f"scales of shape {list(scales)} do not fit words of shape {[*rows, words]}",
            declared=[*rows, words],
            stored=list(scales),
        )
        scales = None
    bits: int | None = declared.bits
    size: int | None = declared.group_size
    scheme, reason = AFFINE, None
    if scales is not None and scale_type == "U8":
        scheme, bits, size = _MODES.get(words // scales[-1], (MXFP4, None, None))
        if size is None or words * 32 != scales[-1] * size * (bits or 0):
            reason = f"{words} words with {scales[-1]} scales of one byte per row are none of MLX's modes"
            bits = size = None
        elif f"{prefix}global_scale" in facts:
            reason = "NVFP4 of MLX with a global scale beside it, which is not undone"
        remarks.compare(RemarkKind.FORMAT, "the mode", declared.format, scheme.removeprefix("mlx-"))
        remarks.compare(RemarkKind.BITS, "bits", declared.bits, bits)
        remarks.compare(RemarkKind.GROUP_SIZE, "a group size of", declared.group_size, size)
    else:
        if "biases" not in parts:
            remarks.missing(prefix + "biases")
        elif scales is not None and facts[parts["biases"]][0] != scales:
            remarks.compare(
                RemarkKind.SHAPES, "biases of shape", list(scales), list(facts[parts["biases"]][0])
            )
        if declared.format not in {None, "affine"}:
            remarks.compare(RemarkKind.FORMAT, "the mode", declared.format, "affine")
        if scales is not None:
            bits, size, reason = _width(words, scales[-1], declared, remarks)
    known = reason is None and scales is not None and size is not None
    return QuantisedLayer(
        name=name,
        scheme=scheme if reason is None else AFFINE,
        parts=parts,
        shape=(*rows, scales[-1] * size) if known and scales and size else None,
        remarks=tuple(remarks.found),
        bits=bits,
        group_size=size,
        reason=reason,
    )


def _width(
    words: int, groups: int, declared: Declared, remarks: Remarks
) -> tuple[int | None, int | None, str | None]:
    """Bits and group size, or why they cannot be told."""
    bits, size = declared.bits, declared.group_size
    if bits in _BITS and size is not None and size > 0 and words * 32 == groups * size * bits:
        return bits, size, None
    fitting = [(wide, run) for wide in _BITS for run in _SIZES if words * 32 == groups * run * wide]
    # One of the two may be declared wrong, or not at all.
    near = [(wide, run) for wide, run in fitting if wide == bits or run == size] or fitting
    shown = " or ".join(f"{wide} bits in groups of {run}" for wide, run in near)
    if bits is not None or size is not None:
        remarks.compare(
            RemarkKind.BITS if near and near[0][1] == size else RemarkKind.GROUP_SIZE,
            "quantization of",
            f"{bits} bits in groups of {size}",
            shown or f"{words} words with {groups} scales per row",
        )
    if len(near) == 1:
        return *near[0], None
    if not near:
        return None, None, f"{words} words with {groups} scales per row hold numbers of none of MLX's widths"
    why = f"packed by MLX as {shown}, which the shapes do not tell; keep config.json with its quantization beside"
    return None, None, why

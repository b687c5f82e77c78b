"""Whole numbers and FP8 with scales beside them: per tensor, per row, per run of inputs, per block.

``W = stored * scale``, after ``stored - zero_point`` where there is one: ``X.weight_scale`` of compressed-tensors
(``int-quantized``, ``float-quantized``, ``naive-quantized``, ``mxfp8-quantized``), and ``X.weight_scale_inv`` of the FP8
checkpoints with blocks of 128 x 128 (DeepSeek-V3, ``inference/kernel.py``), which despite its name is multiplied, too.
A scale of one byte is a power of two, ``2 ** (byte - 127)`` (OCP Microscaling Formats 1.0, E8M0).
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.quantised.bits import row_blocks
from layerwatch.metrics.quantised.declared import Configuration, Declared
from layerwatch.metrics.quantised.layer import (
    Facts,
    Parts,
    Place,
    QuantisedLayer,
    Remark,
    RemarkKind,
    Remarks,
)
from layerwatch.metrics.quantised.recognising import misfit, say_excluded, say_method
from layerwatch.metrics.tensors import Array

INT = "int-quantized"
FLOAT = "float-quantized"
MXFP8 = "mxfp8-quantized"

FLOAT8 = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
_INTEGERS = frozenset({"I8", "U8"})
_SUFFIXES = ("_scale", "_scale_inv")
_METHODS = frozenset(
    {"compressed-tensors", "fp8", "fbgemm_fp8", "modelopt", "quark", "deepseek_fp8", "w8a8_fp8"}
)
_FORMATS = {
    INT: {INT, "naive-quantized"},
    FLOAT: {FLOAT, "naive-quantized"},
    MXFP8: {MXFP8, FLOAT, "naive-quantized"},
}
_BLOCKS = (128, 64, 32, 16, 256, 512, 1024)
_LARGEST_SCALE = 1.0


def find(facts: Facts, config: Configuration) -> list[QuantisedLayer]:
    """Every tensor of whole numbers or FP8 with its scale, and those whose scale is missing.

    FP8 without a scale may be all there is. It counts as missing where FP8 is declared for the layer, or where other
    FP8 tensors of the model have theirs.
    """
    found = []
    without = []
    scaled_float = False
    for tensor, (shape, dtype) in facts.items():
        if (dtype not in FLOAT8 and dtype not in _INTEGERS) or len(shape) < 2 or 0 in shape:
            continue
        suffix = next((one for one in _SUFFIXES if tensor + one in facts), None)
        if suffix is not None:
            found.append(_recognise(tensor, suffix, facts, config))
            scaled_float |= dtype in FLOAT8
        elif dtype in FLOAT8 and _is_weight(tensor):
            without.append(tensor)
    for tensor in without:
        declared = config.of(_name(tensor))
        if not declared.excluded and (scaled_float or declared.method in _METHODS):
            found.append(_without_scale(tensor, facts, config))
    return found


def dequantise(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values in the tensor's own shape.

    Raises:
        UnreadableError: the scale is missing, its shape divides the tensor in no way, or unsigned numbers lack a zero
            point.
    """
    weight, scale = place.require(parts, "weight"), place.require(parts, "scale")
    zero_point = parts.get("zero_point")
    if weight.dtype == np.uint8 and zero_point is None:
        raise place.unreadable("stored as unsigned integers, which mean nothing without a zero point")
    if not weight.size or weight.ndim < 2:
        raise place.unreadable(misfit(parts))
    factors = _spread(factors_of(scale), weight.shape, layer.block, place, parts)
    zeros = None
    if zero_point is not None:
        zeros = _spread(np.asarray(zero_point, np.float32), weight.shape, layer.block, place, parts)
    values = np.empty(weight.shape, np.float32)
    for begin, end in row_blocks(len(weight), prod(weight.shape[1:])):
        block = values[begin:end]
        block[...] = weight[begin:end]
        with np.errstate(over="ignore", invalid="ignore"):
            if zeros is not None:
                block -= zeros.of(begin, end)
            block *= factors.of(begin, end)
    return values


def check(layer: QuantisedLayer, parts: Parts, declared: Declared) -> list[Remark]:
    """What only the values show: scales that are the inverse of what they should be."""
    del declared
    remarks = Remarks()
    if layer.scheme == INT or "scale" not in parts:
        return []
    scale = factors_of(parts["scale"])
    finite = scale[np.isfinite(scale)]
    middle = float(np.median(finite)) if finite.size else 0.0
    if middle > _LARGEST_SCALE:
        remarks.add(
            RemarkKind.SCALES,
            f"the scales are {middle:.3g} in the middle: FP8 fills its range up to 448, so weights would be in the "
            "hundreds; the file may hold the inverse",
            declared=f"below {_LARGEST_SCALE:g}",
            stored=f"{middle:.3g}",
        )
    return remarks.found


def factors_of(scale: Array) -> NDArray[np.float32]:
    """Scales as float32; bytes are powers of two (255 is no number)."""
    if scale.dtype != np.uint8:
        return np.asarray(scale, np.float32)
    with np.errstate(over="ignore"):
        powers = np.ldexp(np.float32(1.0), scale.astype(np.int32) - 127)
    return np.where(scale == 255, np.float32(np.nan), powers)


def has_row_scale(layer: QuantisedLayer) -> bool:
    """Whether this is one tensor of signed numbers or FP8 with one scale for all or one per row, and nothing else."""
    shape, block = layer.shape, layer.block
    return (
        layer.scheme in {INT, FLOAT}
        and layer.parts.keys() == {"weight", "scale"}
        and shape is not None
        and block is not None
        and block[0] in {1, shape[0]}
        and block[1:] == shape[1:]
    )


class _Factors:
    """Numbers per block of a tensor, spread over some of its rows at a time."""

    def __init__(self, numbers: NDArray[np.float32], places: list[NDArray[np.intp] | None]) -> None:
        self._numbers = numbers
        self._places = places

    def of(self, begin: int, end: int) -> NDArray[np.float32]:
        """For these rows of the tensor; axes that share one number keep length 1."""
        first = self._places[0]
        numbers = self._numbers if first is None else self._numbers[first[begin:end]]
        for axis, places in enumerate(self._places[1:], start=1):
            if places is not None:
                numbers = np.take(numbers, places, axis=axis)
        return numbers


def _spread(
    numbers: NDArray[np.float32],
    shape: tuple[int, ...],
    declared: tuple[int, ...] | None,
    place: Place,
    parts: Parts,
) -> _Factors:
    aligned = _aligned(numbers.shape, shape)
    blocks = blocks_of(numbers.shape, shape, declared)
    if aligned is None or blocks is None:
        raise place.unreadable(
            f"its scale has shape {tuple(numbers.shape)}, which divides {shape} neither into rows nor into blocks; "
            f"{misfit(parts)}"
        )
    places = [
        None if count == 1 else np.arange(length, dtype=np.intp) // block
        for length, count, block in zip(shape, aligned, blocks, strict=True)
    ]
    return _Factors(numbers.reshape(aligned), places)


def blocks_of(
    scale: tuple[int, ...], shape: tuple[int, ...], declared: tuple[int, ...] | None = None
) -> tuple[int, ...] | None:
    """Elements along each axis that share a scale, or None where scales of this shape divide the tensor in no way."""
    aligned = _aligned(scale, shape)
    return None if aligned is None or 0 in aligned else _blocks(aligned, shape, declared)


def _aligned(scale: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The scale's shape with as many axes as the tensor: a vector belongs to the first axis."""
    if prod(scale) == 1:
        return (1,) * len(shape)
    if len(scale) == len(shape):
        return scale
    if len(scale) > len(shape):
        return None
    # Short of an axis, a scale is one number per row (per expert, per row of an expert), never a block.
    if any(one not in {1, length} for one, length in zip(scale, shape, strict=False)):
        return None
    return (*scale, *(1,) * (len(shape) - len(scale)))


def _blocks(
    scale: tuple[int, ...], shape: tuple[int, ...], declared: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """Elements per scale along each axis, or None where the scale divides one in no way.

    The declared block where it fits, else the most usual length that does, else the exact quotient.
    """
    blocks = []
    for axis, (length, count) in enumerate(zip(shape, scale, strict=True)):
        from_end = axis - len(shape)
        said = declared[from_end] if declared is not None and len(declared) >= -from_end else None
        block = _block(length, count, said)
        if block is None:
            return None
        blocks.append(block)
    return tuple(blocks)


def _block(length: int, count: int, declared: int | None) -> int | None:
    if count == length:
        return 1
    if count == 1:
        return length
    if not 0 < count < length:
        return None
    for block in (declared, *_BLOCKS, length // count if length % count == 0 else None):
        if block is not None and -(-length // block) == count:
            return block
    return None


def _recognise(tensor: str, suffix: str, facts: Facts, config: Configuration) -> QuantisedLayer:
    shape, dtype = facts[tensor]
    name = _name(tensor)
    parts = {"weight": tensor, "scale": tensor + suffix}
    if tensor + "_zero_point" in facts:
        parts["zero_point"] = tensor + "_zero_point"
    scale_shape, scale_type = facts[tensor + suffix]
    scheme = INT if dtype in _INTEGERS else MXFP8 if scale_type in {"U8", "F8_E8M0"} else FLOAT
    declared = config.of(name)
    remarks = Remarks()
    # Four bits whose activations are quantised, too, are stored in a byte each.
    if declared.bits is not None and not (dtype in _INTEGERS and declared.bits < 8):
        remarks.compare(RemarkKind.BITS, "bits", declared.bits, 8)
    if declared.number in {"int", "float"}:
        stored = "int" if dtype in _INTEGERS else "float"
        remarks.compare(RemarkKind.FORMAT, "numbers of type", declared.number, stored)
    usual = {None, "mixed-precision", "dense"} | _FORMATS[scheme]
    if config.method == "compressed-tensors" and declared.format not in usual:
        remarks.compare(RemarkKind.FORMAT, "the format", declared.format, scheme)
    if scheme == INT and declared.symmetric is False and "zero_point" not in parts:
        remarks.missing(tensor + "_zero_point")
    say_method(config, _METHODS, scheme, remarks)
    say_excluded(declared, remarks)
    blocks = blocks_of(scale_shape, shape, declared.block)
    if blocks is None:
        remarks.add(
            RemarkKind.SHAPES,
            f"the scale has shape {list(scale_shape)}, which divides {list(shape)} in no way",
            declared=list(shape),
            stored=list(scale_shape),
        )
    elif declared.block is not None:
        expected = tuple(
            -(-length // block) for length, block in zip(shape[-2:], declared.block, strict=True)
        )
        if scale_shape[-2:] != expected:
            remarks.compare(RemarkKind.GROUP_SIZE, "blocks of", list(declared.block), list(blocks[-2:]))
    elif declared.group_size is not None and blocks is not None:
        size = shape[-1] if declared.group_size == -1 else declared.group_size
        remarks.compare(RemarkKind.GROUP_SIZE, "a group size of", size, blocks[-1])
    return QuantisedLayer(
        name=name,
        scheme=scheme,
        parts=parts,
        shape=shape,
        remarks=tuple(remarks.found),
        bits=8,
        block=blocks,
    )


def _without_scale(tensor: str, facts: Facts, config: Configuration) -> QuantisedLayer:
    remarks = Remarks()
    remarks.missing(tensor + "_scale")
    say_method(config, _METHODS, FLOAT, remarks)
    return QuantisedLayer(
        name=_name(tensor),
        scheme=FLOAT,
        parts={"weight": tensor},
        shape=facts[tensor][0],
        remarks=tuple(remarks.found),
        bits=8,
    )


def _is_weight(tensor: str) -> bool:
    return tensor == "weight" or tensor.endswith(".weight")


def _name(tensor: str) -> str:
    return tensor.removesuffix(".weight") or tensor

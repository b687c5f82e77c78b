"""torchao's tensor subclasses as its safetensors support takes them apart: ``X._weight_qdata``, ``X._weight_scale`` ...

Types, shapes and names tell the subclass:

- ``Int8Tensor`` and ``IntxUnpackedToInt8Tensor`` (1 to 8 bits, a byte each): ``qdata`` (out, in), ``scale`` one per row or
  per run of inputs, ``zero_point`` of whole numbers; ``W = (q - zero_point) * scale``.
- ``Float8Tensor``: ``qdata`` in FP8, ``scale`` per tensor, row or block; ``W = q * scale``.
- ``Int4Tensor``: ``qdata`` (out, in / 2), two numbers of -8 to 7 in a byte, the first in the low half; ``scale`` and
  ``zero_point`` (groups, out), both floating; ``W[o, i] = q[o, i] * scale[g, o] + zero_point[g, o]``.

The others are laid out for kernels (tiles, shuffled, swizzled scales) and are not undone.

Source: https://github.com/pytorch/ao, ``prototype/safetensors`` and ``quantization/quantize_/workflows`` (0.18), and
``int4_row_quantize_zp`` and ``pack_int4`` of https://github.com/pytorch/FBGEMM for four bits.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.quantised import scaled
from layerwatch.metrics.quantised.bits import row_blocks
from layerwatch.metrics.quantised.declared import Configuration
from layerwatch.metrics.quantised.layer import Facts, Parts, Place, QuantisedLayer, RemarkKind, Remarks
from layerwatch.metrics.quantised.recognising import misfit, say_excluded, say_method

INT8 = "torchao-int8"
FLOAT8 = "torchao-float8"
INT4 = "torchao-int4"
OTHER = "torchao"

_QDATA = re.compile(r"(?P<module>(?:.*\.)?)_(?P<parameter>[^.]+)_qdata", re.DOTALL)
_ROLES = (
    *("scale", "zero_point", "act_pre_scale", "act_quant_scale", "act_quant_zero_point"),
    *("per_tensor_scale", "act_per_tensor_scale", "scale_and_zero", "group_scale", "group_zero", "row_scale"),
)
_METHODS = frozenset({"torchao"})
_FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
_WHOLE = frozenset({"I8", "U8", "I16", "I32", "I64"})
_KERNELS = frozenset({"scale_and_zero", "group_scale"})


def find(facts: Facts, config: Configuration) -> list[QuantisedLayer]:
    """Every parameter with a ``qdata``."""
    found = []
    for tensor, (shape, _) in facts.items():
        if not tensor.endswith("_qdata") or 0 in shape:
            continue
        named = _QDATA.fullmatch(tensor)
        if named is not None:
            found.append(_recognise(tensor, named["module"], named["parameter"], facts, config))
    return found


def dequantise(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of a layer of one number per element, in the tensor's own shape.

    Raises:
        UnreadableError: a part is missing, or the parts do not fit each other.
    """
    if "scale" in parts and layer.block is None:
        raise place.unreadable(misfit(parts))
    renamed = {"weight" if role == "qdata" else role: part for role, part in parts.items()}
    return scaled.dequantise(layer, renamed, place)


def dequantise_int4(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of shape (out, in), or (experts, out, in).

    Raises:
        UnreadableError: a part is missing, or the parts do not fit each other.
    """
    del layer
    packed, scale, zero = (place.require(parts, role) for role in ("qdata", "scale", "zero_point"))
    if packed.ndim not in {2, 3} or not packed.size or scale.ndim != packed.ndim or not scale.size:
        raise place.unreadable(misfit(parts))
    *rows, half = packed.shape
    groups, inputs = scale.shape[-2], 2 * half
    if scale.shape != zero.shape or inputs % groups or (*scale.shape[:-2], scale.shape[-1]) != (*rows,):
        raise place.unreadable(misfit(parts))
    codes = np.ascontiguousarray(packed).view(np.uint8).reshape(-1, half)
    factors = np.asarray(scale, np.float32).swapaxes(-1, -2).reshape(-1, groups, 1)
    shift = np.asarray(zero, np.float32).swapaxes(-1, -2).reshape(-1, groups, 1)
    values = np.empty((len(codes), groups, inputs // groups), np.float32)
    flat = values.reshape(len(codes), inputs)
    with np.errstate(over="ignore", invalid="ignore"):
        for begin, end in row_blocks(len(codes), inputs):
            flat[begin:end, 0::2] = _SIGNED[codes[begin:end] & 0x0F]
            flat[begin:end, 1::2] = _SIGNED[codes[begin:end] >> 4]
            values[begin:end] *= factors[begin:end]
            values[begin:end] += shift[begin:end]
    return values.reshape(*rows, inputs)


_SIGNED = np.array([*range(8), *range(-8, 0)], np.float32)


def refuse(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Always raises UnreadableError with the reason."""
    del parts
    raise place.unreadable(
        f"{layer.reason}; save the model before quantize_, or keep the plain layout of int8, float8 or int4 beside it"
    )


def _recognise(
    tensor: str, module: str, parameter: str, facts: Facts, config: Configuration
) -> QuantisedLayer:
    stem = tensor.removesuffix("qdata")
    parts = {"qdata": tensor} | {role: stem + role for role in _ROLES if stem + role in facts}
    shape, dtype = facts[tensor]
    whole = parameter != "weight"
    name = module + parameter if whole else module.removesuffix(".") or "weight"
    declared = config.of(name)
    remarks = Remarks()
    say_method(config, _METHODS, "torchao", remarks)
    say_excluded(declared, remarks)
    scale, scale_type = facts[parts["scale"]] if "scale" in parts else ((), "")
    zero_type = facts[parts["zero_point"]][1] if "zero_point" in parts else None
    scheme, reason = _scheme(dtype, scale_type, zero_type), None
    block: tuple[int, ...] | None = None
    values: tuple[int, ...] | None = (*shape[:-1], 2 * shape[-1]) if scheme == INT4 else shape
    if "scale" not in parts and parts.keys().isdisjoint(_KERNELS):
        remarks.missing(stem + "scale")
        scheme = FLOAT8 if dtype in scaled.FLOAT8 else INT8
    elif scheme is None or len(shape) < 2:
        reason = f"a torchao tensor of {dtype} {list(shape)} with scales of {scale_type or 'another kind'} {list(scale)}"
        reason += ", laid out for a kernel"
    elif "act_pre_scale" in parts:
        reason = "a torchao tensor whose inputs are scaled before it (act_pre_scale)"
    else:
        block = _int4_block(shape, scale) if scheme == INT4 else _block(shape, scale)
        if block is None:
            remarks.add(
                RemarkKind.SHAPES,
                f"the scale has shape {list(scale)}, which divides {list(shape)} in no way",
                declared=list(shape),
                stored=list(scale),
            )
    return QuantisedLayer(
        name=name,
        scheme=OTHER if reason is not None or scheme is None else scheme,
        parts=parts,
        shape=values if reason is None else None,
        remarks=tuple(remarks.found),
        bits=None if reason is not None else 4 if scheme == INT4 else 8,
        group_size=block[-1] if block is not None else None,
        block=block,
        reason=reason,
        whole_name=whole,
    )


def _scheme(dtype: str, scale: str, zero: str | None) -> str | None:
    if scale not in _FLOATING:
        return None
    if dtype in scaled.FLOAT8:
        return FLOAT8 if zero is None else None
    if dtype in {"I8", "U8"} and zero in _FLOATING:
        return INT4
    return INT8 if dtype == "I8" and (zero is None or zero in _WHOLE) else None


def _block(shape: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(scale) != len(shape):
        return scaled.blocks_of(scale, shape)
    # torchao's blocks divide their axis.
    if any(count == 0 or length % count for length, count in zip(shape, scale, strict=True)):
        return None
    return tuple(length // count for length, count in zip(shape, scale, strict=True))


def _int4_block(shape: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, ...] | None:
    inputs = 2 * shape[-1]
    if len(scale) != len(shape) or not scale[-2] or inputs % scale[-2]:
        return None
    fits = (*scale[:-2], scale[-1]) == shape[:-1]
    return (*(1 for _ in shape[:-1]), inputs // scale[-2]) if fits else None

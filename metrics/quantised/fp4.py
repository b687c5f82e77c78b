"""Four-bit floats (E2M1) in groups: NVFP4, MXFP4, and the MXFP4 experts of gpt-oss.

Two numbers per byte, the first in the low half. ``W[o, i] = e2m1(q[o, i]) * scale[o, i // g]``:

- NVFP4, groups of 16: ``weight_packed`` (out, in / 2), ``weight_scale`` (out, in / 16) in FP8, and one
  ``weight_global_scale`` that the scales are divided by (compressed-tensors, ``compressors/nvfp4``). ModelOpt names them
  ``weight``, ``weight_scale`` and ``weight_scale_2``, which is multiplied.
- MXFP4, groups of 32: ``weight_packed`` and ``weight_scale``, a byte e for ``2 ** (e - 127)``.
- Experts: ``X_blocks`` (experts, out, groups, 16) and ``X_scales`` (experts, out, groups); read as (experts, out, in). In
  full precision transformers stores these experts transposed.

Formats: OCP Microscaling Formats 1.0, section 5.3.3; https://github.com/openai/gpt-oss, ``gpt_oss/torch/weights.py``.
"""

from __future__ import annotations

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
from layerwatch.metrics.quantised.scaled import factors_of
from layerwatch.metrics.tensors import Array

NVFP4 = "nvfp4-pack-quantized"
MXFP4 = "mxfp4-pack-quantized"
EXPERTS = "mxfp4-experts"

E2M1 = np.array(
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0], np.float32
)
"""Value of each four-bit code: sign, two bits of exponent, one of fraction."""

_GROUP = {NVFP4: 16, MXFP4: 32, EXPERTS: 32}
_SUFFIX = "weight_packed"
_COMPRESSED = frozenset({"compressed-tensors"})
_MODELOPT = frozenset({"modelopt", "modelopt_fp4", "nvfp4"})
_MICROSCALED = frozenset({"mxfp4", "quark", "gpt_oss_mxfp4"})


def find(facts: Facts, config: Configuration) -> list[QuantisedLayer]:
    """Every layer of packed four-bit floats."""
    found: list[QuantisedLayer] = []
    for tensor, (shape, dtype) in facts.items():
        if dtype != "U8" or len(shape) < 2 or 0 in shape:
            continue
        if tensor == _SUFFIX or tensor.endswith("." + _SUFFIX):
            found.append(_recognise(tensor.removesuffix(_SUFFIX), tensor, facts, config))
        elif tensor + "_scale_2" in facts and tensor + "_scale" in facts:
            found.append(_recognise_modelopt(tensor, facts, config))
        elif tensor.endswith("_blocks") and len(shape) == 4 and shape[3] == 16:
            found.append(_recognise_experts(tensor, facts, config))
    return found


def dequantise(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of shape (out, in), or (experts, out, in).

    Raises:
        UnreadableError: a part is missing, or the parts do not fit each other.
    """
    packed, stored = place.require(parts, "packed"), place.require(parts, "scale")
    scale = factors_of(stored)
    if layer.scheme == NVFP4:
        scale = _with_global(scale, parts, place)
    codes = packed.view(np.uint8)
    codes = codes.reshape(-1, codes.shape[-1])
    inputs = 2 * codes.shape[1]
    if scale.ndim != packed.ndim or scale.shape[:-1] != packed.shape[:-1] or not scale.size:
        raise place.unreadable(misfit(parts))
    groups = scale.shape[-1]
    if inputs != groups * _GROUP[layer.scheme]:
        raise place.unreadable(
            f"{groups} scales per row of {inputs} inputs, where {layer.scheme} has one per {_GROUP[layer.scheme]}"
        )
    return e2m1_values(codes, scale.reshape(-1, groups)).reshape(*packed.shape[:-1], inputs)


def dequantise_experts(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of shape (experts, out, in).

    Raises:
        UnreadableError: a part is missing, or the parts do not fit each other.
    """
    del layer
    blocks, scales = place.require(parts, "blocks"), place.require(parts, "scales")
    if blocks.ndim != 4 or blocks.dtype != np.uint8 or blocks.shape[:-1] != scales.shape or not blocks.size:
        raise place.unreadable(misfit(parts))
    experts, out, groups, size = blocks.shape
    codes = blocks.reshape(experts * out, groups * size)
    return e2m1_values(codes, factors_of(scales).reshape(-1, groups)).reshape(experts, out, -1)


def check(layer: QuantisedLayer, parts: Parts, declared: Declared) -> list[Remark]:
    """What only the values show: a global scale that is no divisor."""
    del declared
    remarks = Remarks()
    overall = parts.get("global_scale")
    if layer.scheme == NVFP4 and overall is not None and overall.size == 1:
        value = float(np.asarray(overall, np.float32).reshape(-1)[0])
        # Scales reach 448 and numbers 6: below 1 the weights would reach thousands.
        if not np.isfinite(value) or value < 1.0:
            remarks.add(
                RemarkKind.SCALES,
                f"weight_global_scale is {value:.3g}; scales are divided by it, and it is 2688 over the largest "
                "weight: the file may hold the inverse",
                declared="above 1",
                stored=f"{value:.3g}",
            )
    return remarks.found


def e2m1_values(codes: NDArray[np.uint8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Codes (rows, width), two in a byte, times the scale (rows, groups) of their group; shape (rows, 2 * width)."""
    rows, width = codes.shape
    groups = scale.shape[1]
    values = np.empty((rows, 2 * width), np.float32)
    for begin, end in row_blocks(rows, 2 * width):
        block = values[begin:end]
        block[:, 0::2] = E2M1[codes[begin:end] & 0x0F]
        block[:, 1::2] = E2M1[codes[begin:end] >> 4]
        by_group = block.reshape(end - begin, groups, -1)
        with np.errstate(over="ignore", invalid="ignore"):
            by_group *= scale[begin:end, :, None]
    return values


def _with_global(scale: NDArray[np.float32], parts: Parts, place: Place) -> NDArray[np.float32]:
    if "global_factor" in parts:
        return scale * _overall(parts["global_factor"], scale, parts, place)
    overall = _overall(place.require(parts, "global_scale"), scale, parts, place)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(scale / overall)


def _overall(stored: Array, scale: NDArray[np.float32], parts: Parts, place: Place) -> NDArray[np.float32]:
    """One number for all, or one per expert."""
    overall = np.asarray(stored, np.float32)
    if overall.size == 1:
        return overall.reshape(())
    if scale.ndim == 3 and overall.size == len(scale):
        return overall.reshape(-1, 1, 1)
    raise place.unreadable(misfit(parts))


def _recognise(prefix: str, tensor: str, facts: Facts, config: Configuration) -> QuantisedLayer:
    names = {
        "packed": tensor,
        "scale": prefix + "weight_scale",
        "global_scale": prefix + "weight_global_scale",
    }
    parts = {role: one for role, one in names.items() if one in facts}
    declared = config.of(prefix.removesuffix(".") or "weight")
    by_scale = facts[parts["scale"]][1] if "scale" in parts else None
    scheme = MXFP4 if by_scale in {"U8", "F8_E8M0"} else NVFP4
    if by_scale is None and declared.format == MXFP4:
        scheme = MXFP4
    remarks = Remarks()
    for role in ("scale", *(("global_scale",) if scheme == NVFP4 else ())):
        if role not in parts:
            remarks.missing(names[role])
    if declared.format not in {None, scheme, "mixed-precision", "dense"}:
        remarks.compare(RemarkKind.FORMAT, "the format", declared.format, scheme)
    say_method(config, _COMPRESSED, "compressed-tensors", remarks)
    return _layer(prefix.removesuffix(".") or "weight", scheme, parts, facts, declared, remarks)


def _recognise_modelopt(tensor: str, facts: Facts, config: Configuration) -> QuantisedLayer:
    name = tensor.removesuffix(".weight") or tensor
    parts = {"packed": tensor, "scale": tensor + "_scale", "global_factor": tensor + "_scale_2"}
    remarks = Remarks()
    say_method(config, _MODELOPT, "modelopt", remarks)
    return _layer(name, NVFP4, parts, facts, config.of(name), remarks)


def _recognise_experts(tensor: str, facts: Facts, config: Configuration) -> QuantisedLayer:
    name = tensor.removesuffix("_blocks")
    parts = {"blocks": tensor}
    remarks = Remarks()
    if name + "_scales" in facts:
        parts["scales"] = name + "_scales"
        if facts[parts["scales"]][0] != facts[tensor][0][:-1]:
            _say_shapes(facts[tensor][0], facts[parts["scales"]][0], remarks)
    else:
        remarks.missing(name + "_scales")
    declared = config.of(name)
    say_method(config, _MICROSCALED, "MXFP4", remarks)
    say_excluded(declared, remarks)
    experts, out, groups, size = facts[tensor][0]
    return QuantisedLayer(
        name=name,
        scheme=EXPERTS,
        parts=parts,
        shape=(experts, out, 2 * groups * size),
        remarks=tuple(remarks.found),
        bits=4,
        group_size=_GROUP[EXPERTS],
        # Experts in one tensor carry no ".weight" in the models that they are made from.
        whole_name=True,
    )


def _layer(
    name: str,
    scheme: str,
    parts: dict[str, str],
    facts: Facts,
    declared: Declared,
    remarks: Remarks,
) -> QuantisedLayer:
    *rows, width = facts[parts["packed"]][0]
    inputs = 2 * width
    remarks.compare(RemarkKind.BITS, "bits", declared.bits, 4)
    if declared.number == "int":
        remarks.compare(RemarkKind.FORMAT, "numbers of type", "int", "float")
    remarks.compare(RemarkKind.GROUP_SIZE, "a group size of", declared.group_size, _GROUP[scheme])
    if "scale" in parts:
        scale = facts[parts["scale"]][0]
        if scale != (*rows, inputs // _GROUP[scheme]):
            _say_shapes(facts[parts["packed"]][0], scale, remarks)
    say_excluded(declared, remarks)
    return QuantisedLayer(
        name=name,
        scheme=scheme,
        parts=parts,
        shape=(*rows, inputs),
        remarks=tuple(remarks.found),
        bits=4,
        group_size=_GROUP[scheme],
    )


def _say_shapes(packed: tuple[int, ...], scale: tuple[int, ...], remarks: Remarks) -> None:
    remarks.add(
        RemarkKind.SHAPES,
        f"scales of shape {list(scale)} do not fit numbers of shape {list(packed)}",
        declared=list(packed),
        stored=list(scale),
    )

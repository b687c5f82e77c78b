"""The table of quantised storage: what is recognised in which order, and how it is undone.

Values are products of the stored numbers in float32. Kernels round to half precision in between and at the end, so two
faithful programs may differ by one unit in the last place of their type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.quantised import (
    awq,
    bitsandbytes,
    fp4,
    gptq,
    mlx,
    packed,
    scaled,
    torchao,
    unsupported,
)
from layerwatch.metrics.quantised.declared import Configuration, Declared
from layerwatch.metrics.quantised.layer import Facts, LoadPart, Parts, Place, QuantisedLayer, Remark, Remarks
from layerwatch.metrics.quantised.recognising import check_scales
from layerwatch.metrics.quantised.scaled import factors_of

Finder = Callable[[Facts, Configuration, LoadPart | None], list[QuantisedLayer]]


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to store a layer.

    Attributes:
        dequantise: from the values of the parts to float32.
        scales: roles that hold factors.
        zero_scales: whether groups of zeros have a scale of zero.
        largest_scale: above this no weights are, or None where scales alone do not tell.
        check: remarks that only the parts' values show, or None.
    """

    dequantise: Callable[[QuantisedLayer, Parts, Place], NDArray[np.float32]]
    scales: tuple[str, ...] = ()
    zero_scales: bool = False
    largest_scale: float | None = None
    check: Callable[[QuantisedLayer, Parts, Declared], list[Remark]] | None = None


_LARGEST_STEP = 100.0
"""Scales are the steps between numbers, of about 0.001 to 1. In a broken export they reached 548 (ROCm/hip-ep #168)."""

SCHEMES: Mapping[str, Scheme] = {
    gptq.GPTQ: Scheme(gptq.dequantise, ("scales",), largest_scale=_LARGEST_STEP, check=gptq.check),
    awq.GEMM: Scheme(awq.dequantise, ("scales",), largest_scale=_LARGEST_STEP, check=awq.check),
    # Padded with zeros to a whole number of words.
    awq.GEMV: Scheme(awq.dequantise_gemv, ("scales",), zero_scales=True, largest_scale=_LARGEST_STEP),
    bitsandbytes.INT8: Scheme(bitsandbytes.dequantise_int8, ("SCB",), zero_scales=True),
    bitsandbytes.NF4: Scheme(
        bitsandbytes.dequantise_4bit,
        ("nested_absmax",),
        zero_scales=True,
        check=bitsandbytes.check_4bit,
    ),
    bitsandbytes.FP4: Scheme(
        bitsandbytes.dequantise_4bit,
        ("nested_absmax",),
        zero_scales=True,
        check=bitsandbytes.check_4bit,
    ),
    fp4.NVFP4: Scheme(
        fp4.dequantise, ("scale", "global_scale", "global_factor"), zero_scales=True, check=fp4.check
    ),
    fp4.MXFP4: Scheme(fp4.dequantise, ("scale",), largest_scale=_LARGEST_STEP),
    fp4.EXPERTS: Scheme(fp4.dequantise_experts, ("scales",), largest_scale=_LARGEST_STEP),
    packed.PACKED: Scheme(
        packed.dequantise, ("weight_scale",), largest_scale=_LARGEST_STEP, check=packed.check
    ),
    scaled.INT: Scheme(scaled.dequantise, ("scale",), zero_scales=True, largest_scale=_LARGEST_STEP),
    scaled.FLOAT: Scheme(scaled.dequantise, ("scale",), zero_scales=True, check=scaled.check),
    scaled.MXFP8: Scheme(scaled.dequantise, ("scale",)),
    mlx.AFFINE: Scheme(mlx.dequantise, ("scales",), zero_scales=True),
    mlx.MXFP4: Scheme(mlx.dequantise_floats, ("scales",)),
    mlx.MXFP8: Scheme(mlx.dequantise_floats, ("scales",)),
    # Its scales are FP8 in bytes, and zero for groups of zeros.
    mlx.NVFP4: Scheme(mlx.dequantise_floats),
    torchao.INT8: Scheme(torchao.dequantise, ("scale",), zero_scales=True),
    torchao.FLOAT8: Scheme(torchao.dequantise, ("scale",), zero_scales=True, check=scaled.check),
    torchao.INT4: Scheme(torchao.dequantise_int4, ("scale",), zero_scales=True),
    torchao.OTHER: Scheme(torchao.refuse),
    unsupported.UNSUPPORTED: Scheme(unsupported.dequantise),
}

_FLOATS = frozenset(
    {bitsandbytes.NF4, bitsandbytes.FP4, fp4.NVFP4, fp4.MXFP4, fp4.EXPERTS, mlx.MXFP4, mlx.NVFP4}
)
_AS_STORED = frozenset({scaled.INT, scaled.FLOAT, scaled.MXFP8, torchao.INT8, torchao.FLOAT8})

_FINDERS: tuple[Finder, ...] = (
    lambda facts, config, _: unsupported.find(facts, config),
    lambda facts, config, _: mlx.find(facts, config),
    lambda facts, config, _: torchao.find(facts, config),
    lambda facts, config, _: gptq.find(facts, config),
    lambda facts, config, _: awq.find(facts, config),
    bitsandbytes.find,
    lambda facts, config, _: fp4.find(facts, config),
    packed.find,
    lambda facts, config, _: scaled.find(facts, config),
)
"""In order: what one has claimed is not offered to the next."""


def find_quantised(
    tensors: Facts, config: Mapping[str, Any] | None = None, load_part: LoadPart | None = None
) -> list[QuantisedLayer]:
    """The layers of a model that are stored quantised, in the order of their first tensor.

    Args:
        tensors: shape and stored type of every tensor, by name.
        config: the content of ``config.json`` or its ``quantization_config``; None where there is none. What
            contradicts the tensors becomes a remark, and the tensors count.
        load_part: values of one tensor. Asked only for parts of a few bytes that hold a shape, without which the shape
            of bitsandbytes' four-bit layers and of packed ones stays unknown.
    """
    configuration = Configuration(config)
    taken: set[str] = set()
    found: list[QuantisedLayer] = []
    for finder in _FINDERS:
        for layer in finder(tensors, configuration, load_part):
            parts = parts_of(layer)
            if taken.isdisjoint(parts):
                taken.update(parts)
                found.append(layer)
    order = {name: place for place, name in enumerate(tensors)}
    return sorted(found, key=lambda layer: min(order[name] for name in parts_of(layer)))


def parts_of(layer: QuantisedLayer) -> tuple[str, ...]:
    """Names of the tensors that make up the layer."""
    return tuple(layer.parts.values())


def number_type(layer: QuantisedLayer, stored: str) -> str:
    """The type of one number of the layer, in the spelling of stored types: ``I4``, ``F4``, or ``stored``.

    Args:
        layer: from :func:`find_quantised`.
        stored: type of the tensor that holds the numbers.
    """
    if layer.bits is None or layer.scheme in _AS_STORED:
        return stored
    if layer.scheme == mlx.MXFP8:
        return "F8_E4M3"
    return f"{'F' if layer.scheme in _FLOATS else 'I'}{layer.bits}"


def load(layer: QuantisedLayer, load_part: LoadPart, path: str = "") -> NDArray[np.float32]:
    """The layer's values, shape (out, in) or (experts, out, in).

    Args:
        layer: from :func:`find_quantised`.
        load_part: values of one tensor by its name, as stored.
        path: the model, for errors.

    Raises:
        UnreadableError: QUANTISED_WITHOUT_SCALE where a part is missing; UNSUPPORTED_TENSOR where the parts do not fit
            each other or the storage is not undone; and what ``load_part`` raises.
    """
    # What is not undone is not read either.
    needed = {} if layer.reason is not None else layer.parts
    return dequantise(layer, {role: load_part(name) for role, name in needed.items()}, path)


def dequantise(layer: QuantisedLayer, parts: Parts, path: str = "") -> NDArray[np.float32]:
    """The same from the values of the parts, by role.

    Raises:
        UnreadableError: as in :func:`load`.
    """
    return SCHEMES[layer.scheme].dequantise(layer, parts, Place(path, next(iter(layer.parts.values()))))


def check(
    layer: QuantisedLayer, load_part: LoadPart, config: Configuration | Mapping[str, Any] | None = None
) -> tuple[Remark, ...]:
    """What the parts' values contradict: zero points of another convention, orders, scales that are no factors.

    Reads scales and zero points whole and of the numbers a sample; much cheaper than :func:`load`.

    Raises:
        UnreadableError: what ``load_part`` raises.
    """
    if layer.reason is not None:
        return ()
    scheme = SCHEMES[layer.scheme]
    parts = {role: load_part(name) for role, name in layer.parts.items()}
    remarks = Remarks()
    configuration = config if isinstance(config, Configuration) else Configuration(config)
    if scheme.check is not None:
        remarks.found += scheme.check(layer, parts, configuration.of(layer.name))
    for role in scheme.scales:
        if role in parts:
            check_scales(
                role,
                factors_of(parts[role]),
                remarks,
                may_be_zero=scheme.zero_scales,
                largest=scheme.largest_scale,
            )
    return tuple(remarks.found)

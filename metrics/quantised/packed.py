"""compressed-tensors ``pack-quantized``: ``weight_packed`` (out, ceil(in * bits / 32)) and its scales.

``W[o, i] = scale[o, g] * (q[o, i] - zero[o, g])``, scales of shape (out, groups). Numbers are signed and stored plus
``2 ** (bits - 1)``, packed along the inputs, lowest bits first and across the borders of words; older releases
left a gap in every word instead where bits do not divide 32, which the number of words tells. ``weight_zero_point`` is
packed the same way along the outputs: (ceil(out * bits / 32), groups). ``weight_shape`` holds (out, in);
``weight_g_idx`` the group of each input where they are no runs.

Source: https://github.com/vllm-project/compressed-tensors, ``compressors/pack_quantized``.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.quantised.bits import group_index, row_blocks, scaled, unpack, unpack_whole, words_for
from layerwatch.metrics.quantised.declared import Configuration, Declared
from layerwatch.metrics.quantised.layer import (
    Facts,
    LoadPart,
    Parts,
    Place,
    QuantisedLayer,
    Remark,
    RemarkKind,
    Remarks,
)
from layerwatch.metrics.quantised.recognising import (
    group_size_of,
    groups_fit,
    misfit,
    say_excluded,
    say_method,
)
from layerwatch.metrics.tensors import Array

PACKED = "pack-quantized"

_SUFFIX = "weight_packed"
_METHODS = frozenset({"compressed-tensors"})
_ROLES = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
_USUAL = (4, 8, 3, 2, 5, 6, 7, 1)


def find(facts: Facts, config: Configuration, load_part: LoadPart | None) -> list[QuantisedLayer]:
    """Every layer with a ``weight_packed`` of words; with ``load_part`` their ``weight_shape`` is read."""
    return [
        _recognise(tensor.removesuffix(_SUFFIX), facts, config, load_part)
        for tensor, (shape, dtype) in facts.items()
        if (tensor == _SUFFIX or tensor.endswith("." + _SUFFIX))
        and dtype in {"I32", "U32"}
        and len(shape) in {2, 3}
        and 0 not in shape
    ]


def dequantise(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of shape (out, in), or (experts, out, in).

    Raises:
        UnreadableError: a part is missing, or the parts do not fit each other.
    """
    packed, scales = place.require(parts, "weight_packed"), place.require(parts, "weight_scale")
    if packed.ndim not in {2, 3} or not packed.size or not scales.size:
        raise place.unreadable(misfit(parts))
    inputs, bits = _inputs_and_bits(packed.shape, parts.get("weight_shape"), layer.bits)
    if inputs is None or bits is None:
        raise place.unreadable(f"{packed.shape[-1]} words per row fit no number of bits; {misfit(parts)}")
    *stack, out, words = packed.shape
    scales = np.asarray(scales, np.float32)
    if scales.size == 1:
        scales = np.full((*stack, out, 1), scales.reshape(-1)[0], np.float32)
    if scales.ndim == 1 and not stack:
        scales = scales[:, None]
    if scales.shape[:-1] != packed.shape[:-1]:
        raise place.unreadable(misfit(parts))
    groups = scales.shape[-1]
    group_of = _groups(layer, parts, inputs, groups, place)
    zeros = _zeros(parts, packed.shape[:-1], groups, bits, place)
    rows = packed.reshape(-1, words)
    by_row = scales.reshape(-1, groups)
    values = np.empty((len(rows), inputs), np.float32)
    take = unpack if words == words_for(inputs, bits) else unpack_whole
    for begin, end in row_blocks(len(rows), inputs):
        codes = take(rows[begin:end], bits, inputs)
        values[begin:end] = scaled(codes, zeros[begin:end], by_row[begin:end], group_of)
    return values.reshape(*stack, out, inputs)


def check(layer: QuantisedLayer, parts: Parts, declared: Declared) -> list[Remark]:
    """What only the values show: a declared shape that the words do not hold."""
    del declared
    remarks = Remarks()
    packed, shape = parts.get("weight_packed"), parts.get("weight_shape")
    if packed is not None and shape is not None and packed.ndim >= 2:
        inputs, _ = _inputs_and_bits(packed.shape, shape, layer.bits)
        rows = _shape_of(shape)
        if inputs is None or rows is None or rows[-2:-1] != packed.shape[-2:-1]:
            remarks.add(
                RemarkKind.SHAPES,
                f"weight_shape says {list(rows or ())}, which does not fit words of shape {list(packed.shape)}",
                declared=list(rows or ()),
                stored=list(packed.shape),
            )
    return remarks.found


def _recognise(
    prefix: str, facts: Facts, config: Configuration, load_part: LoadPart | None
) -> QuantisedLayer:
    name = prefix.removesuffix(".") or "weight"
    parts = {role: prefix + role for role in _ROLES if prefix + role in facts}
    packed = facts[parts["weight_packed"]][0]
    declared = config.of(name)
    remarks = Remarks()
    for role in ("weight_scale", "weight_shape"):
        if role not in parts:
            remarks.missing(prefix + role)
    inputs, bits = _inputs_and_bits(
        packed, _small(parts.get("weight_shape"), facts, load_part), declared.bits
    )
    if inputs is not None:
        remarks.compare(RemarkKind.BITS, "bits", declared.bits, bits)
    if declared.number == "float":
        remarks.compare(RemarkKind.FORMAT, "numbers of type", "float", "int")
    if declared.format not in {None, PACKED, "mixed-precision", "dense"}:
        remarks.compare(RemarkKind.FORMAT, "the format", declared.format, PACKED)
    if declared.symmetric is False and "weight_zero_point" not in parts:
        remarks.missing(prefix + "weight_zero_point")
    say_method(config, _METHODS, "compressed-tensors", remarks)
    say_excluded(declared, remarks)
    group_size = None
    scales = facts[parts["weight_scale"]][0] if "weight_scale" in parts else (0,)
    if inputs is not None and 0 not in scales:
        groups = scales[-1] if len(scales) == len(packed) else 1
        group_size = group_size_of(inputs, groups, declared.group_size, remarks)
    return QuantisedLayer(
        name=name,
        scheme=PACKED,
        parts=parts,
        shape=None if inputs is None else (*packed[:-1], inputs),
        remarks=tuple(remarks.found),
        bits=bits if inputs is not None else declared.bits,
        group_size=group_size if group_size is not None else declared.group_size,
    )


def _small(tensor: str | None, facts: Facts, load_part: LoadPart | None) -> Array | None:
    """The values of ``weight_shape``, or None where it cannot be read now."""
    if tensor is None or load_part is None or prod(facts[tensor][0]) > 8:
        return None
    try:
        return load_part(tensor)
    except UnreadableError:
        return None


def _shape_of(stored: Array) -> tuple[int, ...] | None:
    if stored.size not in {2, 3} or stored.dtype.kind not in "iu":
        return None
    return tuple(int(one) for one in stored.reshape(-1))


def _inputs_and_bits(
    packed: tuple[int, ...], shape: Array | None, declared: int | None
) -> tuple[int | None, int | None]:
    """Inputs per row, and bits per number: as declared where that fits the words."""
    words = packed[-1]
    if shape is None:
        # Without a shape a row is as long as its words; its last numbers may be padding.
        return (
            (None, None) if declared is None or not 1 <= declared <= 8 else (words * 32 // declared, declared)
        )
    whole = _shape_of(shape)
    if whole is None or not 0 < whole[-1] <= words * 32:
        return None, None
    inputs = whole[-1]
    fitting = [bits for bits in _USUAL if words_for(inputs, bits) == words]
    fitting += [bits for bits in _USUAL if -(-inputs // (32 // bits)) == words and bits not in fitting]
    return inputs, declared if declared in fitting else next(iter(fitting), None)


def _groups(layer: QuantisedLayer, parts: Parts, inputs: int, groups: int, place: Place) -> NDArray[np.intp]:
    index = parts.get("weight_g_idx")
    if index is not None and index.size and index.dtype.kind in "iu" and int(index.max()) >= 0:
        if index.shape != (inputs,) or int(index.min()) < 0 or int(index.max()) >= groups:
            raise place.unreadable(
                f"weight_g_idx does not name one of {groups} groups for each of {inputs} inputs"
            )
        return np.asarray(index, np.intp)
    size = layer.group_size if groups_fit(inputs, groups, layer.group_size) else -(-inputs // groups)
    if size is None or not groups_fit(inputs, groups, size):
        raise place.unreadable(f"{groups} groups of scales do not divide {inputs} inputs")
    return group_index(inputs, size)


def _zeros(parts: Parts, rows: tuple[int, ...], groups: int, bits: int, place: Place) -> NDArray[np.float32]:
    """As they are subtracted from the stored numbers, shape (rows, groups)."""
    middle = float(1 << (bits - 1))
    stored = parts.get("weight_zero_point")
    if stored is None:
        return np.full((prod(rows), groups), middle, np.float32)
    *stack, out = rows
    if stored.dtype.itemsize == 1 and stored.shape == (*rows, groups):
        return np.asarray(stored, np.float32).reshape(-1, groups) + np.float32(middle)
    whole = stored.shape == (*stack, -(-out // (32 // bits)), groups)
    dense = stored.shape == (*stack, words_for(out, bits), groups)
    if not dense and not whole:
        raise place.unreadable(misfit(parts))
    take = unpack if dense else unpack_whole
    each = stored.reshape(-1, stored.shape[-2], groups)
    zeros = [take(np.ascontiguousarray(one.T), bits, out).T for one in each]
    return np.concatenate(zeros).astype(np.float32)

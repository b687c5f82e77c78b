"""GPTQ: ``qweight`` (in * bits / 32, out), ``qzeros`` (groups, out * bits / 32), ``scales`` (groups, out), ``g_idx``.

``W[o, i] = scales[g, o] * (q[i, o] - zero[g, o])`` with g the group of input i: ``g_idx[i]`` where that is stored
(with activation order groups are no runs), else ``i // group_size``. Numbers are packed along the inputs in
``qweight`` and along the outputs in ``qzeros``, lowest bits first and, for 3 bits, across the borders of words. The
first version of the format stores ``zero - 1`` and wraps (AutoGPTQ, ``qlinear_cuda_old.py``:
``(zeros + 1) & (2**bits - 1)``), the second (``checkpoint_format: gptq_v2``) stores ``zero``; names and shapes are the
same. Widths of 5 to 7 bits, and 3 bits as ``gptq_p``, are split into planes and not undone here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.quantised.bits import (
    BLOCK_ELEMENTS,
    group_index,
    row_blocks,
    scaled,
    unpack,
    words_for,
)
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
from layerwatch.metrics.quantised.recognising import (
    check_centre,
    group_size_of,
    groups_fit,
    misfit,
    say_excluded,
    say_method,
)
from layerwatch.metrics.tensors import Array

GPTQ = "gptq"
BITS = (2, 3, 4, 8)
WORDS = frozenset({"I32", "U32"})

_METHODS = frozenset({"gptq", "auto-round", "intel/auto-round"})
_SECOND_VERSION = frozenset({"gptq_v2", "gptq_p"})
_SAMPLED_ROWS = 64


def find(facts: Facts, config: Configuration) -> list[QuantisedLayer]:
    """Every layer with a ``qweight`` whose columns are outputs."""
    found = []
    for tensor, (shape, dtype) in facts.items():
        if dtype in WORDS and len(shape) == 2 and 0 not in shape and is_qweight(tensor):
            layer = _recognise(tensor.removesuffix("qweight"), facts, config)
            if layer is not None:
                found.append(layer)
    return found


def is_qweight(tensor: str) -> bool:
    """Whether this is the name under which GPTQ and AWQ store a layer's numbers."""
    return tensor == "qweight" or tensor.endswith(".qweight")


def dequantise(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of shape (out, in).

    Raises:
        UnreadableError: a part is missing, the parts do not fit each other, or the layout is one in planes.
    """
    qweight, qzeros, scales = (place.require(parts, role) for role in ("qweight", "qzeros", "scales"))
    bits = layer.bits
    if bits not in BITS:
        raise place.unreadable(f"packed in {bits} bits; {', '.join(map(str, BITS))} are undone")
    if any(one.kind is RemarkKind.FORMAT and one.declared == "gptq_p" for one in layer.remarks):
        raise place.unreadable("3 bits split into planes (gptq_p) are not undone; save the model as gptq_v2")
    inputs = qweight.shape[0] * 32 // bits
    if not _fit(qweight, qzeros, scales, bits):
        raise place.unreadable(misfit(parts))
    groups, out = scales.shape
    group_of = _groups(layer, parts, inputs, groups, place)
    zeros = _zeros(qzeros, bits, out, layer.zero_offset).T
    by_output = np.asarray(scales, np.float32).T
    values = np.empty((out, inputs), np.float32)
    for begin, end in row_blocks(out, inputs):
        codes = unpack(qweight[:, begin:end].T, bits, inputs)
        values[begin:end] = scaled(codes, zeros[begin:end], by_output[begin:end], group_of)
    return values


def check(layer: QuantisedLayer, parts: Parts, declared: Declared) -> list[Remark]:
    """What only the values show: the order of the inputs, and the convention of the zero points."""
    remarks = Remarks()
    bits = layer.bits
    if bits not in BITS or not {"qweight", "qzeros", "scales"} <= parts.keys():
        return []
    qweight, qzeros, scales = (parts[role] for role in ("qweight", "qzeros", "scales"))
    if not _fit(qweight, qzeros, scales, bits):
        return []
    inputs, groups = qweight.shape[0] * 32 // bits, len(scales)
    index = parts.get("g_idx")
    if index is not None and index.size and index.dtype.kind in "iu":
        _check_order(index.reshape(-1), groups, layer, declared, remarks)
    stored = unpack(qzeros, bits, scales.shape[1])
    middle = 1 << (bits - 1)
    only = int(stored.flat[0])
    if only in {middle - 1, middle} and bool(np.all(stored == only)):
        if only != middle - layer.zero_offset:
            _say_symmetric(layer, middle, only, remarks)
        return remarks.found
    if index is not None and index.size and (remarks.found or index.shape != (inputs,)):
        return remarks.found
    group_of = (
        np.minimum(group_index(inputs, layer.group_size or inputs), groups - 1)
        if index is None or not index.size
        else np.asarray(index, np.intp)
    )
    chosen = np.unique(np.linspace(0, scales.shape[1] - 1, _SAMPLED_ROWS).astype(np.intp))
    # Whole runs of 32 numbers, which begin and end with a word.
    words = min(len(qweight), bits * max(1, BLOCK_ELEMENTS // (32 * len(chosen))))
    codes = unpack(qweight[:words, chosen].T, bits, words * 32 // bits)
    zeros = _zeros(qzeros, bits, scales.shape[1], layer.zero_offset)[:, chosen].T
    check_centre(codes, zeros, group_of[: codes.shape[1]], bits, remarks)
    return remarks.found


def _recognise(prefix: str, facts: Facts, config: Configuration) -> QuantisedLayer | None:
    name = prefix.removesuffix(".") or "qweight"
    parts = {
        role: prefix + role for role in ("qweight", "qzeros", "scales", "g_idx") if prefix + role in facts
    }
    words, out = facts[parts["qweight"]][0]
    scales = facts[parts["scales"]][0] if "scales" in parts else None
    zeros = facts[parts["qzeros"]][0] if "qzeros" in parts else None
    if (scales is not None and len(scales) != 2) or (zeros is not None and len(zeros) != 2):
        return None
    # In AWQ's layouts the columns of qweight are packed.
    if (scales is not None and scales[1] != out) or (
        scales is None and zeros is not None and zeros[1] == out
    ):
        return None
    declared = config.of(name)
    remarks = Remarks()
    index = facts[parts["g_idx"]][0] if "g_idx" in parts else (0,)
    bits = _bits(words, out, zeros, index, declared.bits)
    # Small layers in AWQ's layout gemv have shapes that would do for GPTQ.
    if config.method == "awq" and (bits is None or declared.format == "gemv"):
        return None
    remarks.compare(RemarkKind.BITS, "bits", declared.bits, bits)
    bits = bits or (declared.bits if declared.bits in BITS else None)
    for role in ("qzeros", "scales"):
        if role not in parts:
            remarks.missing(prefix + role)
    inputs = words * 32 // bits if bits else None
    group_size = None
    groups = (scales or zeros or (0,))[0]
    if inputs and groups:
        group_size = group_size_of(inputs, groups, declared.group_size, remarks)
    if inputs and index not in {(0,), (inputs,)}:
        remarks.compare(RemarkKind.SHAPES, f"{inputs} inputs, and g_idx a shape of", [inputs], list(index))
    if zeros is not None and scales is not None and zeros[0] != scales[0]:
        remarks.add(
            RemarkKind.SHAPES,
            f"qzeros has {zeros[0]} groups, scales has {scales[0]}",
            declared=scales[0],
            stored=zeros[0],
        )
    say_method(config, _METHODS, "GPTQ", remarks)
    if declared.format == "gptq_p" and bits == 3:
        remarks.add(RemarkKind.FORMAT, "3 bits are split into planes", declared="gptq_p", stored="gptq_p")
    say_excluded(declared, remarks)
    return QuantisedLayer(
        name=name,
        scheme=GPTQ,
        parts=parts,
        shape=(out, inputs) if inputs else None,
        remarks=tuple(remarks.found),
        bits=bits,
        group_size=group_size,
        zero_offset=0 if declared.format in _SECOND_VERSION else 1,
    )


def _bits(
    words: int, out: int, zeros: tuple[int, ...] | None, index: tuple[int, ...], declared: int | None
) -> int | None:
    """The width that the shapes allow; the declared one, then the most usual one, where they allow several."""
    if zeros is None:
        return None
    fitting = [bits for bits in (4, 8, 3, 2, 5, 6, 7) if zeros[1] == words_for(out, bits)]
    by_index = [bits for bits in fitting if index == (words * 32 // bits,)]
    allowed = by_index or fitting
    return declared if declared in allowed else next(iter(allowed), None)


def _fit(qweight: Array, qzeros: Array, scales: Array, bits: int) -> bool:
    if not qweight.ndim == qzeros.ndim == scales.ndim == 2 or not qweight.size or not scales.size:
        return False
    groups, out = scales.shape
    return (qweight.shape[1] == out and len(qweight) % (3 if bits == 3 else 1) == 0) and qzeros.shape == (
        groups,
        words_for(out, bits),
    )


def _zeros(qzeros: Array, bits: int, out: int, offset: int) -> NDArray[np.float32]:
    stored = unpack(qzeros, bits, out)
    return ((stored + np.uint8(offset)) & np.uint8((1 << bits) - 1)).astype(np.float32)


def _groups(layer: QuantisedLayer, parts: Parts, inputs: int, groups: int, place: Place) -> NDArray[np.intp]:
    index = parts.get("g_idx")
    if index is None or index.size == 0:
        if layer.group_size is None or not groups_fit(inputs, groups, layer.group_size):
            raise place.unreadable(f"{groups} groups of scales do not divide {inputs} inputs")
        return group_index(inputs, layer.group_size)
    if index.shape != (inputs,) or index.dtype.kind not in "iu":
        raise place.unreadable(misfit(parts))
    lowest, highest = int(index.min()), int(index.max())
    if lowest < 0 or highest >= groups:
        raise place.unreadable(
            f"g_idx names groups {lowest} to {highest}, there are {groups}; export the model again"
        )
    return np.asarray(index, np.intp)


def _check_order(
    index: Array, groups: int, layer: QuantisedLayer, declared: Declared, remarks: Remarks
) -> None:
    lowest, highest = int(index.min()), int(index.max())
    if lowest < 0 or highest >= groups:
        remarks.add(
            RemarkKind.GROUP_INDEX,
            f"g_idx names groups {lowest} to {highest}, there are {groups}",
            declared=groups,
            stored=f"{lowest}..{highest}",
        )
        return
    if declared.activation_order is False and bool(np.any(index[1:] < index[:-1])):
        remarks.add(
            RemarkKind.GROUP_INDEX,
            "the configuration declares desc_act false, but g_idx is not in order: programs that believe the "
            "configuration use the scales of other inputs",
            declared="in order",
            stored="reordered",
        )
    most = int(np.bincount(index.astype(np.intp), minlength=groups).max())
    if layer.group_size is not None and most > layer.group_size:
        remarks.add(
            RemarkKind.GROUP_INDEX,
            f"g_idx puts {most} inputs into one group, a group has {layer.group_size}",
            declared=layer.group_size,
            stored=most,
        )


def _say_symmetric(layer: QuantisedLayer, middle: int, stored: int, remarks: Remarks) -> None:
    read, shown = ("gptq", "gptq_v2") if layer.zero_offset else ("gptq_v2", "gptq")
    remarks.add(
        RemarkKind.ZERO_POINT,
        f"every stored zero point is {stored}, as checkpoint_format {shown} stores the middle; read as {read} "
        f"that is {stored + layer.zero_offset} instead of {middle}: every weight is off by one step",
        declared=middle - layer.zero_offset,
        stored=stored,
    )

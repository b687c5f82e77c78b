"""AWQ: ``qweight`` (in, out / 8), ``qzeros`` (groups, out / 8), ``scales`` (groups, out), 4 bits.

``W[o, i] = scales[g, o] * (q[i, o] - zero[g, o])`` with ``g = i // group_size``. Both are packed along the outputs, and
the eight numbers of a word are interleaved: field f, from the lowest bits, holds output ``(0, 2, 4, 6, 1, 3, 5, 7)[f]``
of the word's eight (AutoAWQ, ``WQLinear_GEMM.from_linear``). The layout ``gemv`` packs along the inputs, in order:
``qweight`` (out, in / 8), ``qzeros`` (out, w), ``scales`` (out, 8 w), padded to a width w.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.quantised.bits import BLOCK_ELEMENTS, group_index, row_blocks, scaled, unpack
from layerwatch.metrics.quantised.declared import Configuration, Declared
from layerwatch.metrics.quantised.gptq import WORDS, is_qweight
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

GEMM = "awq"
GEMV = "awq-gemv"

_BITS = 4
_FIELDS = 8
_FIELD_OF_OUTPUT = (0, 4, 1, 5, 2, 6, 3, 7)
_METHODS = frozenset({"awq", "auto-round", "intel/auto-round"})
_SAMPLED_WORDS = 8


def find(facts: Facts, config: Configuration) -> list[QuantisedLayer]:
    """Every layer with a ``qweight`` whose columns are packed."""
    found = []
    for tensor, (shape, dtype) in facts.items():
        if dtype in WORDS and len(shape) == 2 and 0 not in shape and is_qweight(tensor):
            layer = _recognise(tensor.removesuffix("qweight"), facts, config)
            if layer is not None:
                found.append(layer)
    return found


def dequantise(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of shape (out, in), of the layout ``gemm``.

    Raises:
        UnreadableError: a part is missing, or the parts do not fit each other.
    """
    qweight, qzeros, scales = (place.require(parts, role) for role in ("qweight", "qzeros", "scales"))
    if not _fit(qweight, qzeros, scales):
        raise place.unreadable(misfit(parts))
    inputs, words = qweight.shape
    groups, out = scales.shape
    if layer.group_size is None or not groups_fit(inputs, groups, layer.group_size):
        raise place.unreadable(f"{groups} groups of scales do not divide {inputs} inputs")
    group_of = group_index(inputs, layer.group_size)
    zeros = _in_order(qzeros).astype(np.float32)
    by_output = np.asarray(scales, np.float32).T
    values = np.empty((out, inputs), np.float32)
    for begin, end in row_blocks(words, _FIELDS * inputs):
        rows = slice(_FIELDS * begin, _FIELDS * end)
        codes = _in_order(qweight[:, begin:end])
        values[rows] = scaled(codes, zeros[rows], by_output[rows], group_of)
    return values


def dequantise_gemv(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of shape (out, in), of the layout ``gemv``.

    Raises:
        UnreadableError: a part is missing, or the parts do not fit each other.
    """
    qweight, qzeros, scales = (place.require(parts, role) for role in ("qweight", "qzeros", "scales"))
    inputs = qweight.shape[1] * _FIELDS if qweight.ndim == 2 else 0
    if (
        not qweight.ndim == qzeros.ndim == scales.ndim == 2
        or not len(qweight) == len(qzeros) == len(scales)
        or scales.shape[1] != _FIELDS * qzeros.shape[1]
        or layer.group_size is None
        or layer.group_size * scales.shape[1] < inputs
    ):
        raise place.unreadable(misfit(parts))
    group_of = group_index(inputs, layer.group_size)
    values = np.empty((len(qweight), inputs), np.float32)
    for begin, end in row_blocks(len(qweight), inputs):
        zeros = unpack(qzeros[begin:end], _BITS, scales.shape[1]).astype(np.float32)
        codes = unpack(qweight[begin:end], _BITS, inputs)
        values[begin:end] = scaled(codes, zeros, np.asarray(scales[begin:end], np.float32), group_of)
    return values


def check(layer: QuantisedLayer, parts: Parts, declared: Declared) -> list[Remark]:
    """What only the values show: zero points in another convention."""
    del declared
    remarks = Remarks()
    if not {"qweight", "qzeros", "scales"} <= parts.keys() or layer.group_size is None:
        return []
    qweight, qzeros, scales = (parts[role] for role in ("qweight", "qzeros", "scales"))
    if not _fit(qweight, qzeros, scales):
        return []
    chosen = np.unique(np.linspace(0, qweight.shape[1] - 1, _SAMPLED_WORDS).astype(np.intp))
    rows = max(1, BLOCK_ELEMENTS // (_FIELDS * len(chosen)))
    codes = _in_order(qweight[:rows, chosen])
    zeros = _in_order(qzeros[:, chosen]).astype(np.float32)
    group_of = np.minimum(group_index(codes.shape[1], layer.group_size), len(scales) - 1)
    check_centre(codes, zeros, group_of, _BITS, remarks)
    return remarks.found


def _recognise(prefix: str, facts: Facts, config: Configuration) -> QuantisedLayer | None:
    name = prefix.removesuffix(".") or "qweight"
    parts = {role: prefix + role for role in ("qweight", "qzeros", "scales") if prefix + role in facts}
    rows, columns = facts[parts["qweight"]][0]
    scales = facts[parts["scales"]][0] if "scales" in parts else None
    zeros = facts[parts["qzeros"]][0] if "qzeros" in parts else None
    if (scales is not None and len(scales) != 2) or (zeros is not None and len(zeros) != 2):
        return None
    if scales is None and zeros is None:
        return None
    declared = config.of(name)
    remarks = Remarks()
    for role in ("qzeros", "scales"):
        if role not in parts:
            remarks.missing(prefix + role)
    gemm = zeros is not None and zeros[1] == columns if scales is None else scales[1] == columns * _FIELDS
    if not gemm and (scales is None or zeros is None or scales != (rows, _FIELDS * zeros[1])):
        return None
    remarks.compare(RemarkKind.BITS, "bits", declared.bits, _BITS)
    layout = "gemm" if gemm else "gemv"
    if declared.format in {"gemm", "gemv", "gemv_fast", "marlin"}:
        remarks.compare(RemarkKind.FORMAT, "the layout", declared.format, layout)
    say_method(config, _METHODS, "AWQ", remarks)
    say_excluded(declared, remarks)
    inputs = rows if gemm else columns * _FIELDS
    groups = (scales or zeros or (0,))[0]
    if not gemm:
        # Padded: the number of groups is only known to be no larger.
        size = inputs if declared.group_size == -1 else declared.group_size
        group_size = size if size and size > 0 else 128
    else:
        group_size = group_size_of(inputs, groups, declared.group_size, remarks) if groups else inputs
    return QuantisedLayer(
        name=name,
        scheme=GEMM if gemm else GEMV,
        parts=parts,
        shape=(columns * _FIELDS, rows) if gemm else (rows, inputs),
        remarks=tuple(remarks.found),
        bits=_BITS,
        group_size=group_size,
    )


def _fit(qweight: Array, qzeros: Array, scales: Array) -> bool:
    return (
        qweight.ndim == qzeros.ndim == scales.ndim == 2
        and qweight.size > 0
        and scales.shape[0] > 0
        and scales.shape[1] == qweight.shape[1] * _FIELDS
        and qzeros.shape == (scales.shape[0], qweight.shape[1])
    )


def _in_order(words: Array) -> NDArray[np.uint8]:
    """Numbers of (rows, words) packed along the outputs; shape (8 * words, rows)."""
    fields = unpack(words, _BITS, _FIELDS * words.shape[1]).reshape(len(words), -1, _FIELDS)
    return np.ascontiguousarray(fields[:, :, _FIELD_OF_OUTPUT].reshape(len(words), -1).T)

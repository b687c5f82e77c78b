"""bitsandbytes: int8 with one scale per row, and nf4 / fp4 in blocks, their scales quantised once more or not.

int8: ``weight`` (out, in), ``SCB`` (out,), ``weight_format``; ``W = weight * SCB / 127``.

Four bits: ``weight`` holds the codes of the flattened matrix, two per byte, the first in the high half, seen as any
storage type; ``W.flat[i] = table[code[i]] * absmax[i // blocksize]``. ``quant_state.bitsandbytes__nf4`` (or ``fp4``) is a
JSON text with ``shape`` and ``blocksize``. Nested: ``absmax`` holds bytes, and ``absmax[b] = nested_quant_map[byte] *
nested_absmax[b // nested_blocksize] + nested_offset``. The tables are those of the type: bitsandbytes' kernels do not
read ``quant_map``.

Source: https://github.com/bitsandbytes-foundation/bitsandbytes, ``functional.py`` (``QuantState``,
``get_4bit_type``, ``dequantize_4bit``), ``nn/modules.py`` (``Linear8bitLt``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.quantised.bits import BLOCK_ELEMENTS, row_blocks
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
from layerwatch.metrics.quantised.recognising import check_scales, misfit, say_excluded, say_method
from layerwatch.metrics.readers.strictjson import parse_object
from layerwatch.metrics.tensors import Array

INT8 = "bitsandbytes-int8"
NF4 = "bitsandbytes-nf4"
FP4 = "bitsandbytes-fp4"

# Quantiles of the normal distribution, QLoRA (https://arxiv.org/abs/2305.14314), appendix E.
_NF4 = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
_FP4_HALF = np.array([0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0], np.float32) / np.float32(12.0)
TABLES: Mapping[str, NDArray[np.float32]] = {NF4: _NF4, FP4: np.concatenate([_FP4_HALF, -_FP4_HALF])}
"""Value of each code, largest 1."""

_METHODS = frozenset({"bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"})
_STATE = ".quant_state.bitsandbytes__"
_STATS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_BLOCK_SIZES = frozenset({32, 64, 128, 256, 512, 1024, 2048, 4096})
_LONGEST_STATE = 1 << 16
_ROW_FORMAT = 0


@dataclass(frozen=True, slots=True)
class _State:
    shape: tuple[int, ...]
    block: int
    nested_block: int | None
    offset: float


def find(facts: Facts, config: Configuration, load_part: LoadPart | None) -> list[QuantisedLayer]:
    """Every layer with ``SCB`` or with a quantisation state; with ``load_part`` shapes are read from the states."""
    found = []
    for tensor, (shape, dtype) in facts.items():
        name = tensor.removesuffix("weight").removesuffix(".") or "weight"
        if tensor.endswith("weight") and dtype == "I8" and len(shape) == 2 and 0 not in shape:
            prefix = tensor.removesuffix("weight")
            # A layer whose scales are lost still tells what it is by its weight_format.
            if prefix + "SCB" in facts or prefix + "weight_format" in facts:
                found.append(_recognise_int8(name, prefix, facts, config))
        elif 0 not in shape and _is_4bit(tensor, dtype, facts):
            found.append(_recognise_4bit(name, tensor, facts, config, load_part))
    return found


def dequantise_int8(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values of shape (out, in).

    Raises:
        UnreadableError: a part is missing, the parts do not fit each other, or rows are not stored one after another.
    """
    del layer
    weight, scb = place.require(parts, "weight"), place.require(parts, "SCB")
    kept = parts.get("weight_format")
    if kept is not None and kept.size == 1 and int(kept.reshape(-1)[0]) != _ROW_FORMAT:
        raise place.unreadable(
            f"stored in the tile order {int(kept.reshape(-1)[0])} of one kind of GPU; save the model again with a "
            "current bitsandbytes, which stores rows"
        )
    if weight.ndim != 2 or scb.size != len(weight):
        raise place.unreadable(misfit(parts))
    scale = np.asarray(scb, np.float32).reshape(-1, 1) / np.float32(127.0)
    values = np.empty(weight.shape, np.float32)
    for begin, end in row_blocks(*weight.shape):
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(weight[begin:end], scale[begin:end], out=values[begin:end], dtype=np.float32)
    return values


def dequantise_4bit(layer: QuantisedLayer, parts: Parts, place: Place) -> NDArray[np.float32]:
    """Values in the shape that the state says.

    Raises:
        UnreadableError: a part is missing, the state cannot be read, or the parts do not fit each other.
    """
    weight, absmax = place.require(parts, "weight"), place.require(parts, "absmax")
    state = _state(place.require(parts, "quant_state"), place.path, place.tensor)
    codes = np.ascontiguousarray(weight).reshape(-1).view(np.uint8)
    count = prod(state.shape)
    if (count + 1) // 2 != codes.size or absmax.size != -(-count // state.block):
        raise place.unreadable(
            f"its state says shape {list(state.shape)} in blocks of {state.block}; {misfit(parts)}"
        )
    scale = _scales(absmax, state, parts, place)
    table = TABLES[layer.scheme]
    values = np.empty(count, np.float32)
    # A multiple of every block size, so that no block and no byte is cut.
    for begin in range(0, count, BLOCK_ELEMENTS):
        end = min(count, begin + BLOCK_ELEMENTS)
        packed = codes[begin // 2 : (end + 1) // 2]
        both = np.empty((len(packed), 2), np.uint8)
        np.right_shift(packed, 4, out=both[:, 0])
        np.bitwise_and(packed, 0x0F, out=both[:, 1])
        block = values[begin:end]
        np.take(table, both.reshape(-1)[: end - begin], out=block)
        factors = np.repeat(scale[begin // state.block : -(-end // state.block)], state.block)
        with np.errstate(over="ignore", invalid="ignore"):
            block *= factors[: end - begin]
    return values.reshape(state.shape)


def check_4bit(layer: QuantisedLayer, parts: Parts, declared: Declared) -> list[Remark]:
    """What only the values show: a table that is not the one of the type, statistics that are no numbers."""
    del declared
    remarks = Remarks()
    absmax = parts.get("absmax")
    if absmax is not None and absmax.dtype.kind not in "iu":
        check_scales("absmax", absmax, remarks, may_be_zero=True)
    table = parts.get("quant_map")
    if table is not None and (
        table.size != 16
        or not np.allclose(np.asarray(table, np.float32).reshape(-1), TABLES[layer.scheme], rtol=0, atol=1e-6)
    ):
        remarks.add(
            RemarkKind.CODEBOOK,
            f"quant_map is not the table of {layer.scheme}; kernels use the table of the type whatever is stored",
            declared=layer.scheme,
            stored="another table",
        )
    return remarks.found


def _is_4bit(tensor: str, dtype: str, facts: Facts) -> bool:
    # A layer whose state is lost still tells what it is by its statistics.
    return any(tensor + _STATE + kind in facts for kind in ("nf4", "fp4")) or (
        dtype == "U8" and tensor + ".absmax" in facts
    )


def _recognise_int8(name: str, prefix: str, facts: Facts, config: Configuration) -> QuantisedLayer:
    parts = {role: prefix + role for role in ("weight", "SCB", "weight_format") if prefix + role in facts}
    remarks = Remarks()
    declared = config.of(name)
    if "SCB" not in parts:
        remarks.missing(prefix + "SCB")
    remarks.compare(RemarkKind.BITS, "bits", declared.bits, 8)
    say_method(config, _METHODS, "bitsandbytes", remarks)
    say_excluded(declared, remarks)
    shape = facts[parts["weight"]][0]
    return QuantisedLayer(name, INT8, parts, shape, tuple(remarks.found), bits=8)


def _recognise_4bit(
    name: str, tensor: str, facts: Facts, config: Configuration, load_part: LoadPart | None
) -> QuantisedLayer:
    remarks = Remarks()
    declared = config.of(name)
    kinds = [kind for kind in ("nf4", "fp4") if tensor + _STATE + kind in facts]
    kind = kinds[0] if kinds else declared.number or "nf4"
    parts = {"weight": tensor} | {role: f"{tensor}.{role}" for role in _STATS if f"{tensor}.{role}" in facts}
    if kinds:
        parts["quant_state"] = tensor + _STATE + kind
    else:
        remarks.missing(f"{tensor}{_STATE}{kind}")
    nested = "nested_absmax" in parts
    needed = ("absmax", "quant_map", *(("nested_absmax", "nested_quant_map") if nested else ()))
    for role in needed:
        if role not in parts:
            remarks.missing(f"{tensor}.{role}")
    if "absmax" in parts and not nested and facts[parts["absmax"]][1] == "U8":
        remarks.missing(f"{tensor}.nested_absmax")
    remarks.compare(RemarkKind.BITS, "bits", declared.bits, 4)
    remarks.compare(RemarkKind.FORMAT, "numbers of type", declared.number, kind)
    say_method(config, _METHODS, "bitsandbytes", remarks)
    say_excluded(declared, remarks)
    shape = None
    if (
        "quant_state" in parts
        and load_part is not None
        and prod(facts[parts["quant_state"]][0]) <= _LONGEST_STATE
    ):
        try:
            shape = _state(load_part(parts["quant_state"]), "", tensor).shape
        except UnreadableError:
            shape = None
    return QuantisedLayer(name, NF4 if kind == "nf4" else FP4, parts, shape, tuple(remarks.found), bits=4)


def _state(stored: Array, path: str, tensor: str) -> _State:
    place = Place(path, tensor)
    if stored.dtype != np.uint8 or stored.size > _LONGEST_STATE:
        raise place.unreadable(
            f"its quantisation state is {stored.size} numbers of {stored.dtype}, not a short text"
        )
    said: Mapping[str, Any] = parse_object(stored.tobytes(), Path(path), f"quantisation state of {tensor}")
    shape, block = said.get("shape"), said.get("blocksize")
    nested, offset = said.get("nested_blocksize"), said.get("nested_offset", 0.0)
    if (
        not isinstance(shape, list)
        or not 0 < len(shape) <= 4
        or not all(type(one) is int and 0 < one < 2**40 for one in shape)
        or type(block) is not int
        or block not in _BLOCK_SIZES
        or not (nested is None or (type(nested) is int and 0 < nested < 2**31))
        or not (isinstance(offset, int | float) and isfinite(offset))
    ):
        raise place.unreadable("its quantisation state has no usable shape, blocksize and nested statistics")
    return _State(tuple(shape), block, nested, float(offset))


def _scales(absmax: Array, state: _State, parts: Parts, place: Place) -> NDArray[np.float32]:
    flat = absmax.reshape(-1)
    if "nested_absmax" not in parts:
        if flat.dtype.kind in "iu":
            place.require(parts, "nested_absmax")
        return np.asarray(flat, np.float32)
    outer = np.asarray(parts["nested_absmax"], np.float32).reshape(-1)
    table = np.asarray(place.require(parts, "nested_quant_map"), np.float32).reshape(-1)
    size = state.nested_block
    if flat.dtype != np.uint8 or table.size != 256 or size is None or outer.size != -(-flat.size // size):
        raise place.unreadable(misfit(parts))
    with np.errstate(over="ignore", invalid="ignore"):
        inner = table[flat] * np.repeat(outer, size)[: flat.size]
        return np.asarray(inner + np.float32(state.offset))

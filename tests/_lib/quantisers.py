"""Layers stored quantised, as tensors by name: plain rounding, and packing through Python's own whole numbers.

A row of numbers becomes one large integer, number i shifted by ``i * bits``, and its bytes are the row's words: nothing
is shared with the code that unpacks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Stored = dict[str, NDArray[Any]]

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def heavy_tailed(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    """A layer with entries of about 0.02 and a heavy-tailed spectrum, as in the field report, section 7.5."""
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.standard_normal((rows, rows)))[0]
    right = np.linalg.qr(random.standard_normal((columns, columns)))[0]
    rank = min(rows, columns)
    singular = random.pareto(2 * 2.6, rank) + 1.0
    matrix = (left[:, :rank] * np.sort(singular)[::-1]) @ right[:rank]
    return np.asarray(0.02 * matrix / matrix.std(), np.float32)


def pack(rows: NDArray[Any], bits: int) -> NDArray[np.int32]:
    """Rows of whole numbers as rows of 32-bit words, lowest bits first, without gaps."""
    words = -(-rows.shape[1] * bits // 32)
    packed = [
        sum(int(number) << (place * bits) for place, number in enumerate(row)).to_bytes(4 * words, "little")
        for row in rows
    ]
    return np.frombuffer(b"".join(packed), "<i4").reshape(len(rows), words)


def by_group(
    weight: NDArray[np.float32],
    bits: int,
    group_of: NDArray[np.intp],
    *,
    symmetric: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Rounded to the nearest: codes (out, in), zero points (out, groups), scales (out, groups) in half precision."""
    most = 2**bits - 1
    groups = int(group_of.max()) + 1
    low = np.stack([weight[:, group_of == group].min(1) for group in range(groups)], 1)
    high = np.stack([weight[:, group_of == group].max(1) for group in range(groups)], 1)
    if symmetric:
        # -8..7 around a middle of 8: seven steps reach the largest.
        scale = np.maximum(np.abs(low), np.abs(high)) / (2 ** (bits - 1) - 1)
        zero = np.full_like(scale, 2 ** (bits - 1))
    else:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scale = (high - low) / most
        zero = np.round(-low / scale)
    scale = scale.astype(np.float16).astype(np.float32)
    codes = np.clip(np.round(weight / scale[:, group_of]) + zero[:, group_of], 0, most)
    return codes.astype(np.int64), zero.astype(np.int64), scale


def gptq(
    weight: NDArray[np.float32],
    *,
    bits: int = 4,
    group: int = 128,
    version: int = 1,
    symmetric: bool = True,
    order: Sequence[int] | None = None,
    name: str = "fc",
) -> tuple[Stored, NDArray[np.float32]]:
    """GPTQ's tensors, and the values that they stand for.

    Args:
        weight: shape (out, in).
        version: 1 stores zero points less one (modulo 2 ** bits), 2 as they are.
        order: inputs by falling importance; group g holds those at places g * group and following. None: as they come.
    """
    inputs = weight.shape[1]
    group_of = np.arange(inputs) // group
    if order is not None:
        placed = np.empty(inputs, np.intp)
        placed[np.asarray(order)] = np.arange(inputs) // group
        group_of = placed
    codes, zero, scale = by_group(weight, bits, group_of, symmetric=symmetric)
    stored = stored_as_gptq(codes, zero, scale, group_of, bits=bits, version=version, name=name)
    return stored, ((codes - zero[:, group_of]) * scale[:, group_of]).astype(np.float32)


def stored_as_gptq(
    codes: NDArray[np.int64],
    zero: NDArray[np.int64],
    scale: NDArray[np.float32],
    group_of: NDArray[np.intp],
    *,
    bits: int,
    version: int = 1,
    name: str = "fc",
) -> Stored:
    """GPTQ's tensors of codes (out, in), zero points and scales (out, groups)."""
    kept = (zero - 1) % 2**bits if version == 1 else zero
    return {
        f"{name}.qweight": np.ascontiguousarray(pack(codes, bits).T),
        f"{name}.qzeros": pack(kept.T, bits),
        f"{name}.scales": np.ascontiguousarray(scale.T).astype(np.float16),
        f"{name}.g_idx": group_of.astype(np.int32),
    }


def awq(
    weight: NDArray[np.float32],
    *,
    group: int = 128,
    order: Sequence[int] = AWQ_ORDER,
    name: str = "fc",
) -> tuple[Stored, NDArray[np.float32]]:
    """AWQ's tensors in the layout gemm, and the values that they stand for.

    Args:
        order: output that each field of a word holds; another one than :data:`AWQ_ORDER` is a fault.
    """
    group_of = np.arange(weight.shape[1]) // group
    codes, zero, scale = by_group(weight, 4, group_of, symmetric=False)

    def interleaved(rows: NDArray[np.int64]) -> NDArray[np.int32]:
        return pack(rows.reshape(len(rows), -1, 8)[:, :, list(order)].reshape(len(rows), -1), 4)

    stored: Stored = {
        f"{name}.qweight": interleaved(codes.T),
        f"{name}.qzeros": interleaved(zero.T),
        f"{name}.scales": np.ascontiguousarray(scale.T).astype(np.float16),
    }
    return stored, ((codes - zero[:, group_of]) * scale[:, group_of]).astype(np.float32)


def packed(
    weight: NDArray[np.float32], *, bits: int = 4, group: int = 128, name: str = "fc"
) -> tuple[Stored, NDArray[np.float32]]:
    """compressed-tensors ``pack-quantized``, symmetric, and the values that it stands for."""
    group_of = np.arange(weight.shape[1]) // group
    codes, zero, scale = by_group(weight, bits, group_of, symmetric=True)
    stored: Stored = {
        f"{name}.weight_packed": pack(codes, bits),
        f"{name}.weight_scale": scale.astype(np.float16),
        f"{name}.weight_shape": np.array(weight.shape, np.int64),
    }
    return stored, ((codes - zero[:, group_of]) * scale[:, group_of]).astype(np.float32)


def fp8(weight: NDArray[np.float32], *, block: int | None = None, name: str = "fc") -> Stored:
    """FP8 with a scale per row, or per square block as ``weight_scale_inv``."""
    if block is None:
        scale = np.abs(weight).max(1, keepdims=True) / 448.0
        return {
            f"{name}.weight": (weight / scale).astype(ml_dtypes.float8_e4m3fn),
            f"{name}.weight_scale": scale.astype(np.float32),
        }
    rows, columns = (-(-length // block) for length in weight.shape)
    scale = np.empty((rows, columns), np.float32)
    stored = np.empty(weight.shape, ml_dtypes.float8_e4m3fn)
    for row in range(rows):
        for column in range(columns):
            place = np.s_[row * block : (row + 1) * block, column * block : (column + 1) * block]
            scale[row, column] = np.abs(weight[place]).max() / 448.0
            stored[place] = (weight[place] / scale[row, column]).astype(ml_dtypes.float8_e4m3fn)
    return {f"{name}.weight": stored, f"{name}.weight_scale_inv": scale}


def int8(weight: NDArray[np.float32], *, name: str = "fc") -> Stored:
    """bitsandbytes int8: one scale per row, its largest absolute value."""
    scb = np.abs(weight).max(1)
    return {
        f"{name}.weight": np.round(weight / scb[:, None] * 127).astype(np.int8),
        f"{name}.SCB": scb.astype(np.float32),
        f"{name}.weight_format": np.array(0, np.uint8),
    }


NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
)
"""QLoRA (arXiv:2305.14314), appendix E."""


def nf4(weight: NDArray[np.float32], *, block: int = 64, name: str = "fc") -> Stored:
    """bitsandbytes nf4, scales in float32: two codes in a byte, the first in the high half."""
    flat = weight.reshape(-1, block)
    absmax = np.abs(flat).max(1)
    table = np.array(NF4, np.float32)
    codes = np.abs(flat[:, :, None] / absmax[:, None, None] - table).argmin(2).reshape(-1)
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "float16", "shape": list(weight.shape)}
    return {
        f"{name}.weight": (codes[::2] * 16 + codes[1::2]).astype(np.uint8).reshape(-1, 1),
        f"{name}.weight.absmax": absmax.astype(np.float32),
        f"{name}.weight.quant_map": table,
        f"{name}.weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }

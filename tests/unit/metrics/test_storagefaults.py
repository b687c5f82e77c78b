"""Faults of quantised storage in weights that were read back: each by its name, and nothing healthy by any.

The faults are those of the field report (``../shared/reference/field.md``, sections 7.3 and 7.5).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics.change import exact_change
from layerwatch.metrics.rowmatching import Axis
from layerwatch.metrics.storagefaults import StorageFault, StorageFaultKind, find_storage_fault

Values = NDArray[Any]

SHAPE = (320, 512)


@cache
def parent(shape: tuple[int, int] = SHAPE) -> NDArray[np.float32]:
    """A matrix like a transformer's: heavy-tailed spectrum, rows and columns of unequal norm, a few outliers."""
    generator = np.random.default_rng(5)
    rank = min(shape)
    left, right = (np.linalg.qr(generator.standard_normal((side, rank)))[0] for side in shape)
    matrix = (left * np.arange(1, rank + 1) ** -0.4) @ right.T
    matrix += 0.5 * matrix.std() * generator.standard_t(6, shape)
    matrix *= np.exp(0.3 * generator.standard_normal((shape[0], 1)))
    matrix *= np.exp(0.3 * generator.standard_normal((1, shape[1])))
    weights = np.asarray(0.02 * matrix / matrix.std(), dtype=np.float32)
    weights.flags.writeable = False
    return weights


def read_back(
    weights: Values,
    bits: int,
    group: int,
    *,
    symmetric: bool = False,
    zero_off: int = 0,
    scales: Callable[[Values], Values] = lambda table: table,
) -> Values:
    """Quantise in groups along the inputs, and read back with a wrong zero point or another table of scales."""
    grouped = weights.astype(np.float64).reshape(len(weights), -1, group)
    low, high = grouped.min(axis=2, keepdims=True), grouped.max(axis=2, keepdims=True)
    if symmetric:
        scale = np.maximum(high, -low) / (2 ** (bits - 1) - 1)
        zero = np.zeros_like(scale)
        codes = np.round(grouped / scale)
    else:
        scale = (high - low) / (2**bits - 1)
        zero = np.round(-low / scale)
        codes = np.clip(np.round(grouped / scale) + zero, 0, 2**bits - 1)
    scale = scales(scale[:, :, 0])[:, :, None]
    return np.asarray((codes - zero - zero_off) * scale, dtype=np.float32).reshape(weights.shape)


def fault_of(new: Values, old: Values) -> StorageFault | None:
    found = exact_change(np.ascontiguousarray(new), np.ascontiguousarray(old), None, None)
    assert found is not None
    return found.fault


both_layouts = pytest.mark.parametrize("axis", list(Axis))
groups = pytest.mark.parametrize("group", [32, 128])
kinds = pytest.mark.parametrize("symmetric", [False, True], ids=["with zero points", "symmetric"])


def laid_out(weights: Values, axis: Axis) -> Values:
    """Outputs x inputs, or inputs x outputs."""
    return weights if axis is Axis.COLUMNS else weights.T


@both_layouts
@groups
@kinds
@pytest.mark.parametrize("off", [-1, 1])
def test_a_zero_point_off_by_one_is_a_constant_per_group(
    axis: Axis, group: int, symmetric: bool, off: int
) -> None:
    old = parent()
    new = read_back(old, 4, group, symmetric=symmetric, zero_off=off)

    fault = fault_of(laid_out(new, axis), laid_out(old, axis))

    assert fault is not None
    assert (fault.kind, fault.axis, fault.group) == (StorageFaultKind.ZERO_POINT, axis, group)
    # Uniform rounding errors of one step hold 1/12 of the energy of a whole step: 12/13.
    assert fault.explained == pytest.approx(12 / 13, abs=0.03)


def test_a_zero_point_per_row_is_one_constant_per_row() -> None:
    old = parent()

    fault = fault_of(read_back(old, 8, SHAPE[1], zero_off=1), old)

    assert fault is not None
    assert (fault.kind, fault.axis, fault.group) == (StorageFaultKind.ZERO_POINT, Axis.COLUMNS, None)


@both_layouts
@groups
@kinds
@pytest.mark.parametrize("along", [0, 1], ids=["by a row", "by a group"])
@pytest.mark.parametrize("step", [-1, 1])
def test_scales_shifted_by_a_place_are_those_of_the_neighbour(
    axis: Axis, group: int, symmetric: bool, along: int, step: int
) -> None:
    old = parent((320, 2048))
    new = read_back(old, 4, group, symmetric=symmetric, scales=lambda table: np.roll(table, step, axis=along))

    fault = fault_of(laid_out(new, axis), laid_out(old, axis))

    assert fault is not None
    assert (fault.kind, fault.axis, fault.group) == (StorageFaultKind.SHIFTED_SCALES, axis, group)
    assert fault.spread is not None
    assert fault.spread > 1.2


def test_scales_per_row_shifted_by_a_row_are_recognised() -> None:
    old = parent()

    fault = fault_of(read_back(old, 8, SHAPE[1], scales=lambda table: np.roll(table, 1, axis=0)), old)

    assert fault is not None
    assert (fault.kind, fault.group) == (StorageFaultKind.SHIFTED_SCALES, None)


@both_layouts
@groups
@kinds
def test_scales_of_another_group_size_are_a_factor_per_group(axis: Axis, group: int, symmetric: bool) -> None:
    """Written in groups of g, read as if in groups of 2 g: every second scale is used twice."""
    old = parent((320, 2048))
    new = read_back(
        old, 4, group, symmetric=symmetric, scales=lambda table: np.repeat(table[:, ::2], 2, axis=1)
    )

    fault = fault_of(laid_out(new, axis), laid_out(old, axis))

    assert fault is not None
    assert (fault.kind, fault.axis) == (StorageFaultKind.GROUP_SCALES, axis)


def pruned(weights: Values, share: float) -> Values:
    return np.where(np.abs(weights) < np.quantile(np.abs(weights), share), 0, weights)


def noise(shape: tuple[int, ...]) -> Values:
    return np.random.default_rng(9).standard_normal(shape)


def adapter(shape: tuple[int, ...], rank: int) -> Values:
    generator = np.random.default_rng(9)
    return generator.standard_normal((shape[0], rank)) @ generator.standard_normal((rank, shape[1]))


def rounded(bits: int, group: int, symmetric: bool) -> Callable[[Values], Values]:
    return lambda weights: read_back(weights, bits, group, symmetric=symmetric)


def without_small(share: float) -> Callable[[Values], Values]:
    return lambda weights: pruned(weights, share)


HEALTHY: dict[str, Callable[[Values], Values]] = {
    **{
        f"int{bits}, groups of {group}, symmetric {symmetric}": rounded(bits, group, symmetric)
        for bits in (3, 4, 8)
        for group in (32, 128, SHAPE[1])
        for symmetric in (False, True)
    },
    "float8": lambda weights: weights.astype(ml_dtypes.float8_e4m3fn).astype(np.float32),
    "bfloat16": lambda weights: weights.astype(ml_dtypes.bfloat16).astype(np.float32),
    **{f"{share:.0%} pruned": without_small(share) for share in (0.3, 0.5, 0.9)},
    "2 % noise": lambda weights: weights + 0.02 * weights.std() * noise(weights.shape),
    "50 % noise": lambda weights: weights + 0.5 * weights.std() * noise(weights.shape),
    "adapter of rank 1": lambda weights: weights + 0.2 * weights.std() * adapter(weights.shape, 1),
    "adapter of rank 16": lambda weights: weights + 0.03 * weights.std() * adapter(weights.shape, 16),
    "scaled as a whole": lambda weights: weights * 1.3,
    "rows scaled": lambda weights: weights * np.exp(0.3 * noise((len(weights), 1))),
    "columns scaled": lambda weights: weights * np.exp(0.3 * noise((1, weights.shape[1]))),
    "centred": lambda weights: weights - weights.mean(axis=0),
    "re-initialised": lambda weights: weights.std() * noise(weights.shape),
}


@pytest.mark.parametrize("change", HEALTHY)
def test_healthy_changes_are_no_fault_of_storage(change: str) -> None:
    old = parent()
    new = np.asarray(HEALTHY[change](old), dtype=np.float32)

    assert fault_of(new, old) is None
    assert fault_of(new.T, old.T) is None


def test_an_order_of_packing_is_found_under_the_rounding() -> None:
    old = parent()
    order = np.arange(SHAPE[0]).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)

    found = exact_change(read_back(old, 4, 128)[order], old, None, None)

    assert found is not None
    assert found.rows is not None
    assert found.rows.reordering is not None
    assert (found.rows.reordering.axis, found.rows.reordering.block) == (Axis.ROWS, 8)
    assert found.rows.reordering.matched == SHAPE[0] * 6 // 8
    assert found.fault is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (64, 1), (3, 5), (10, 17), (2, 16), (300, 15)])
def test_matrices_of_any_shape_are_looked_at(shape: tuple[int, int]) -> None:
    old = noise(shape).astype(np.float32)

    for new in (old + 1, 2 * old, -old, np.zeros_like(old), 1 + 0 * old):
        fault = find_storage_fault(new.astype(np.float32), old)
        assert fault is None or fault.explained >= 0.5
